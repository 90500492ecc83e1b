"""Features by the actors of a Ray cluster are those of one process, also where actors are killed."""

import os
import random
import signal
import socket
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_features_store import RATE, SIZE, mean_color, table_of, write_clip

from vidlet.errors import DataError, DependencyError
from vidlet.features import FeatureStore, extract, extract_on_ray, store_setting
from vidlet.features.cluster import same_version

SETTING = store_setting(RATE, SIZE, mean_color(), (3,), "float16")


def rows_of(store):
    return {key: store.read(key).features.tobytes() for key in store}


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


def test_an_address_without_a_cluster_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DataError, match=rf"--address {address}: no Ray cluster \(.*refused"):
            extract_on_ray(table_of(tmp_path / "a.mp4"), b"", RATE, SIZE, tmp_path, SETTING, address)


def kill_actors(stop, draw, killed):
    """Kill one of our actors now and then."""
    while not stop.wait(draw.uniform(0.5, 2.0)):
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                ours = status.read_bytes().startswith(b"ray::Extracting") and is_below(int(status.parent.name))
            except OSError:
                continue
            if ours and len(killed) < 3:
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
def test_killed_actors_lose_nothing(tmp_path):
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    table = table_of(*(write_clip(tmp_path / f"{n}.mp4", n, frames=400) for n in range(120)), broken)
    alone = extract(table, mean_color(), RATE, SIZE, tmp_path / "alone")
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_actors, args=[stop, random.Random(0), killed])
    killer.start()
    try:
        found = extract_on_ray(table, mean_color(), RATE, SIZE, tmp_path / "ray", SETTING, workers=2)
    finally:
        stop.set()
        killer.join()
    assert killed
    assert found.keys == alone.keys and found.failures == alone.failures
    assert rows_of(FeatureStore(tmp_path / "ray", SETTING)) == rows_of(alone.store)
    again = extract(table, mean_color(), RATE, SIZE, tmp_path / "ray")
    assert (found.computed, again.computed) == (120, 0)
