"""The first hour with the command line: what is mistyped is answered at once, in words that help."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vidlet.cli import COMMANDS, parser_of
from vidlet.cli.before_work import READ, WRITTEN
from vidlet.errors import RecipeError
from vidlet.recipe import full_keys, load_recipe
from vidlet.runs import RunFolder, choose

ROOT = Path(__file__).parents[2]
WITHOUT_HEAVY = """
import sys
from vidlet.cli import main
status = main(sys.argv[1:])
print(sorted({"torch", "onnx", "onnxruntime", "av", "optuna"} & set(sys.modules)))
sys.exit(status)
"""


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train clps", "DataError: clps: no such folder or table (did you mean clips?)"),
        ("fit clps", "DataError: clps: no such folder or table (did you mean clips?)"),
        ("compress runs/a clips int8", "TrainingError: runs/a: no such run folder"),
        ("train clips --init nowhere", "TrainingError: --init nowhere: no such run folder or model file"),
        (
            "train clips --recipe mobilnetv2-gru",
            "RecipeError: unknown recipe 'mobilnetv2-gru' (did you mean mobilenetv2",
        ),
        (
            "predict runs/aut clip.mp4",
            "ModelError: runs/aut: no such file or run, and no ready model (did you mean auto?)",
        ),
        ("evaluate runs/auto/model.int.onnx clips", "ModelError: runs/auto/model.int.onnx: no such file or run"),
        (
            "ensemble clips runs/aut --max-size 1MB",
            "ModelError: runs/aut: no such file or run, and no ready model (did",
        ),
        ("benchmark runs/aut", "ModelError: runs/aut: no such file or run, and no ready model (did you mean auto?)"),
        (
            "export runs/aut --out x.onnx",
            "ExportError: runs/aut: no such file or run, and no ready model (did you mean auto?)",
        ),
        ("fit clips --device bord.json", "RecipeError: --device bord.json: no such file; `vidlet benchmark MODEL"),
        ("train clips --out table.txt/a", "DataError: --out table.txt/a: cannot be written ("),
        ("benchmark runs/auto --out table.txt/a", "DataError: --out table.txt/a: cannot be written ("),
        ("benchmark runs/auto --save table.txt/a", "DataError: --save table.txt/a: cannot be written ("),
    ],
)
def test_what_is_mistyped_is_answered_before_anything_heavy_is_loaded(words, said, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "runs/auto").mkdir(parents=True)
    (tmp_path / "table.txt").touch()
    done = python("-c", WITHOUT_HEAVY, *words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "runs", "table.txt"]  # nothing is left behind


PLACES = re.compile(r"\b(FILE|FOLDER|RUN|MODEL|DATA|SOURCE|PATH)\b")
NEEDED = {  # of each command: its other arguments, of what is there
    "demo": "", "record": "a --out made", "data": "clips", "label": "m.onnx v.mp4 --out made", "train": "clips",
    "fit": "clips", "compress": "run clips int8", "ensemble": "clips m.onnx --max-size 1MB", "evaluate": "m.onnx clips",
    "compare": "run", "sweep": "clips", "fuse": "--stream m.onnx clips --stream m.onnx clips",
    "predict": "m.onnx v.mp4", "segment": "v.mp4", "export": "run --out made", "push": "run a/b", "benchmark": "m.onnx",
    "inspect": "m.onnx", "extract": "clips", "papers": "deepeye --data clips",
}  # fmt: skip
NOT_IN_ONE_WORD = {"stream": "--stream gone.onnx clips", "labels": "--labels gone"}


def _options_of_places() -> list[tuple[str, str]]:
    """(command, its words with one path that is missing), of every path that is read."""
    found = []
    for command in COMMANDS:
        for action in parser_of(command)._actions:
            names = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar or ""
            if not PLACES.search(names) or action.dest in WRITTEN:
                continue
            assert action.dest in {*READ, *NOT_IN_ONE_WORD}, f"{command} {action.dest}: is it looked at before work?"
            words = NEEDED[command].split()
            if action.option_strings:
                words += NOT_IN_ONE_WORD.get(action.dest, f"{action.option_strings[0]} gone").split()
            else:
                place = [a.dest for a in parser_of(command)._actions if not a.option_strings].index(action.dest)
                words[place] = "gone"
            found.append((command, " ".join(words)))
    return found


@pytest.mark.parametrize(("command", "words"), _options_of_places())
def test_every_path_that_is_missing_is_named_before_torch_is_loaded(command, words, tmp_path):
    (tmp_path / "clips/wave").mkdir(parents=True)
    (tmp_path / "clips/wave/a.mp4").touch()
    (tmp_path / "run").mkdir()
    for name in ("m.onnx", "v.mp4"):
        (tmp_path / name).touch()
    done = python("-c", WITHOUT_HEAVY, command, *words.split(), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "gone" in done.stderr
    assert "torch" not in done.stdout
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train clips --fold 5/5", "DataError: --fold 5/5: expected I/K"),
        ("extract clips --shard 9/3", "DataError: --shard 9/3: expected K/N"),
        ("ensemble clips m.onnx --max-size lots", "RecipeError: 'lots'"),
    ],
)
def test_values_that_no_data_could_make_right_are_refused_before_torch_is_loaded(words, said, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "m.onnx").touch()
    done = python("-c", WITHOUT_HEAVY, *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(said), done.stderr
    assert "torch" not in done.stdout


def test_messages_name_only_options_that_there_are():
    known = {"--version", "--nproc-per-node", "--silent", "--pack-destination"}  # then those of torchrun and npm
    for command in COMMANDS:
        known |= {name for action in parser_of(command)._actions for name in action.option_strings}
    wrong = []
    for path in sorted((ROOT / "src/vidlet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value)
                wrong += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in named if name not in known]
    assert wrong == []


def test_a_model_that_is_called_by_a_name_is_no_missing_file(tmp_path):
    env = {**os.environ, "VIDLET_MODELS": str(tmp_path / "ready")}
    (tmp_path / "ready/mine").mkdir(parents=True)
    (tmp_path / "ready/mine/model.onnx").touch()
    for word, said in [
        ("motin", "(did you mean motion?)"),
        ("mne", "(did you mean mine?)"),
        ("mine", "mine/model.onnx"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "vidlet", "inspect", word],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "ModelError: " in done.stderr
        assert said in done.stderr


@pytest.mark.parametrize("command", ["train", "fit", "sweep", "extract"])
@pytest.mark.parametrize("place", ["{}.png", "a/x{}.png"])
def test_images_where_clips_are_wanted_are_told_before_torch_is_loaded(command, place, tmp_path):
    for number in range(3):
        path = tmp_path / "data" / place.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    done = python("-c", WITHOUT_HEAVY, command, "data", "--out", "runs/a", cwd=tmp_path)
    assert done.returncode == 2
    assert "torch" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("DataError: data: images, and no clips: ")  # a slow machine speaks
    assert not (tmp_path / "runs").exists()


def test_the_package_is_a_command(tmp_path):
    done = python("-m", "vidlet", "--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("vidlet 0.")


def test_the_last_part_of_a_key_is_enough_where_one_key_alone_ends_so():
    plan = load_recipe("tiny-grid-gru", {"epochs": 3, "hz": 5, "training.lr": 0.1})
    assert (plan.training.epochs, plan.sampling.hz, plan.training.lr) == (3, 5.0, 0.1)
    assert full_keys({"name": "x", "head.options.units": 3}) == {"name": "x", "head.options.units": 3}
    with pytest.raises(RecipeError, match=r"--set options: which of extractor\.options, head\.options\?"):
        full_keys({"options": {}})
    with pytest.raises(RecipeError, match=r"--set epoch: a recipe has no such key \(did you mean epochs\?\)"):
        full_keys({"epoch": 3})


def test_what_needs_a_model_takes_a_run_folder_and_says_which_file(run, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("vidlet.runtime.benchmark", lambda *_, **__: {"frame_ms": {"p50": 1.0}})  # no file is quicker
    choice = choose(RunFolder.of(tiny_run.folder))
    status, out, err = run("inspect", tiny_run.folder)
    assert (status, err) == (0, f"model   {choice.line()}\n")
    assert out.startswith(f"{choice.path}: ")
    clip = next(tiny_run.clips.rglob("*.mp4"))
    status, out, err = run("predict", tiny_run.folder, clip)
    assert (status, err) == (0, f"model   {choice.line()}\n")
    (tmp_path / "empty").mkdir()
    status, out, err = run("evaluate", tmp_path / "empty", tiny_run.clips)
    assert (status, out) == (2, "")
    assert "empty: holds no model.onnx; not a finished run of `vidlet train`" in err


def test_long_commands_say_at_their_start_what_they_understood(run, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("vidlet.runtime.benchmark", lambda *_, **__: {"frame_ms": {"p50": 1.0}})
    splits = "test clips of 8 classes"
    model = tiny_run.folder / "model.onnx"
    status, _, err = run("evaluate", model, tiny_run.clips)
    assert status == 0
    assert re.match(rf"evaluate {model}: \d+ test clips of {tiny_run.clips}\n", err)
    status, _, err = run("extract", tiny_run.clips, "--recipe", "tiny-grid-gru", "--out", "features")
    assert status == 0
    assert re.match(rf"extract \S+ of {tiny_run.clips}: \d+ clips; writes below features\n", err)
    status, _, err = run("compress", tiny_run.folder, tiny_run.clips, "half", "--out", "smaller")
    assert status == 0
    assert re.match(rf"compress tiny-grid-gru of \S+ by half: .+ {splits}, on cpu; writes smaller\n", err)
    assert re.search(r"\nship    smaller/model\S*\.onnx.*\nnext    vidlet compare smaller\n$", err)


def test_images_are_told_that_clips_are_wanted(refused, tmp_path):
    for name in ("cat/1.jpg", "dog/1.jpg"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).touch()
    refused("data", tmp_path / "pets", said=("images, and no clips", "class/clip.mp4"))


def test_a_python_that_is_too_old_is_named_by_make_install(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 9); exec(sys.argv[1])' \"$2\"\n"
    )
    old.chmod(0o755)
    words = ["make", "--silent", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "MAKEFLAGS": ""}
    )
    assert done.returncode == 2
    assert f"vidlet needs Python 3.10 or newer; {old} is 3.9: make install PYTHON=python3.12" in done.stderr
    assert not (tmp_path / "venv").exists()
