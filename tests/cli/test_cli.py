"""The command line: exit statuses, what needs nothing heavy, and one JSON object on standard output."""

import contextlib
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

import vidlet
from cli_case import clips_of, one_object
from shared_data import shared
from vidlet.cli import COMMANDS
from vidlet.runtime import read_metadata, write_metadata
from vidlet.tasks.clips import labelled_clips

TINY = ("--recipe", "tiny-grid-gru", "--epochs", "1")


# What runs without anything heavy.


def python(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *words], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_imports_neither_numpy_nor_the_runtime_nor_torch(tmp_path):
    code = """
        import sys
        from vidlet.cli import main
        for words in ([], ["predict", "--help"], ["train", "--help"], ["demo", "--help"]):
            try:
                main(words)
            except SystemExit as leaving:
                assert not leaving.code
        heavy = {"numpy", "onnxruntime", "torch", "av", "PIL", "onnx"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    done = python(code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n    {name} " in done.stdout


def test_warnings_of_libraries_are_left_out_and_our_own_are_not(run, monkeypatch):
    from vidlet.cli import recipes_command

    def warns_as(module):
        def command(args):
            warnings.warn_explicit("is deprecated", FutureWarning, "x.py", 1, module=module)

        monkeypatch.setattr(recipes_command, "run", command)

    for library in ("torch.nn", "PIL.Image", "vidletto"):
        warns_as(library)
        assert run("recipes") == (0, "", "")
    warns_as("vidlet.video")
    with pytest.raises(FutureWarning, match="is deprecated"):  # warnings are errors in tests
        run("recipes")


def test_version_and_help_of_every_command(run):
    assert run("--version") == (0, f"vidlet {vidlet.__version__}\n", "")
    for name in COMMANDS:
        status, out, err = run(name, "--help")
        assert (status, err) == (0, "")
        assert f"example: vidlet {name} " in out
        assert "--json" in out


WITHOUT_TORCH = """
    import sys
    for name in ("torch", "onnx", "onnxscript", "pyarrow", "sklearn", "cv2", "tflite"):
        sys.modules[name] = None  # as if it were not installed
    from vidlet import progress
    progress.EVERY_S = 3600.0  # a busy machine says no more than an idle one
    from vidlet.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["predict", "evaluate", "benchmark", "inspect", "data"])
def test_a_device_needs_nothing_of_the_training_extra(command, tiny_run, tmp_path):
    clip = clips_of(tiny_run.clips)[0]
    words = {
        "predict": [tiny_run.model, clip],
        "evaluate": [tiny_run.model, tiny_run.clips],
        "benchmark": [tiny_run.model, "--seconds", "0.1"],
        "inspect": [tiny_run.model],
        "data": [tiny_run.clips],
    }[command]
    done = python(WITHOUT_TORCH, command, *map(str, words), "--json", cwd=tmp_path)
    said = [line for line in done.stderr.splitlines() if not line.startswith("evaluate ")]  # what it is about to do
    assert (done.returncode, said) == (0, [])
    one_object(done.stdout)


