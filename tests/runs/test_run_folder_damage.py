"""What is wrong with a run folder is one line: damaged metrics, another process that writes into it."""

import subprocess
import sys
import time

import pytest

from vidlet.errors import DataError, TrainingError
from vidlet.files import Lock
from vidlet.runs import RunFolder


@pytest.mark.parametrize("text", [b"{", b"[]", b"3", b'{"files": 3}', b"\xff\xfe", b"[" * 5000])
def test_damaged_metrics_are_one_line(tmp_path, text):
    (tmp_path / "metrics.json").write_bytes(text)
    with pytest.raises(TrainingError, match=r"metrics\.json: not the metrics of a run") as caught:
        RunFolder.of(tmp_path).add_metrics("model.onnx", {"files": {}, "bytes": {}})
    assert "\n" not in str(caught.value)


def test_figures_that_are_not_finite_are_null_in_the_file(tmp_path):
    run = RunFolder.of(tmp_path)
    run.write_metrics({"files": {"a": {"accuracy": float("nan")}}, "bytes": {}})
    assert run.metrics()["files"] == {"a": {"accuracy": None}}


def test_a_folder_is_held_while_what_holds_it_lives(tmp_path):
    held = RunFolder.of(tmp_path / "a").hold()
    with pytest.raises(DataError, match="another process writes into it; choose another --out"):
        RunFolder.of(tmp_path / "a").hold()
    del held
    assert RunFolder.of(tmp_path / "a").hold()
    assert not (tmp_path / "a").exists()  # nothing was written


@pytest.mark.parametrize(
    "words",
    [
        ["extract", "CLIPS", "--recipe", "tiny-grid-gru"],
        ["extract", "CLIPS", "--recipe", "tiny-grid-gru", "--format", "records"],
        ["extract", "CLIPS", "--flow"],
    ],
)
def test_a_folder_into_which_another_process_writes_is_refused(words, tmp_path, motion_clips, refused):
    with Lock(tmp_path / "out"):
        told = [str(motion_clips) if word == "CLIPS" else word for word in words]
        refused(*told, "--out", tmp_path / "out", said="another process writes into it; choose another --out")


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path):
    code = (
        "import sys, time, types; import vidlet.cli as cli\n"
        "import vidlet.cli.train_command as command\n"
        "command.run = lambda args: (print('begun', flush=True), time.sleep(30))\n"
        "sys.exit(cli.main(['train', '.']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "begun\n"
        before = time.monotonic()
        child.terminate()
        _, said = child.communicate(timeout=20)
    assert time.monotonic() - before < 10
    assert child.returncode == 130
    assert said == "interrupted; what was finished is kept; go on with --resume\n"
