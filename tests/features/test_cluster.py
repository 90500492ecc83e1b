"""Features by the actors of a Ray cluster are those of one process, also where actors are killed."""

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_features_store import RATE, SIZE, mean_color, table_of, write_clip

from vidlet.errors import DataError, DependencyError
from vidlet.features import FeatureStore, clip_key, extract, extract_on_ray, on_cluster, store_setting
from vidlet.features.cluster import Extracting, same_version, what_failed

SETTING = store_setting(RATE, SIZE, mean_color(), (3,), "float16")
KILLS = int(os.environ.get("VIDLET_KILLS", "3"))  # of actors, of the driver, of the node


def rows_of(store):
    return {key: store.read(key).features.tobytes() for key in store}


def fake_ray(init):
    """As much of Ray as joining asks for."""
    return SimpleNamespace(init=init, _private=SimpleNamespace(ray_constants=SimpleNamespace(ENABLE_RAY_CLUSTER=True)))


def test_what_makes_no_sense_with_an_engine_is_refused(refused, tmp_path):
    words = ("extract", tmp_path, "--recipe", "tiny-grid-gru")
    refused(*words, "--engine", "ray", "--merge", said="--merge computes nothing")
    refused(*words, "--workers", "2", said="of --engine ray")
    refused(*words, "--engine", "spark", said="ray")


def test_without_ray_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"needs Ray: .*\[ray\]"):
        extract_on_ray(table_of(tmp_path / "a.mp4"), b"", RATE, SIZE, tmp_path, SETTING)


def test_a_worker_with_another_version_is_refused_and_both_are_named():
    versions = (version("vidlet"), "0.0.1")
    actors = [SimpleNamespace(version=SimpleNamespace(remote=lambda own=own: own)) for own in versions]
    with pytest.raises(DataError, match=rf"worker 2 .* runs vidlet 0.0.1, this machine {version('vidlet')}"):
        same_version(SimpleNamespace(get=list), actors)


