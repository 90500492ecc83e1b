"""The names of ``import vidlet``: each resolves, and each says what it takes and gives."""

import inspect
import pkgutil
import subprocess
import sys

import pytest

import vidlet


@pytest.mark.parametrize("name", [name for name in vidlet.__all__ if name != "__version__"])
def test_every_public_name_is_a_function_with_a_docstring(name):
    function = getattr(vidlet, name)
    assert inspect.isfunction(function)
    assert len(inspect.getdoc(function).splitlines()) > 2


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
