"""What stands outside the package: registered, or brought by an installed package; trained, compressed, evaluated."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import outside
import vidlet
from cli_case import one_object
from vidlet import plugins
from vidlet.compression import CLIP_STEPS, find_chain
from vidlet.errors import DependencyError, RecipeError
from vidlet.models import HEADS, build_head
from vidlet.recipe import Head

RECIPE = """
[sampling]
rule = "uniform"
frames = 4

[extractor]
name = "tiles"
input_size = [64, 64]
grid = 2
weights = "none"

[head]
name = "average"
options = { bias = false }

[training]
epochs = 2
lr = 1e-2
"""
ENTRIES = """
[vidlet.plugins]
head:average = outside:Average
extractor:tiles = outside:tiles
step:rounded = outside:rounded
training-step:negated = outside:negated
data:mine = outside:read_mine
head:broken = no_such_module:Head
"""


@pytest.fixture
def clean(monkeypatch):
    """Nothing is registered, before and afterwards."""
    monkeypatch.setattr(plugins, "_ADDED", {kind: {} for kind in plugins.KINDS})
    plugins._installed.cache_clear()
    yield
    plugins._installed.cache_clear()
    for name in ("rounded", "negated"):
        CLIP_STEPS.pop(name, None)


@pytest.fixture
def registered(clean):
    """Everything of outside.py, by calls."""
    vidlet.register_head("average", outside.Average)
    vidlet.register_extractor("tiles", outside.tiles)
    vidlet.register_step("rounded", outside.rounded)
    vidlet.register_step("negated", outside.negated, trains=True)
    vidlet.register_data("mine", outside.read_mine)


@pytest.fixture
def installed(clean, tmp_path, monkeypatch):
    """Everything of outside.py, by the entry points of an installed package."""
    folder = tmp_path / "site" / "outside-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(folder.parent))


def head_weights(path: Path) -> np.ndarray:
    graph = onnx.load(str(path)).graph
    return next(numpy_helper.to_array(t) for t in graph.initializer if "classify" in t.name)


@pytest.mark.parametrize("way", ["registered", "installed"])
def test_what_is_outside_is_trained_compressed_and_evaluated_as_what_is_inside(way, request, run, motion_clips):
    request.getfixturevalue(way)
    Path("recipe.toml").write_text(RECIPE)
    Path("clips.mine").write_text(str(motion_clips))
    status, _, err = run("train", "clips.mine", "--recipe", "recipe.toml", "--out", "run", "--json")
    assert status == 0, err
    status, out, err = run("compress", "run", "clips.mine", "negated+rounded:8", "--json")
    assert status == 0, err
    made = Path("run/model.negated-rounded8.onnx")
    assert made.name in one_object(out)["files"]
    np.testing.assert_allclose(head_weights(made), -np.round(head_weights(Path("run/model.onnx")) * 8) / 8, atol=1e-6)
    status, out, err = run("evaluate", made, "clips.mine", "--json")
    assert status == 0, err
    scored = one_object(out)
    recipe = vidlet.load(made).metadata["recipe"]
    assert (recipe["head"]["name"], recipe["extractor"]["name"]) == ("average", "tiles")
    assert scored["clips"] > 0 and scored["accuracy"] == json.loads(Path("run/metrics.json").read_text())["files"][
        made.name]["accuracy"]  # fmt: skip


def test_names_from_outside_are_known_to_errors_and_to_help(installed, run, refused):
    for words in (["--help"], ["train", "--help"]):
        status, out, _ = run(*words)
        assert status == 0
        assert "added from outside:\n  head: average, broken\n  extractor: tiles\n" in out
    with pytest.raises(RecipeError, match=r"unknown head 'averag' \(did you mean average\?\); known: .*, average"):
        build_head(Head("averag"), (4,), 2)
    with pytest.raises(RecipeError, match=r"head average: unknown option 'bais' \(did you mean bias\?\)"):
        build_head(Head("average", {"bais": 1}), (4,), 2)
    with pytest.raises(RecipeError, match=r"unknown step 'roundet' \(did you mean rounded\?\)"):
        find_chain("roundet")
    with pytest.raises(RecipeError, match="negated changes the network and must stand before int8"):
        find_chain("int8+negated")
    Path("recipe.toml").write_text(RECIPE.replace("tiles", "tile"))
    refused("extract", "x", "--recipe", "recipe.toml", said="no such folder")


def test_a_package_that_cannot_be_imported_is_one_clear_line(installed):
    with pytest.raises(DependencyError, match=r"head broken: no_such_module:Head cannot be imported \(No module"):
        build_head(Head("broken"), (4,), 2)


def test_what_is_built_in_goes_first(clean):
    vidlet.register_head("mean", outside.Average)
    assert type(build_head(Head("mean"), (4,), 2)) is HEADS["mean"]


def test_a_reader_that_does_not_know_a_path_leaves_it_to_the_others(registered, motion_clips):
    from vidlet.datasets import read_table

    assert len(read_table(motion_clips)) == 48
