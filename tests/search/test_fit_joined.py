"""Trials by several processes on one folder: none is lost and none is counted twice, whoever dies."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from vidlet.errors import DataError, RecipeError, TrainingError
from vidlet.features import ClipFeatures, FeatureStore
from vidlet.files import Lock
from vidlet.jobs.fit import fit
from vidlet.search import joined
from vidlet.search.budget import Budget
from vidlet.search.halving import Search
from vidlet.search.joined import Board, Helper, SharedWorkers, leading
from vidlet.search.proxy import ClipTrials, Outcome, Pool
from vidlet.search.space import Space
from vidlet.search.trials import TrialLog
from vidlet.video import write_video

SPACE = Space(epochs=20, rounds=(0.25, 1.0))
SETTING = {"shape": [2], "storage": "float32"}
TRIALS = 24


class Threads:
    """Workers that try in threads, and say how good a candidate is without training it."""

    tried: ClassVar[list[str]] = []

    def __init__(self, trials, count):
        self.count, self._pool = count, ThreadPoolExecutor(count)
        assert trials.pool.store_at((trials.space.places[0], 8.0)).read("k").features.shape == (3, 2)

    def submit(self, job):
        def work(candidate, epochs):
            time.sleep(0.01)
            Threads.tried.append(f"{candidate.key} {epochs}")
            return Outcome(candidate.hidden / 512, 1 / epochs, 0.01)

        return self._pool.submit(work, *job)

    def close(self):
        self._pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.setattr(joined, "Workers", Threads)
    monkeypatch.setattr(joined, "LOST_S", 0.5)
    monkeypatch.setattr(joined, "BEAT_S", 0.05)
    monkeypatch.setattr(joined, "LOOK_S", 0.02)
    monkeypatch.setattr(Threads, "tried", [])
    FeatureStore(tmp_path / "cache", SETTING).write([(ClipFeatures("k", np.ones((3, 2)), np.arange(3.0)), "a.mp4")])
    stores = {(place, hz): SETTING for place in SPACE.places for hz in SPACE.rates_hz}
    return Pool(tmp_path / "cache", stores, ("k",), np.eye(2, dtype=np.float32)[:1], (np.array([True]),))


class Limited(Search):
    """A search that ends after some trials."""

    def next(self):
        return super().next() if len(self._taken) < TRIALS else None


def search_with(tmp_path, pool, helpers, act=lambda workers: None):
    """Run a search whose leader tries one at a time beside helpers; ``act`` is done at each look of the leader."""
    search = Limited(SPACE, TrialLog(tmp_path / "run/trials.jsonl", "a"), lambda c: True, lambda c: True)
    workers = SharedWorkers(ClipTrials(SPACE, pool), 1, Board(tmp_path / "run"))
    own = workers.look

    def look():
        for helper in helpers:
            helper.step()
        act(workers)
        return own()

    workers.look = look
    search.run(workers, time.monotonic() + 60, lambda text: None)
    workers.close()
    return search


def counted(tmp_path):
    """How often each trial stands in the log."""
    records = [json.loads(line) for line in (tmp_path / "run/trials.jsonl").read_text().splitlines()]
    found = Counter((json.dumps(r["candidate"]), r["round"]) for r in records if r["kind"] == "trial")
    assert set(found.values()) == {1}
    return len(found)


def test_helpers_try_what_the_leader_lays_out(tmp_path, pool):
    helpers = [Helper(Board(tmp_path / "run"), 2)]
    helpers[0].name = "other"
    search = search_with(tmp_path, pool, helpers)
    assert len(search.trials) == counted(tmp_path) >= TRIALS
    assert helpers[0].tried > TRIALS // 4
    assert len(Threads.tried) == len(set(Threads.tried))


def test_a_helper_that_dies_gives_its_trials_back_and_is_not_counted_when_it_speaks_again(tmp_path, pool, capsys):
    board = Board(tmp_path / "run")
    dying, living = Helper(board, 3), Helper(board, 1)
    dying.name, living.name = "dying", "living"
    dead: list[float] = []

    def act(workers):
        if not dead:
            dying.step()
            if dying.tried > 1 and dying._running:
                dead.append(time.monotonic())  # from now on it says nothing, with trials in its hands
        elif len(dead) == 1 and not any(taken.exists() for taken in dying._running.values()):
            dead.append(0.0)
            for future, taken in dying._running.items():  # it was only slow: here is what it found
                (taken.with_suffix(joined.DONE)).write_text(json.dumps(vars(future.result())))

    search = search_with(tmp_path, pool, [living], act)
    assert len(search.trials) == counted(tmp_path) >= TRIALS
    assert "dying is silent: its trial is given back" in capsys.readouterr().err
    assert len(dead) == 2


def test_what_a_helper_cannot_do_it_gives_back(tmp_path, pool, monkeypatch):
    board = Board(tmp_path / "run")
    workers = SharedWorkers(ClipTrials(SPACE, pool), 1, board)
    helper = Helper(board, 1)
    helper.step()
    workers.look()
    jobs = [(Search(SPACE, TrialLog(tmp_path / "t", "a"), bool, bool).next()[0], epochs) for epochs in (1, 2, 3)]
    with monkeypatch.context() as patch:  # on a slow machine the first is done before the last is asked for
        patch.setattr(SharedWorkers, "_free", lambda self: not self._here)
        futures = [workers.submit(job) for job in jobs]
    helper.step()
    assert len(board.files(joined.TAKEN)) == 1
    helper.stop()
    assert not board.files(joined.TAKEN) and not board.files(joined.ALIVE)
    assert len(board.files(joined.JOB)) == 2
    while not all(future.done() for future in futures):
        workers.look()
    monkeypatch.setattr(joined, "version", lambda _: "0.0.1")
    with pytest.raises(DataError, match=r"led by vidlet .*, this machine has 0\.0\.1"):
        helper.step()
    monkeypatch.undo()
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "elsewhere"))
    (tmp_path / "cache").rename(tmp_path / "hidden")
    with pytest.raises(DataError, match="the features of the search are not seen here; set VIDLET_CACHE"):
        Helper(board, 1).step()
    workers.close()
    assert board.search() is None


def test_one_leads_the_next_goes_on_and_nobody_repeats_what_is_over(tmp_path, capsys):
    run = tmp_path / "run"
    with leading(run, 1) as board:
        assert board is not None and not Lock(run).acquire()
    with leading(run, 1) as board:
        assert board is not None  # nothing was concluded
        (run / "metrics.json").write_text("{}")
        (run / "fit.json").write_text("{}")  # a search over records writes it last, one over clips the other
    with leading(run, 1) as board:
        assert board is None
    assert "the search is over; 0 trials were tried here" in capsys.readouterr().err
    assert {path.name for path in run.iterdir()} == {"metrics.json", "fit.json"}


def test_a_search_that_fails_ends_for_all_with_its_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(joined, "LOOK_S", 0.01)
    run, held = tmp_path / "run", []
    other = Lock(run).hold()

    def let_go(self):  # what the helper does while another leads
        Board(run).end("nothing keeps the budget")
        other.release()
        held.append(1)

    monkeypatch.setattr(Helper, "step", let_go)
    with pytest.raises(TrainingError, match="the search has ended: nothing keeps the budget"), leading(run, 1):
        pass
    assert held
    with pytest.raises(RecipeError), leading(run, 1):  # another budget may be tried
        raise RecipeError("no")
    assert Board(run).over == "no"


def test_a_disk_that_locks_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(joined.Lock, "acquire", lambda self: True)
    with pytest.raises(DataError, match="does not lock folders, which --join needs"), leading(tmp_path / "run", 1):
        pass


def test_searches_over_boxes_are_not_shared(tmp_path):
    (tmp_path / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,1,3,4\n")
    with pytest.raises(RecipeError, match=r"--join: shares the trials of .* clips or records; .* holds boxes"):
        fit(tmp_path, max_size="1MB", out=tmp_path / "run", join=True)


SCRIPT = """
    import sys
    from vidlet.jobs.fit import fit
    from vidlet.search import cards, clips, course, halving, joined, realize
    from vidlet.search.space import Space, cuts_of
    from vidlet.runtime import benchmark

    if __name__ == "__main__":
        for place in (realize, course, cards):
            place.benchmark = lambda path, seconds, threads: benchmark(path, 0.02, threads)
        joined.LOST_S = 4.0
        own, draws = halving.finalists, halving.Search.next
        clips.finalists = lambda *given: own(*given)[:1]
        halving.Search.next = lambda self: draws(self) if len(self._taken) < 10 else None
        cuts = cuts_of(width=0.35, weights=sys.argv[2], size=64, cuts=("block2", "block5"))
        space = Space(cuts, epochs=24, rounds=(1.0,), begin=("default",))
        fit(sys.argv[1], max_size=70_000, time=3600, out="out", workers=1, space=space, join=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["helper", "leader"])
