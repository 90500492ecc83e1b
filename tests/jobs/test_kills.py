"""A command that is killed at any of its atomic steps and run again ends as an undisturbed one does, to the bit."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlet
from vidlet.datasets import render_motion
from vidlet.models.mobilenets import MobileNetV2
from vidlet.runtime import graph_sha256
from vidlet.video import write_video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process"),
]
TRAIN = ["train", "../clips", "--recipe", "tiny-grid-gru", "--epochs", "2"]
ENSEMBLE = ["ensemble", "../clips", "../a", "../b", "--max-size", "1MB", "--out", "out"]
FIT = ["fit-small", "../colors", "../random.pt"]
CLOCK = {"seconds", "measured"}  # what a log of trials holds that depends on the clock
COMMANDS = {  # name: words, and the words of the second try
    "train": ([*TRAIN, "--out", "out"], [*TRAIN, "--out", "out", "--resume"]),
    "extract": (["extract", "../clips", "--recipe", "tiny-grid-gru", "--out", "out"], None),
    "compress": (["compress", "out", "../clips", "units:0.5+int8"], None),
    "export": (["export", "../a", "--format", "onnx", "--out", "out/net.onnx"], None),
    "ensemble": (ENSEMBLE, [*ENSEMBLE, "--resume"]),
    "fit": (FIT, [*FIT, "--resume"]),
}
# Of the undisturbed command's steps; VIDLET_KILLS=all tries every one, both ways, VIDLET_KILLS=13-20 those.
MOMENTS = ((0.0, "before"), (0.35, "behind"), (0.7, "before"), (1.0, "behind"))


class Zygote:
    """The process that forks the commands."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(vidlet.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        script = Path(__file__).parents[1] / "killed.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, folder, words, at=0, when="before"):
        own = {"VIDLET_CACHE": str(folder / "cache"), "VIDLET_GRAPHS": str(folder / "graphs")}  # each run has all steps
        job = {"words": words, "folder": str(folder), "env": own}
        self.process.stdin.write(json.dumps({**job, "at": at, "when": when}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    with made.process:
        made.process.stdin.close()


@pytest.fixture(scope="module")
def ground(zygote, tmp_path_factory):
    """clips/ of 24, two runs on them, a/ and b/, and for a search colors/ and random.pt."""
    root = tmp_path_factory.mktemp("kills")
    render_motion(root / "clips", clips=24, seed=0, size=64)
    (root / "made").mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        found = zygote.run(root / "made", [*TRAIN, "--seed", str(seed), "--out", f"../{name}"])
        assert found["code"] == 0, found["said"]
    draw_colors(root / "colors")
    torch.manual_seed(0)
    torch.save(MobileNetV2(0.35, "block5").state_dict(), root / "random.pt")
    return root


def draw_colors(folder):
    """Twenty-four clips of two colors."""
    draw, rows = np.random.default_rng(0), ["path,label,group,split"]
    for number in range(24):
        color = np.array([(200, 60, 60), (60, 200, 60)][number % 2])
        frames = np.clip(color + draw.normal(0, 25, (6, 64, 64, 3)) + draw.normal(0, 15), 0, 255).astype(np.uint8)
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{number}.mp4", list(frames), 8)
        rows.append(f"{number}.mp4,{'red' if number % 2 == 0 else 'green'},g{number // 2},{'test' * (number > 17)}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")


def fresh(root, name, command):
    folder = root / name
    folder.mkdir()
    if command == "compress":
        shutil.copytree(root / "a", folder / "out")
    return folder


def content(out):
    """What a command left: name -> a hash of what does not depend on the clock."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or name.startswith("tensorboard") or path.suffix in (".json", ".html", ".pt"):
            continue
        if path.suffix == ".onnx":
            found[name] = graph_sha256(path.read_bytes())
        elif name == "log.csv":
            found[name] = [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]
        elif name == "trials.jsonl":
            found[name] = sorted(timeless(json.loads(line)) for line in path.read_text().splitlines())
        elif path.suffix == ".arrow":
            found["features"] = sorted([*found.get("features", []), *stored(path)])
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def timeless(record):
    """A line of a search's log without what depends on the clock."""

    def without(value):
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key not in CLOCK}
        return value

    return json.dumps(without(record), sort_keys=True)


def stored(part):
    import pyarrow.ipc

    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(part))).read_all()
    rows = zip(table["key"].to_pylist(), table["features"].to_pylist(), strict=True)
    return [(key, hashlib.sha256(repr(values).encode()).hexdigest()) for key, values in rows]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_is_run_again_to_the_same_bits(command, zygote, ground):
    words, again = COMMANDS[command]
    whole = fresh(ground, f"{command}-whole", command)
    undisturbed = zygote.run(whole, words)
    assert undisturbed["code"] == 0, undisturbed["said"]
    wanted, steps = content(whole / "out"), undisturbed["steps"]
    assert wanted and steps
    moments = {(1 + round(share * (steps - 1)), when) for share, when in MOMENTS}
    if asked := os.environ.get("VIDLET_KILLS"):
        first, _, last = f"1-{steps}".partition("-") if asked == "all" else asked.partition("-")
        numbers = range(int(first), min(int(last or first), steps) + 1)
        moments = {(step, when) for step in numbers for when in ("before", "behind")}
    for at, when in sorted(moments):
        folder = fresh(ground, f"{command}-{at}-{when}", command)
        killed = zygote.run(folder, words, at, when)
        if killed["steps"] < at:  # how many parts features come in depends on the clock
            assert killed["code"] == 0, (at, when, killed["said"])
            continue
        assert killed["code"] == -9, (at, when, killed["said"])
        second = zygote.run(folder, again or words)
        finished = second["code"] == 2 and "finished run" in second["said"]  # killed behind its very end
        assert second["code"] == 0 or (finished and when == "behind"), (at, when, second["said"])
        assert content(folder / "out") == wanted, (at, when)
        shutil.rmtree(folder)