@pytest.mark.parametrize("command", ["train", "extract", "export", "demo"])
def test_what_needs_the_training_extra_says_how_to_get_it(command, tiny_run, tmp_path):
    words = {
        "train": [tiny_run.clips],
        "extract": [tiny_run.clips],
        "export": [tiny_run.folder, "--out", "x.onnx"],
        "demo": [],
    }[command]
    done = python(WITHOUT_TORCH, command, *map(str, words), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"vidlet {command} needs torch, onnx" in done.stderr
    assert "pip install '.[train]'" in done.stderr


# The disk and the keyboard.


def full_disk(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vidlet.files.os.fsync", full)


def test_a_copy_onto_a_full_disk_is_named_by_where_it_goes(refused, tiny_run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "from.pt", None, "to.pt")  # as shutil does

    monkeypatch.setattr("vidlet.files.os.fsync", full)
    assert "to.pt: No space left" in refused("inspect", tiny_run.model, "--out", "out.json")


def test_a_full_disk_is_one_line_that_names_the_file_and_nothing_is_half_written(
    refused, tiny_run, tmp_path, monkeypatch
):
    clip = clips_of(tiny_run.clips)[0]
    full_disk(monkeypatch)
    for words, name in (
        (["train", tiny_run.clips, *TINY, "--out", "run"], "run/recipe.toml"),
        (["extract", tiny_run.clips, "--recipe", "tiny-grid-gru", "--out", "store"], "spec.json"),
        (["export", tiny_run.folder, "--out", "out.onnx"], "out.onnx"),
        (["predict", tiny_run.model, clip, "--save", "out.mp4"], "out.mp4"),
        (["inspect", tiny_run.model, "--out", "out.json"], "out.json"),
        (["demo", "--out", "demo", "--clips", "48"], "demo"),
    ):
        refused_line = refused(*words)
        assert name in refused_line
        assert "No space left on device" in refused_line
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts]
    assert left == []


def test_a_folder_that_may_not_be_written_is_one_line(refused, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    refused("train", tiny_run.clips, *TINY, "--out", tmp_path / "file", said=(tmp_path / "file", "is a file"))
    refused("export", tiny_run.folder, "--out", tmp_path / "file" / "x.onnx", said="file")


def test_ctrl_c_leaves_130_and_says_how_to_go_on(run, motion_clips, tmp_path, monkeypatch):
    trainer = importlib.import_module("vidlet.training.loop")
    shown = trainer.bar

    @contextlib.contextmanager
    def interrupting(*told, **more):
        with shown(*told, **more) as move:
            yield lambda done, n, note="": os.kill(os.getpid(), signal.SIGINT) if note else move(done, n)

    monkeypatch.setattr(trainer, "bar", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests with it ignored
    try:
        status, out, err = run("train", motion_clips, *TINY, "--epochs", "8", "--out", "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; what was finished is kept; go on with --resume"
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    assert (tmp_path / "run" / "log.csv").read_text().count("\n") == 2
    assert not list((tmp_path / "run").glob(".*part*"))


def test_a_finished_run_is_not_trained_over_and_a_refused_resume_leaves_it_alone(refused, tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    refused("train", tiny_run.clips, *TINY, "--out", folder, said=("holds a finished run", "--resume"))
    again = ("train", tiny_run.clips, "--out", folder, "--resume", "--recipe")
    refused(*again, *TINY[1:], said=("made with another recipe (training.epochs ", " there, 1 here"))
    refused(*again, folder / "recipe.toml", "--fold", "0/2", said="made with another recipe or other data")
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


# What the commands give.


def test_train_gives_the_files_of_a_run_and_their_figures(tiny_run):
    found = tiny_run.result
    assert set(found) == {"out", "files", "metrics"}
    assert {"model.onnx", "model.int8.onnx", "report.html", "recipe.toml", "metrics.json", "log.csv"} <= set(
        found["files"]
    )
    for name, size in found["files"].items():
        assert size == (tiny_run.folder / name).stat().st_size > 0
    assert found["metrics"]["bytes"]["model.int8.onnx"] == found["files"]["model.int8.onnx"]
    assert found["files"]["model.int8.onnx"] < 0.5 * found["files"]["model.onnx"]
    evidence = read_metadata(tiny_run.model)["evidence"]
    assert evidence[0]["value"] == found["metrics"]["accuracy"]
    assert evidence[0]["table_sha256"] == labelled_clips(tiny_run.clips).sha256()
    assert json.loads((tiny_run.folder / "metrics.json").read_text())["accuracy"] == found["metrics"]["accuracy"]


def test_evaluate_has_the_contracts_keys_and_the_figures_of_training(run, tiny_run, tmp_path):
    status, out, err = run("evaluate", tiny_run.model, tiny_run.clips, "--json", "--out", "found.json")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith(f"evaluate {tiny_run.model}: ")
    found = one_object(out)
    keys = {"accuracy", "accuracy_interval", "top5", "macro_f1", "per_class", "bytes", "clips", "skipped", "split"}
    assert keys <= set(found)
    assert found["accuracy"] == tiny_run.result["metrics"]["accuracy"]
    assert found["bytes"] == tiny_run.model.stat().st_size
    assert found["split"] == "test"
    assert found["clips"] == len(clips_of(tiny_run.clips))
    low, high = found["accuracy_interval"]
    assert 0 <= low <= found["accuracy"] <= high <= 1
    assert json.loads((tmp_path / "found.json").read_text())["accuracy"] == found["accuracy"]
    assert one_object(run("evaluate", tiny_run.model, tiny_run.clips, "--split", "all", "--json")[1])["clips"] == 48
    text = run("evaluate", tiny_run.model, tiny_run.clips)[1]
    assert f"accuracy {found['accuracy']:.3f}" in text


def test_what_a_file_says_of_itself_is_measured_again(run, tiny_run, tmp_path):
    status, out, _ = run("evaluate", tiny_run.model, tiny_run.clips, "--verify", "--json")
    verified = one_object(out)["verified"]
    assert (status, verified["holds"], verified["same_file"], verified["same_data"]) == (0, True, True, True)
    assert verified["checked"][0]["what"] == "accuracy, split test"
    assert "holds: accuracy, split test" in run("evaluate", tiny_run.model, tiny_run.clips, "--verify")[1]

    other = tmp_path / "other.onnx"
    shutil.copy(tiny_run.model, other)
    metadata = read_metadata(other)
    accuracy = metadata["evidence"][0]["value"]
    metadata["evidence"][0] |= {"value": accuracy - 0.25, "graph_sha256": "0" * 64, "table_sha256": "0" * 64}
    write_metadata(other, metadata)
    verified = one_object(run("evaluate", other, tiny_run.clips, "--verify", "--json")[1])["verified"]
    assert (verified["holds"], verified["same_file"], verified["same_data"]) == (False, False, False)
    assert verified["checked"][0] == {
        "what": "accuracy, split test", "said": accuracy - 0.25, "measured": accuracy, "holds": False
    }  # fmt: skip
    text = run("evaluate", other, tiny_run.clips, "--verify")[1]
    assert f"DIFFERS: accuracy, split test: the file says {accuracy - 0.25}" in text
    assert "the file is not the one that was measured" in text
    text = run("evaluate", tiny_run.model, tiny_run.clips, "--split", "all", "--verify")[1]
    assert "the file says nothing of these clips" in text
    assert run("evaluate", other, tiny_run.clips, "--verify", "--against", tiny_run.model)[0] == 2


def test_inspect_benchmark_and_data_print_one_object(run, tiny_run, tmp_path):
    found = one_object(run("inspect", tiny_run.model, "--json")[1])
    assert found["bytes"]["total"] == tiny_run.model.stat().st_size
    status, out, err = run("benchmark", tiny_run.model, "--seconds", "0.1", "--json", "--out", "b.json")
    assert (status, err) == (0, "")
    found = one_object(out)
    assert {"frame_ms", "clip_ms", "fps", "peak_rss_bytes", "bytes", "threads", "provider"} <= set(found)
    assert found["frame_ms"]["p50"] <= found["frame_ms"]["p95"]
    written = json.loads((tmp_path / "b.json").read_text())
    assert written.pop("reference_ms") > 0  # for `vidlet fit --device`
    assert written == found
    found = one_object(run("data", tiny_run.clips, "--json")[1])
    assert found["clips"] == 48
    assert sum(found["splits"].values()) == 48


def test_extract_does_once_what_train_reads(run, motion_clips):
    words = ("extract", motion_clips, "--recipe", "tiny-grid-gru", "--out", "store", "--json")
    status, out, err = run(*words)
    found = one_object(out)
    assert status == 0
    assert {"out", "files", "metrics"} <= set(found)
    assert found["metrics"]["clips"] == found["metrics"]["computed"] == 48
    assert err.count("\n") == 2  # what is to be done, what was
    assert found["files"].keys() == {path.name for path in Path(found["out"]).iterdir()}


def test_export_writes_a_runs_file_again(run, refused, tiny_run, tmp_path):
    status, out, err = run("export", tiny_run.folder, "--format", "onnx", "--out", "out/copy.onnx", "--json")
    assert status == 0
    assert one_object(out)["files"] == {"copy.onnx": tiny_run.model.stat().st_size}
    assert (tmp_path / "out" / "copy.onnx").read_bytes() == tiny_run.model.read_bytes()
    kilobytes = round(tiny_run.model.stat().st_size, -3) // 1000
    assert err.splitlines() == [f"model   {tiny_run.model}", f"out/copy.onnx: copy.onnx {kilobytes} kB"]
    refused("export", tmp_path, "--out", "x.onnx", said=(tmp_path, "not a run folder"))
    refused("export", "none.tflite", "--out", "x.onnx", said="none.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"TFL3" * 100)
    refused("export", tmp_path / "bad.tflite", "--out", "x.onnx", said="bad.tflite")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
def test_export_makes_an_integer_extractor_of_a_tflite_file(run, tmp_path):
    source = shared("weights", "coral_tflite", "mobilenet_v2_1.0_224_quant.tflite")
    status, out, _ = run("export", source, "--format", "onnx", "--out", "extractor.onnx", "--json")
    found = one_object(out)
    assert status == 0
    assert found["files"]["extractor.onnx"] == (tmp_path / "extractor.onnx").stat().st_size
    assert found["metrics"]["int8_cosine"] >= 0.99


def test_the_program_ends_at_once_with_its_status_all_said_and_done(tmp_path):
    code = (
        "import atexit, sys\n"
        "from vidlet import cli\n"
        "class Held:\n"
        "    def __del__(self):\n"
        "        print('taken apart')\n"
        "held = Held()\n"
        "cli.main = lambda: (print('said'), atexit.register(print, 'done'), 2)[2]\n"
        "sys.exit(cli.program())\n"
    )
    done = python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()) == (2, ["said", "done"])