def test_a_process_killed_in_the_middle_of_a_trial_leaves_the_search_whole(tmp_path, victim):
    from vidlet.models.mobilenets import MobileNetV2

    draw, rows = np.random.default_rng(0), ["path,label,group,split"]
    for number in range(24):
        color = np.array([(200, 60, 60), (60, 200, 60)][number % 2])
        frames = np.clip(color + draw.normal(0, 25, (6, 64, 64, 3)), 0, 255).astype(np.uint8)
        write_video(tmp_path / f"{number}.mp4", list(frames), 8)
        rows.append(f"{number}.mp4,{'red' if number % 2 == 0 else 'green'},g{number // 2},{'test' * (number > 17)}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    torch.save(MobileNetV2(0.35, "block5").state_dict(), tmp_path / "random.pt")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "VIDLET_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def begin(name):
        with (tmp_path / f"{name}.err").open("w") as told:
            words = [sys.executable, "script.py", str(tmp_path), "random.pt"]
            return subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=told)

    def wait_for(what, process):
        until = time.monotonic() + 600
        while not what():
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "leader.err").read_text()[-2000:]
            time.sleep(0.05)

    leader = begin("leader")
    wait_for((tmp_path / "out/joined/search.json").exists, leader)
    helper = begin("helper")
    wait_for(lambda: list((tmp_path / "out/joined").glob("*.taken")), leader)
    killed, other = (helper, leader) if victim == "helper" else (leader, helper)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert other.wait(timeout=600) == 0, (tmp_path / "helper.err").read_text()[-2000:]
    assert (tmp_path / "out/model.onnx").exists() and not (tmp_path / "out/joined").exists()
    records = [json.loads(line) for line in (tmp_path / "out/trials.jsonl").read_text().splitlines()]
    tried = Counter(json.dumps(r["candidate"]) for r in records if r["kind"] == "trial")
    assert set(tried.values()) == {1} and len(tried) == 10
    if victim == "helper":
        assert "is silent: its trial is given back" in (tmp_path / "leader.err").read_text()


