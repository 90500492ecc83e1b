"""Features of many clips on a Ray cluster: ``vidlet extract DATA --engine ray`` (vidlet[ray]); and how one is joined.

An actor holds one extractor. It is given clips, never frames, decodes them by our own rule, writes its own parts of the
store, each whole or not at all, and returns keys and reasons. An actor that is killed is started again by Ray, finds in
the store what it had written, and does the rest.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import cloud
from ..datasets import Clip, ClipTable
from ..errors import DataError, DependencyError, VidletError
from ..recipe import Sampling
from ..runtime import open_session
from ..wording import how_to_install, shown
from .extract import Extracted, damaged_clips, fill_stores
from .store import FeatureStore, Keys, clip_key

TASK_CLIPS = 64  # of one call of an actor, at most
HELD_PARTS = 16  # open at a time, of the many that lie there in the end
AHEAD = 2  # calls that wait at each actor, so that none is idle
Done = tuple[int, str, str]  # number of the clip, its key, why it cannot be read


class Extracting:
    """One worker: an extractor and its parts of a store.

    Args:
        root: folder or address of the store.
        setting: of the store (``store_setting``).
        threads: that work, each on a clip of its own.
        data: address of the clips, and where the machine that names them keeps what it has of it; None: it names files.
    """

    def __init__(
        self,
        sampling: Sampling,
        size: tuple[int, int],
        root: str,
        setting: dict[str, Any],
        threads: int,
        data: tuple[str, str] | None = None,
    ) -> None:
        self.sampling, self.size, self.threads = sampling, size, threads
        self.root, self.setting, self.data = root, setting, data
        self.opened: tuple[Any, FeatureStore, cloud.Outgoing | None] | None = None

    def version(self) -> str:
        """Which vidlet the worker runs."""
        return version("vidlet")

    def end(self) -> None:
        """Remove what was sent to an address."""
        if self.opened and self.opened[2]:
            self.opened[2].end()

    def work(self, graph: bytes, clips: Sequence[tuple[int, Clip]]) -> list[Done]:
        """Store the features of some clips, with their numbers; ``graph`` is the extractor's."""
        if self.opened is None:
            session = open_session(graph, "the extractor", 1)
            out = cloud.Outgoing(self.root) if cloud.is_address(self.root) else None
            self.opened = session, FeatureStore(out.folder if out else self.root, self.setting), out
            if self.data:
                cloud.mirror(self.data[0])
        session, store, out = self.opened
        there, own = ("", "") if self.data is None else (self.data[1], str(cloud.own_folder(self.data[0])))
        found: list[Done] = []
        keys: dict[int, str] = {}
        todo: dict[str, Clip] = {}
        for number, named in clips:
            clip = replace(named, path=Path(own, named.path.relative_to(there))) if own else named
            try:
                keys[number] = key = clip_key(clip)
            except DataError as error:
                found.append((number, "", str(error)))
                continue
            if key not in store:
                todo.setdefault(key, clip)
        filling = fill_stores(todo, session, {"features": store}, self.sampling, self.size, self.threads)
        failed = dict(filling)
        if out:
            out.send()
        found += [(number, "" if failed.get(key) else key, failed.get(key, "")) for number, key in keys.items()]
        return [(number, key, why.replace(own, there) if own else why) for number, key, why in found]