def test_what_ends_a_worker_is_its_own_sentence():
    class FromWorker(Exception):
        """An error as Ray brings it from a worker, with its cause."""

        def __init__(self, cause):
            super().__init__("Traceback of the worker ...\n" * 9)
            self.cause = cause

    full = FromWorker(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/shared/part.arrow"))
    assert what_failed(full) == (
        "a worker of the cluster: /shared/part.arrow: No space left on device; what is stored stays"
    )
    assert what_failed(FromWorker(DataError("a.arrow: cannot be read"))) == "a.arrow: cannot be read"
    assert "\n" not in what_failed(FromWorker(ValueError("x"))) and len(what_failed(FromWorker(None))) < 320


def test_an_address_without_a_cluster_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", fake_ray(None))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DataError, match=rf"--address {address}: no Ray cluster \(.*refused"):
            extract_on_ray(table_of(tmp_path / "a.mp4"), b"", RATE, SIZE, tmp_path, SETTING, address)


def test_a_node_that_does_not_start_is_one_sentence(tmp_path, monkeypatch):
    def slow(**_):
        raise Exception("The current node timed out during startup.\nThe GCS has become overloaded.")

    monkeypatch.setitem(sys.modules, "ray", fake_ray(slow))
    with pytest.raises(DataError, match=r"on this machine: no Ray cluster \(The current node timed out") as error:
        extract_on_ray(table_of(tmp_path / "a.mp4"), b"", RATE, SIZE, tmp_path, SETTING)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Clips, the store that one undisturbed process makes of them, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("many")
    clips = [write_clip(folder / f"{n:04d}.mp4", n, frames=200) for n in range(200 * KILLS)]
    began = time.monotonic()
    alone = extract(table_of(*clips), mean_color(), RATE, SIZE, folder / "alone")
    return clips, rows_of(alone.store), time.monotonic() - began


def longest_wait(seconds):
    """Before a kill, so that all of them come before the work is done, on a quick machine too."""
    return min(2.0, 0.6 * seconds / KILLS)


def kill_actors(stop, draw, killed, longest):
    """Kill one of our actors now and then."""
    while not stop.wait(draw.uniform(0.1, longest)):
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                ours = status.read_bytes().startswith(b"ray::Extracting") and is_below(int(status.parent.name))
            except OSError:
                continue
            if ours and len(killed) < KILLS:
                killed.append(int(status.parent.name))
                os.kill(killed[-1], signal.SIGKILL)
                break


def is_below(process):
    """Whether a process descends from this one."""
    while process > 1 and process != os.getpid():
        process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return process == os.getpid()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds actors in /proc")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_killed_actors_lose_nothing(many, tmp_path):
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    clips, alone, seconds = many
    broken = clips[0].parent / "broken.mp4"
    broken.write_bytes(b"no video")
    table = table_of(*clips, broken)
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_actors, args=[stop, random.Random(0), killed, longest_wait(seconds)])
    killer.start()
    try:
        found = extract_on_ray(table, mean_color(), RATE, SIZE, tmp_path / "ray", SETTING, workers=2)
    finally:
        stop.set()
        killer.join()
    print(f"{len(killed)} actors were killed")
    assert len(killed) == KILLS
    ((path, why),) = found.failures
    assert path == str(broken) and "broken.mp4" in why
    assert list(found.keys) == [*map(clip_key, table_of(*clips)), None]
    assert rows_of(FeatureStore(tmp_path / "ray", SETTING)) == alone
    again = extract(table, mean_color(), RATE, SIZE, tmp_path / "ray")
    assert (found.computed, again.computed) == (len(clips), 0)


def listening(processes):
    """Where processes of ours listen, as addresses of /proc/net/tcp and tcp6."""
    found, sockets = [], {}
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for line in tables.splitlines():
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A":
            raw = bytes.fromhex(local.partition(":")[0])
            words = b"".join(raw[place : place + 4][::-1] for place in range(0, len(raw), 4))
            sockets[f"socket:[{inode}]"] = ip_address(words)
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += [sockets[name] for name in [str(descriptor.readlink())] if name in sockets]
    return [getattr(address, "ipv4_mapped", None) or address for address in found]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="reads /proc/net")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_of_this_machine_listens_to_this_machine_alone_and_works_as_a_process_does():
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    with on_cluster(None) as ray:
        actor = ray.remote(num_cpus=1)(Extracting).remote(RATE, SIZE, "", SETTING, 1)
        assert ray.get(actor.version.remote()) == version("vidlet")
        below = descendants(os.getpid())
        found = listening([os.getpid(), *(number for number, _ in below)])
        (worker,) = (number for number, line in below if line.startswith(b"ray::Extracting"))
        assert os.getpriority(os.PRIO_PROCESS, worker) == os.getpriority(os.PRIO_PROCESS, 0)
    assert len(found) >= 4  # the head's, the node's, the worker's, our own
    assert all(address.is_loopback for address in found), found


DRIVER = """
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[3:]
    from test_cluster import RATE, SETTING, SIZE, extract_on_ray, mean_color, table_of
    clips = sorted(Path(sys.argv[1]).glob("[0-9]*.mp4"))
    extract_on_ray(table_of(*clips), mean_color(), RATE, SIZE, Path(sys.argv[2]), SETTING, workers=2)
"""


