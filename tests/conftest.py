"""One tiny run that many tests share: the motion set, two epochs of the tiny recipe. It has learned nothing yet.

One of its training clips could not be read, as happens.
"""

import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; read when torch is first imported

TINY_CLIPS = 48
GRAPHS = "VIDLET_GRAPHS"
FIRST_WORDS = ("compress ", "ensemble ", "evaluate ", "extract ", "model ", "render ", "train ")  # said before the work
TINY_OVERRIDES = {"training.epochs": 2}


@dataclass(frozen=True)
class TinyRun:
    """Where the clips and the run lie, what ``train`` returned, and the clip that it had to skip (here it is whole)."""

    clips: Path
    folder: Path
    result: dict[str, Any]
    skipped: str

    @property
    def model(self) -> Path:
        """The float32 product."""
        return self.folder / "model.onnx"


def pytest_configure(config: pytest.Config) -> None:
    """All processes of a test run share the graphs that torch's exporter made in it, and none from before."""
    if not hasattr(config, "workerinput"):
        config.stash[_graphs] = tempfile.TemporaryDirectory(prefix="vidlet-graphs-")
        os.environ[GRAPHS] = config.stash[_graphs].name


_graphs = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing is left of them."""
    if _graphs in config.stash:
        config.stash[_graphs].cleanup()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """A folder of this test run and what ``make`` returned when it filled it; one worker makes it, the others wait."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    told = folder / "returned.json"
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 300
        while not told.exists():
            assert time.monotonic() < deadline, f"another worker did not finish {folder}"
            time.sleep(0.1)
        return folder, json.loads(told.read_text())
    draft = told.with_suffix(".part")
    draft.write_text(json.dumps(make(folder)))
    draft.rename(told)
    return folder, json.loads(told.read_text())


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators():
    """torch's exporter makes its table of all operators anew in each export, half of what a small one takes."""
    if "torch" in sys.modules:
        from torch.onnx._internal._lazy_import import onnxscript_apis

        @functools.cache
        def made() -> object:
            return type(onnxscript_apis).__getattr__(onnxscript_apis, "get_torchlib_ops")()

        vars(onnxscript_apis)["get_torchlib_ops"] = made


@pytest.fixture(scope="session")
def motion_clips(tmp_path_factory) -> Path:
    """A folder with 48 clips of 64 x 64 pixels and clips.csv; tests must not write into it."""
    from vidlet.datasets import render_motion

    folder, _ = made_once(
        tmp_path_factory,
        "motion",
        lambda folder: len(render_motion(folder / "clips", clips=TINY_CLIPS, seed=0, size=64)),
    )
    return folder / "clips"


@pytest.fixture(scope="session")
def tiny_run(motion_clips, tmp_path_factory) -> TinyRun:
    """A finished run folder; tests must not write into it."""

    def make(folder: Path) -> dict[str, Any]:
        from vidlet.datasets import read_table
        from vidlet.jobs.train import train

        clips = folder / "clips"
        shutil.copytree(motion_clips, clips)
        broken = read_table(clips).of_split("train").clips[3].path
        broken.write_bytes(broken.read_bytes()[:500])
        return {"result": train(clips, "tiny-grid-gru", folder / "run", TINY_OVERRIDES), "skipped": str(broken)}

    folder, told = made_once(tmp_path_factory, "tiny", make)
    return TinyRun(motion_clips, folder / "run", **told)


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in an empty folder: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vidlet.progress.EVERY_S", 3600.0)  # a busy machine says no more than an idle one
    from vidlet.cli import main

    def call(*words) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return (status, *capfd.readouterr())

    return call


@pytest.fixture
def refused(run):
    """Run a command that must be refused in one line that holds all of ``said``; return the line.

    Before it may stand what a command says at its start, where only its work shows that something is wrong.
    """

    def call(*words, said=()):
        status, out, err = run(*words)
        assert (status, out) == (2, ""), err
        assert err.endswith("\n")
        err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith(FIRST_WORDS))
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        for part in said if isinstance(said, tuple) else (said,):
            assert str(part) in err, err
        return err

    return call