def test_a_search_that_is_over_is_the_answer_to_the_same_question_alone(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    for number in range(12):
        clip = data / ("jump" if number % 2 else "run") / f"{number}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.write_bytes(b"")
    run.mkdir()
    budget = {**asdict(Budget(max_bytes=70_000)), "latency": ["frame", "p95"]}
    (run / "metrics.json").write_text(json.dumps({"budget": budget, "files": {}, "bytes": {}}))
    (run / "fit.json").write_text("{}")
    assert fit(data, max_size=70_000, out=run, join=True)["metrics"]["budget"] == budget
    with pytest.raises(TrainingError, match="holds a search within another budget"):
        fit(data, max_size=80_000, out=run, join=True)
    lines = [{"kind": "begin", "identity": "of others"}, {"kind": "trial", "number": 1}]
    (run / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(TrainingError, match="belongs to a search of other data"):
        fit(data, max_size=70_000, out=run, join=True)


def test_features_of_all_clips_must_be_seen_and_what_ends_just_now_is_no_error(tmp_path, pool):
    board = Board(tmp_path / "run")
    board.open(ClipTrials(SPACE, replace(pool, keys=("k", "absent"))))
    with pytest.raises(DataError, match="the features of the search are not seen here"):
        Helper(board, 1).step()
    board.open(ClipTrials(SPACE, pool))
    (board.folder / "clips.npz").unlink()
    Helper(board, 1).step()
    assert Helper(board, 1).name != Helper(board, 1).name