def descendants(process):
    """Processes below a process, as (number, command line)."""
    below, found = {process}, []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            above = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if above in below:
                below.add(int(folder.name))
                found.append((int(folder.name), (folder / "cmdline").read_bytes()))
        except (OSError, IndexError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("victim", ["driver", "node"])
def test_a_killed_driver_or_node_loses_nothing_that_was_stored(many, tmp_path, victim):
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    clips, alone, seconds = many
    draw, kills, stored = random.Random(0), 0, [0]

    def parts():
        return list((tmp_path / "ray").rglob("part-*.arrow"))

    begin = [sys.executable, "-c", textwrap.dedent(DRIVER), str(clips[0].parent), str(tmp_path / "ray")]
    begin += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    for _ in range(2 * KILLS + 1):
        before = len(parts())
        driver = subprocess.Popen(begin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until, more = time.monotonic() + 120, draw.choice((0, 1))  # at its begin, or when it has stored something
        while driver.poll() is None and kills < KILLS and time.monotonic() < until:
            time.sleep(0.1)
            raylets = [number for number, line in descendants(driver.pid) if b"/raylet/raylet" in line.split(b"\0")[0]]
            works = raylets and any(b"ray::Extracting" in line for _, line in descendants(driver.pid))
            if works and len(parts()) >= before + more:
                time.sleep(draw.uniform(0.0, longest_wait(seconds)))
                with contextlib.suppress(ProcessLookupError):  # it had just ended
                    os.kill(driver.pid if victim == "driver" else raylets[0], signal.SIGKILL)
                    kills += 1
                break
        code = driver.wait(timeout=300)
        stored.append(len(FeatureStore(tmp_path / "ray", SETTING)))
        assert stored[-1] >= stored[-2]
        if code == 0:
            break
    print(f"{kills} times the {victim} was killed; stored after each: {stored[1:]}")
    assert code == 0 and kills >= KILLS // 2 and stored[-2] > 0  # a quick machine may be done before the last
    assert rows_of(FeatureStore(tmp_path / "ray", SETTING)) == alone


MEASURED = """
    import os, sys, threading
    from pathlib import Path
    sys.path[:0] = sys.argv[3:]
    from test_cluster import RATE, SETTING, SIZE, descendants, extract_on_ray, mean_color
    from vidlet.datasets import read_table
    from vidlet.features import cluster

    class Extracting(cluster.Extracting):
        def work(self, graph, clips):
            if os.environ.get("VIDLET_DRAWN"):  # no file is decoded: where cores are few, rows are many
                import importlib, numpy, vidlet.video
                drawn = vidlet.video.SampledClip(numpy.zeros((3, *self.size, 3), numpy.uint8), numpy.arange(3) / 8, "")
                importlib.import_module("vidlet.features.extract").read_clip = lambda *given, **more: drawn
            return super().work(graph, clips)

    cluster.Extracting = Extracting

    def own(process):  # parts of the store are mapped, and given back when memory is short
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1000

    def look():
        while not ended.wait(0.5):
            for number, line in descendants(os.getpid()):
                if line.startswith(b"ray::Extracting"):
                    peaks["worker"] = max(peaks["worker"], own(number))
            peaks["driver"] = max(peaks["driver"], own(os.getpid()))

    begin = own(os.getpid())
    table = read_table(sys.argv[1])
    peaks = {"clips": own(os.getpid()) - begin, "driver": 0, "worker": 0}
    ended = threading.Event()
    looks = threading.Thread(target=look, daemon=True)
    looks.start()
    found = extract_on_ray(table, mean_color(), RATE, SIZE, Path(sys.argv[2]), SETTING, workers=2)
    ended.set()
    looks.join()
    assert found.computed == len(table) and None not in found.keys
    print(*peaks.values(), own(os.getpid()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_row_more_costs_the_driver_its_clip_and_little_else_and_a_worker_little(tmp_path):
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    counts = list(map(int, os.environ.get("VIDLET_ROWS", "3000 10000").split()))
    write_clip(tmp_path / "long.mp4", 0, frames=40)
    peaks = []
    for rows in counts:
        lines = [f"long.mp4,{'ab'[n % 2]},{n % 7},{n * 3 / rows:.6f},{n * 3 / rows + 0.4:.6f}" for n in range(rows)]
        table = tmp_path / f"{rows}.csv"
        table.write_text("\n".join(["path,label,group,start_s,end_s", *lines]))
        begin = [sys.executable, "-c", textwrap.dedent(MEASURED), str(table), str(tmp_path / f"{rows}")]
        begin += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
        done = subprocess.run(begin, check=True, stdout=subprocess.PIPE, text=True)
        clips, driver, worker, end = map(float, done.stdout.split()[-4:])
        print(
            f"{rows} rows: clips {clips:.1f} MB, driver {driver:.1f} MB, {end:.1f} at the end, worker {worker:.1f} MB"
        )
        peaks.append((max(driver, end) - clips, worker))
    rows = counts[-1] - counts[0]
    assert peaks[-1][0] - peaks[0][0] < 5 + rows * 3e-4  # MB; beside the clips
    assert peaks[-1][1] - peaks[0][1] < 10 + rows * 2e-4