def extract_on_ray(
    table: ClipTable,
    graph: bytes,
    sampling: Sampling,
    size: tuple[int, int],
    root: Path,
    setting: dict[str, Any],
    address: str | None = None,
    workers: int = 0,
    threads: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> Extracted:
    """``extract`` by the actors of a Ray cluster, into a folder that all of them see.

    Where the clips' folder or the store stands for one at an address (cloud.py) actors copy from and send to that.

    Args:
        setting: see ``store_setting``.
        address: of a cluster ("auto", "host:6379"); None starts one on this machine, for as long as this takes.
        workers: actors; 0: as many as the cluster has room for, ``threads`` processors each.
        progress: called with (clips done, clips in all, what else is worth telling).

    Raises:
        DataError: no cluster at the address, another vidlet there, or a disk that is not shared.
        DependencyError: Ray is not installed.
    """
    with on_cluster(address) as ray:
        before = FeatureStore(root, setting, HELD_PARTS)  # the folder is there before anybody writes
        there = cloud.address_of(table.root)
        data = (there, str(cloud.own_folder(there))) if there else None
        actors = begin_workers(ray, workers, threads, sampling, size, root, setting, data)
        keys, new, failures = Keys(len(table)), np.zeros(len(table), bool), []
        for done, (number, key, why) in enumerate(results(ray, actors, graph, table.clips), 1):
            keys[number] = key or None
            new[number] = bool(key) and key not in before
            if why:
                failures.append((str(table.clips[number].path), why))
            if progress:
                progress(done, len(table), f"{len(failures)} failed" if failures else "")
        ray.get([actor.end.remote() for actor in actors])
    if out := cloud.sending.get(root):
        out.bring()
    store = FeatureStore(root, setting, HELD_PARTS)
    absent = [table.clips[i] for i, key in enumerate(keys) if key and key not in store]
    if absent:
        raise DataError(
            f"{store.folder}: lacks {len(absent)} clips that workers have stored, the first is {absent[0].path}: "
            "--out must be a folder that all machines of the cluster share"
        )
    computed = len(np.unique(keys.digests[new]))
    return Extracted(store, keys, failures, damaged_clips(store, table, keys), computed)


@contextlib.contextmanager
def on_cluster(address: str | None) -> Iterator[Any]:
    """Ray, joined to the cluster at an address or to one on this machine; it is left at the end.

    Raises:
        DataError: no cluster at the address, or what failed on it. DependencyError: Ray is not installed.
    """
    ray = _ray()
    _join(ray, address)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray prints of workers that died
            yield ray
    except ray.exceptions.RayError as error:
        raise DataError(what_failed(error)) from error
    finally:
        ray.shutdown()


def what_failed(error: BaseException) -> str:
    """What ended a worker or the cluster, in one sentence: the worker's own, where it has one."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, VidletError):
        return str(cause)
    if isinstance(cause, OSError) and cause.strerror:  # a full disk
        return f"a worker of the cluster: {shown(cause.filename or '')}: {cause.strerror}; what is stored stays"
    return f"Ray: {shown(' '.join(str(error).split())[-300:])}"


def begin_workers(
    ray: Any,
    workers: int,
    threads: int,
    sampling: Sampling,
    size: tuple[int, int],
    root: Path,
    setting: dict[str, Any],
    data: tuple[str, str] | None = None,
) -> list[Any]:
    """The actors of ``extract_on_ray``, ready. DataError: too many of them, or another vidlet there."""
    room = int(ray.cluster_resources().get("CPU", 1)) // max(1, threads)
    if workers > room:
        raise DataError(f"--workers {workers}: the cluster has room for {room}")
    actor = ray.remote(num_cpus=max(1, threads), max_restarts=-1, max_task_retries=-1)(Extracting)
    given = (sampling, size, cloud.address_of(root) or str(root.absolute()), setting, threads, data)
    actors = [actor.remote(*given) for _ in range(workers or max(1, room))]
    same_version(ray, actors)
    return actors


def results(ray: Any, actors: Sequence[Any], graph: bytes, clips: Sequence[Clip]) -> Iterator[Done]:
    """What the actors return, as it comes; each has a few calls before it, and no more are made."""
    shared = ray.put(graph)
    size = max(1, min(TASK_CLIPS, len(clips) // (2 * AHEAD * len(actors))))
    parts = (list(enumerate(clips[begin : begin + size], begin)) for begin in range(0, len(clips), size))
    waiting: dict[Any, Any] = {}
    free = deque(actor for _ in range(AHEAD) for actor in actors)
    while True:
        while free and (part := next(parts, None)):
            actor = free.popleft()
            waiting[actor.work.remote(shared, part)] = actor
        if not waiting:
            return
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        free.append(waiting.pop(ready))
        yield from ray.get(ready)


def same_version(ray: Any, actors: Sequence[Any]) -> None:
    """Refuse workers that run another vidlet than this process. DataError: names both."""
    own = version("vidlet")
    for number, other in enumerate(ray.get([actor.version.remote() for actor in actors]), 1):
        if other != own:
            raise DataError(f"worker {number} of the cluster runs vidlet {other}, this machine {own}: install the same")


def _join(ray: Any, address: str | None) -> None:
    """Join the cluster at an address, or start one here that only this machine reaches."""
    local = {} if address else {"include_dashboard": False}
    host, colon, port = str(address).rpartition(":")
    try:
        if colon and port.isdecimal() and "/" not in host:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()  # Ray itself waits for minutes
        with contextlib.nullcontext() if address else _unreachable(ray):
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **local)
    except VidletError:
        raise
    except Exception as error:  # Ray's own have no kind: a node that did not start in time
        where = f"--address {shown(address)}" if address else "on this machine"
        raise DataError(f"{where}: no Ray cluster ({shown(' '.join(str(error).split())[:160])})") from error


@contextlib.contextmanager
def _unreachable(ray: Any) -> Iterator[None]:
    """A cluster that begins inside has 127.0.0.1 for its node's address. Ray has no public setting for that."""
    constants = ray._private.ray_constants
    if not hasattr(constants, "ENABLE_RAY_CLUSTER"):
        raise DependencyError(f"Ray {ray.__version__} has no way to keep a cluster on this machine; 2.60 has one")
    reachable = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = reachable


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else 15: where cores are shared, all others come first
    try:
        import ray
    except ImportError as error:
        raise DependencyError(f"--engine ray needs Ray: {how_to_install('ray')}") from error
    return ray
