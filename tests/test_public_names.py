"""The names of ``import vidlet``: each resolves, and each says what it takes and gives."""

import ast
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vidlet
from vidlet import called
from vidlet.cli import COMMANDS, parser_of

CLASSES = ("Model", "Prediction", "VidletError")


@pytest.mark.parametrize("name", [name for name in vidlet.__all__ if name not in ("__version__", *CLASSES)])
def test_every_public_name_is_a_function_with_a_docstring(name):
    function = getattr(vidlet, name)
    assert inspect.isfunction(function)
    assert len(inspect.getdoc(function).splitlines()) > 2


def test_the_classes_are_those_that_functions_give_and_raise(tiny_run, tmp_path):
    model = vidlet.load(tiny_run.model)
    assert isinstance(model, vidlet.Model)
    assert isinstance(model.classify(next(tiny_run.clips.rglob("*.mp4"))), vidlet.Prediction)
    with pytest.raises(vidlet.VidletError, match=r"no-such\.onnx"):
        vidlet.load(tmp_path / "no-such.onnx")


# Options of commands that have no keyword, and what stands in their place.
SAID_OTHERWISE = {
    "extractor": "overrides of the section extractor",
    "trust": "overrides of the section extractor",
    "flow": "a folder of flow is what `extract --flow` leaves",
    "format": "extract: vidlet.tasks.record_files",
    "fps": "vidlet.datasets.AtRate",
    "json": "what is returned",
    "help": "help()",
}
REPORTED = {"evaluate", "compare", "fuse", "segment", "benchmark", "inspect"}  # --out writes what the function returns


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"completion", "models"}))
def test_every_word_of_a_command_is_a_keyword_of_its_function(command):
    function = getattr(vidlet, command)
    signature = inspect.signature(function)
    for action in parser_of(command)._actions:
        spelled = [text for text in action.option_strings if text.startswith("--")] or [action.dest]
        for word in (text.lstrip("-").replace("-", "_") for text in spelled):
            if word in SAID_OTHERWISE or (word in ("out", "save") and command in REPORTED):
                continue
            assert called._parameter(command, word, signature) in signature.parameters


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("train", {"data": "clips", "epoch": 3}, r"train: no argument 'epoch' \(did you mean epochs\?\)"),
        ("train", {"data": "clips", "epochs": "3"}, "train: epochs must be a whole number or None, got str '3'"),
        ("train", {"data": "clips", "fold": (0, 9)}, "train: fold must be a text or None, got tuple"),
        ("train", {"data": "clips", "callback": 3}, "train: callback must be a Callback or None"),
        ("train", {}, "train: missing a required argument: 'data'"),
        ("load", {"path": None}, "load: path must be a text or a path, got NoneType None"),
        ("predict", {"model": "m.onnx", "source": ["a.mp4"]}, "predict: source must be .*, got list"),
        (
            "compress",
            {"run": "r", "data": "d", "steps": None},
            "compress: steps must be a text or a list, got None",
        ),
        ("fuse", {"streams": 3}, "fuse: streams must be a list, got int 3"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it_before_any_work(name, given, told):
    with pytest.raises(vidlet.VidletError, match=told) as caught:
        getattr(vidlet, name)(**given)
    assert isinstance(caught.value, TypeError)


def test_one_name_where_several_are_taken_is_a_list_of_one(tiny_run, tmp_path):
    assert vidlet.compare(str(tiny_run.folder))["rows"] == vidlet.compare([tiny_run.folder])["rows"]
    with pytest.raises(vidlet.VidletError, match=r"no model fits into 1000 bytes"):
        vidlet.ensemble(tiny_run.clips, tiny_run.folder, max_size="1KB", out=tmp_path / "e")


def test_a_loaded_model_is_taken_for_its_file(tiny_run):
    model = vidlet.load(tiny_run.model)
    assert vidlet.inspect(model) == vidlet.inspect(tiny_run.model)
    assert vidlet.evaluate(model, tiny_run.clips)["clips"] == vidlet.evaluate(tiny_run.model, tiny_run.clips)["clips"]


def test_clips_come_as_any_collection_and_what_is_no_clip_is_said(tiny_run):
    model, clip = vidlet.load(tiny_run.model), str(next(tiny_run.clips.rglob("*.mp4")))
    alone = model.classify(clip)
    for clips in ((clip, clip), np.array([clip, clip]), iter([clip, clip]), dict.fromkeys([clip, Path(clip)]).keys()):
        assert model.classify(clips) == [alone, alone]
    for wrong in (None, 3):
        with pytest.raises(vidlet.VidletError, match="a clip is a file, a folder of frames, a record or an array, got"):
            model.classify(wrong)


@pytest.mark.parametrize("threads", [-1, 10**6])
def test_a_number_of_threads_that_is_none_is_refused(tiny_run, threads):
    with pytest.raises(vidlet.VidletError, match=f"threads must be from 0 to 1024, got {threads}"):
        vidlet.load(tiny_run.model, threads=threads)


def test_checkers_see_each_name_where_it_is_found_at_run_time():
    tree = ast.parse(Path(vidlet.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: (f"vidlet.{node.module}", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == vidlet._NAMES
    assert set(seen) == set(vidlet.__all__) - {"__version__"}


SNIPPET = """
import vidlet

model = vidlet.load("model.onnx")
reveal_type(model)
reveal_type(model.classify("clip.mp4").label)
reveal_type(model.classify(["a.mp4", "b.mp4"]))
reveal_type(vidlet.train("clips/", epochs=3))
reveal_type(vidlet.data("clips/").classes)
vidlet.train("clips/", epoch=3)
try:
    vidlet.evaluate(3, "clips/")
except vidlet.VidletError as error:
    reveal_type(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_checker_knows_the_types_and_finds_mistakes(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPET)
    root = Path(vidlet.__file__).parents[2]
    words = ["--config-file", "pyproject.toml", "--no-error-summary", str(tmp_path / "snippet.py")]
    done = subprocess.run([sys.executable, "-m", "mypy", *words], cwd=root, capture_output=True, text=True, check=False)
    said = [line.split(": ", 1)[1].replace("", "") for line in done.stdout.splitlines()]
    assert [line for line in said if line.startswith("note: Revealed")] == [
        'note: Revealed type is "vidlet.runtime.model.Model"',
        'note: Revealed type is "str"',
        'note: Revealed type is "list[vidlet.runtime.model.Prediction]"',
        'note: Revealed type is "dict[str, Any]"',
        'note: Revealed type is "dict[str, dict[str, int]]"',
        'note: Revealed type is "vidlet.errors.VidletError"',
    ]
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 2
    assert 'Unexpected keyword argument "epoch" for "train"' in errors[0]
    assert 'Argument 1 to "evaluate" has incompatible type "int"' in errors[1]


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = vidlet.trian


def test_no_room_has_the_name_of_a_function():
    rooms = {module.name for module in pkgutil.iter_modules(vidlet.__path__)}
    assert not rooms & (set(vidlet.__all__) - {"__version__"})


def test_importing_vidlet_imports_nothing_heavy():
    code = "import sys, vidlet; print([m for m in ('numpy', 'onnxruntime', 'av', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
