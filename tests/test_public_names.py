"""The names of ``import vidlet``: each resolves, and each says what it takes and gives."""

import ast
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vidlet

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
