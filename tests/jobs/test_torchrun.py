"""`torchrun -m vidlet train`: two processes learn what one learns; if one is killed all end, and --resume goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlet
from boxes_case import OVERRIDES, write_squares
from vidlet.datasets import render_motion
from vidlet.datasets.residual import render_residual

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == "win32", reason="needs gloo"),
]
# A bias before a norm has no gradient but rounding, which AdamW would magnify; dropout differs between processes.
TRAIN = ["train", "clips", "--recipe", "tiny-grid-gru", "--set", "head.options.dropout=0"]
TRAIN += ["--set", "training.optimizer=sgd", "--set", "training.least_updates=0", "--set", "training.extractor_lr=1e-3"]
RUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SENTENCES = ("another of the 2 processes of this training ended", "interrupted; what was finished is kept")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    root = tmp_path_factory.mktemp("torchrun")
    render_motion(root / "clips", clips=21, seed=0, size=64)
    return root


def environment(root):
    source = str(Path(vidlet.__file__).parents[1])
    known = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC")}
    return {**known, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "VIDLET_CACHE": str(root / "cache")}


def start(root, words, processes):
    command = [*RUN, str(processes)] if processes else [sys.executable]
    return subprocess.Popen([*command, "-m", "vidlet", *words], cwd=root, env=environment(root), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def finish(root, words, processes=0, status=0):
    with start(root, words, processes) as run:
        out, said = run.communicate(timeout=400)
    assert run.returncode == status, said
    return out, said


def tensors(path):
    found = torch.load(path, weights_only=True)
    return {name: value.numpy() for name, value in found.get("state_dict", found).items()}


def assert_close(a, b, atol):
    """Running variances to a hundredth: torch's own, of maps whose channels are last, are off by a thousandth."""
    assert list(a) == list(b)
    for name, value in a.items():
        near = {"rtol": 1e-2, "atol": 1e-3} if atol and ".running_" in name else {"rtol": 0, "atol": atol}
        np.testing.assert_allclose(value, b[name], **near, err_msg=name)


def test_two_processes_learn_what_one_learns_and_the_first_alone_speaks(ground):
    words = [*TRAIN, "--epochs", "3", "--json", "--out"]
    finish(ground, [*words, "one"])
    out, said = finish(ground, [*words, "two"], 2)
    assert json.loads(out)["out"] == "two"
    assert said.count("by 2 processes") == 1 and said.count("train tiny-grid-gru:") == 1
    for name in ("head.pt", "extractor.pt"):
        assert_close(tensors(ground / "one" / name), tensors(ground / "two" / name), 1e-5)
    rows = [np.genfromtxt(ground / run / "log.csv", delimiter=",", skip_header=1) for run in ("one", "two")]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4, atol=1e-5)


def options(settings, below=""):
    """Settings of a recipe as words of the command line."""
    words = []
    for key, value in settings.items():
        nested = isinstance(value, dict)
        words += options(value, f"{below}{key}.") if nested else ["--set", f"{below}{key}={json.dumps(value)}"]
    return words


def test_records_and_boxes_are_learned_by_two_processes_as_by_one(ground):
    """By plain descent, which magnifies no rounding, and without what each process draws for itself."""
    render_residual(ground / "records", 60, 20, 20, seed=0, classes=6)
    write_squares(ground / "boxes")
    plain = {"training.optimizer": "sgd", "training.epochs": 2, "training.least_updates": 0}
    boxes = {**OVERRIDES, **plain, "training.lr": 3e-4}
    for data, recipe, settings, names in (
        ("records", "records-mean", {**plain, "training.lr": 0.1}, ("head.pt",)),
        ("boxes", "tiny-yolov2", boxes, ("detector.pt",)),
    ):
        words = ["train", data, "--recipe", recipe, *options(settings), "--out"]
        finish(ground, [*words, f"{data}-one"])
        _, said = finish(ground, [*words, f"{data}-two"], 2)
        assert said.count("by 2 processes") == 1
        for name in names:
            assert_close(tensors(ground / f"{data}-one" / name), tensors(ground / f"{data}-two" / name), 1e-5)
        assert epochs_in(ground / f"{data}-two") == 2 and (ground / f"{data}-two/model.onnx").exists()


def test_what_is_wrong_is_said_once(ground):
    (ground / "taken").mkdir()
    (ground / "taken" / "model.onnx").touch()
    for words, error in (
        ([*TRAIN, "--out", "taken"], "TrainingError: taken"),
        ([*TRAIN, "--set", "training.lr=1e30"], "RecipeError: tiny-grid-gru"),
        ([*TRAIN, "--set"], "vidlet train: "),
        (["train", "nowhere"], "DataError: nowhere"),
        (["evaluate", "a", "clips"], "DataError: vidlet evaluate"),
    ):
        _, said = finish(ground, words, 2, status=1)  # torchrun's own status
        assert [line.startswith(error) for line in said.splitlines()].count(True) == 1, said


def workers(run):
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return [int(child) for child in children]


def epochs_in(folder):
    log = folder / "log.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_kills_at_random_moments_lose_nothing(ground):
    kills = int(os.environ.get("VIDLET_KILLS", "3"))
    words = [*TRAIN, "--epochs", str(4 * kills), "--out"]
    finish(ground, [*words, "whole"], 2)
    draw, told = random.Random(kills), []
    for number in range(kills):
        before = epochs_in(ground / "cut")
        with start(ground, [*words, "cut", "--resume"], 2) as run:
            # Every other one at any moment of its beginning, the others behind an epoch of their own.
            while run.poll() is None and (len(workers(run)) < 2 or epochs_in(ground / "cut") < before + number % 2):
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.5 if number % 2 else 8))
            if run.poll() is None:
                os.kill(workers(run)[draw.randrange(2)], signal.SIGKILL)
            _, said = run.communicate(timeout=400)
        if run.returncode == 0:
            break
        told.append(sum(said.count(sentence) for sentence in SENTENCES))
        assert told[-1] <= 1, said  # none where it was killed before it could know of the others
        assert told[-1] == 1 or not number % 2, said
    assert len(told) > kills // 2
    finish(ground, [*words, "cut", "--resume"], 2)
    for name in ("head.pt", "extractor.pt"):
        assert_close(tensors(ground / "whole" / name), tensors(ground / "cut" / name), 0)
    assert (ground / "whole/log.csv").read_text() == (ground / "cut/log.csv").read_text()
