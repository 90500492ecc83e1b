"""Trials by the actors of a Ray cluster: ``vidlet fit DATA --engine ray`` (vidlet[ray]).

An actor holds the space and the clips of the search, reads their stored features from a folder that all machines see,
and tries one candidate at a time. One that is killed is started again by Ray, and its trial with it.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from ..errors import DataError
from ..features import same_version, what_failed
from .joined import sees, unseen
from .proxy import Job, Outcome, Pool, try_candidate
from .space import Candidate, Space


class Trying:
    """One worker."""

    def __init__(self, given: tuple[Space, Pool]) -> None:
        self.space, self.pool = given

    def version(self) -> str:
        """Which vidlet the worker runs."""
        return version("vidlet")

    def sees(self) -> bool:
        """Whether it finds the features."""
        return sees(self.pool)

    def work(self, candidate: Candidate, epochs: int) -> Outcome:
        """See ``try_candidate``."""
        return try_candidate(self.space, self.pool, candidate, epochs)


class ClusterWorkers:
    """What ``Workers`` is, by as many actors as the cluster has processors.

    Args:
        ray: as ``on_cluster`` gives it.

    Raises:
        DataError: the machines run another vidlet, or do not see the features.
    """

    def __init__(self, space: Space, pool: Pool, ray: Any) -> None:
        self._ray, self.count = ray, max(1, int(ray.cluster_resources().get("CPU", 1)))
        given = ray.put((space, replace(pool, root=pool.root.absolute())))
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Trying)
        self._actors = [actor.remote(given) for _ in range(self.count)]
        self._given = [0] * self.count  # to each: trials that it has not ended
        same_version(ray, self._actors)
        if not all(ray.get([actor.sees.remote() for actor in self._actors])):
            raise DataError(unseen(pool.root))

    def submit(self, job: Job) -> Future[Outcome]:
        """Try a candidate where the fewest wait."""
        number = self._given.index(min(self._given))
        self._given[number] += 1
        future: Future[Outcome] = Future()

        def finished(inner: Future[Outcome]) -> None:
            self._given[number] -= 1
            if error := inner.exception():
                future.set_exception(DataError(what_failed(error)))
            else:
                future.set_result(inner.result())

        self._actors[number].work.remote(*job).future().add_done_callback(finished)
        return future

    def look(self) -> float:
        """See ``Workers``: Ray sees to the dead."""
        return 1.0

    def close(self) -> None:
        """End the actors, and what they try."""
        for actor in self._actors:
            self._ray.kill(actor)
