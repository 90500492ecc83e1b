"""Trials by the actors of a Ray cluster: the same as by processes, also where an actor is killed."""

import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vidlet.errors import DataError, DependencyError, TrainingError
from vidlet.features import ClipFeatures, FeatureStore, what_failed
from vidlet.files import Lock
from vidlet.jobs.fit import fit
from vidlet.search import proxy
from vidlet.search.cluster import ClusterWorkers
from vidlet.search.proxy import ClipTrials, Outcome, Pool, try_candidate
from vidlet.search.space import Space, first_candidates

SPACE = Space(epochs=2, rounds=(1.0,), begin=("default", "small"))
SETTING = {"shape": [3, 7, 7], "storage": "float32"}
FIRST, SECOND = first_candidates(SPACE)[:2]


@pytest.fixture
def pool(tmp_path):
    draw, store = np.random.default_rng(0), FeatureStore(tmp_path / "cache", SETTING)
    keys = tuple(f"k{number}" for number in range(8))
    store.write([(ClipFeatures(key, draw.normal(size=(4, 3, 7, 7)), np.arange(4.0)), "a.mp4") for key in keys])
    stores = {(place, hz): SETTING for place in SPACE.places for hz in SPACE.rates_hz}
    held_out = np.arange(8) >= 4
    return Pool(tmp_path / "cache", stores, keys, np.eye(2, dtype=np.float32)[[0, 1] * 4], (held_out,))


class FromWorker(Exception):
    """An error as Ray brings it from a worker."""

    def __init__(self, cause):
        super().__init__("Traceback of the worker ...")
        self.cause = cause


class Remote:
    """A method of an actor: called at once, in this process."""

    def __init__(self, method):
        self.method = method

    def remote(self, *given):
        future = Future()
        try:
            future.set_result(self.method(*given))
        except Exception as error:
            future.set_exception(FromWorker(error))
        return SimpleNamespace(future=lambda: future)


class FakeRay:
    """As much of Ray as ``ClusterWorkers`` asks for, on a cluster with room for three."""

    def __init__(self):
        self.killed = 0

    def cluster_resources(self):
        return {"CPU": 3.0}

    def put(self, given):
        return given

    def get(self, found):
        return [one.future().result() for one in found]

    def kill(self, actor):
        self.killed += 1

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_restarts": -1, "max_task_retries": -1}

        def actor(made):
            def begin(given):
                inside = made(given)
                return SimpleNamespace(**{name: Remote(getattr(inside, name)) for name in ("version", "check", "work")})

            return SimpleNamespace(remote=begin)

        return actor


def test_each_processor_of_the_cluster_tries_and_they_say_what_a_process_would(pool):
    ray = FakeRay()
    workers = ClusterWorkers(ClipTrials(SPACE, pool), ray)
    assert workers.count == 3
    found = [workers.submit((candidate, 2)).result() for candidate in (FIRST, SECOND)]
    alone = [try_candidate(SPACE, pool, candidate, 2) for candidate in (FIRST, SECOND)]
    assert [(o.accuracy, o.loss) for o in found] == [(o.accuracy, o.loss) for o in alone]
    workers.close()
    assert ray.killed == 3


def test_what_fails_on_a_worker_is_one_sentence(pool, monkeypatch):
    def fail(*given):
        raise TrainingError("the loss is no number")

    monkeypatch.setattr(proxy, "try_candidate", fail)
    future = ClusterWorkers(ClipTrials(SPACE, pool), FakeRay()).submit((FIRST, 2))
    with pytest.raises(DataError, match=r"^the loss is no number$"):
        future.result()


def test_machines_that_do_not_see_the_features_are_refused(pool, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    away = Pool(tmp_path / "elsewhere", pool.stores, pool.keys, pool.targets, pool.folds)
    with pytest.raises(FromWorker) as told:
        ClusterWorkers(ClipTrials(SPACE, away), FakeRay())
    assert re.search("features of the search are not seen here; set VIDLET_CACHE", what_failed(told.value))


def test_what_makes_no_sense_with_an_engine_is_refused(refused, tmp_path, monkeypatch):
    words = ("fit", _two_classes(tmp_path / "clips"), "--max-size", "1MB", "--out", tmp_path / "run")
    refused(*words, "--engine", "ray", "--join", said="two ways to share trials")
    refused(*words, "--address", "head:6379", said="of --engine ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"needs Ray: .*\[ray\]"):
        fit(words[1], max_size="1MB", out=tmp_path / "run", engine="ray")
    assert not (tmp_path / "run" / "trials.jsonl").exists() and Lock(tmp_path / "run").acquire()


def _two_classes(data):
    for number in range(12):
        clip = data / ("jump" if number % 2 else "run") / f"{number}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.write_bytes(b"")
    return data


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds actors in /proc")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_an_actor_that_is_killed_tries_again_on_a_real_cluster(pool, tmp_path):
    pytest.importorskip("ray", reason="no ray: pip install 'vidlet[ray]'")
    from vidlet.features import on_cluster

    killed = []

    def kill_one():
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            for status in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    trying = status.read_bytes().startswith(b"ray::Trying.work")
                except OSError:
                    continue
                if trying:
                    killed.append(int(status.parent.name))
                    os.kill(killed[-1], signal.SIGKILL)
                    break
            time.sleep(0.01)

    with on_cluster(None) as ray:
        workers = ClusterWorkers(ClipTrials(SPACE, pool), ray)
        killer = threading.Thread(target=kill_one)
        killer.start()
        futures = [workers.submit((candidate, 200)) for candidate in (FIRST, SECOND) * 2]
        found = [future.result(timeout=300) for future in futures]
        killer.join()
        workers.close()
    alone = [try_candidate(SPACE, pool, candidate, 200) for candidate in (FIRST, SECOND)] * 2
    assert len(killed) == 1
    assert all(isinstance(outcome, Outcome) for outcome in found)
    assert [(o.accuracy, o.loss) for o in found] == [(o.accuracy, o.loss) for o in alone]
