"""The recipe auto on real files: clips and records, its decision stored, made again by the run's recipe, resumed."""

import json

import numpy as np
import pytest

from vidlet.errors import DataError
from vidlet.jobs.train import train
from vidlet.recipe import load_recipe
from vidlet.runtime import load

SMALL = {
    "extractor.width": 0.35,
    "extractor.input_size": [64, 64],
    "extractor.weights": "none",
    "extractor.cut": "block4/2+head/0",
    "training.epochs": 2,
}


@pytest.fixture(scope="module")
def chosen(motion_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    return folder / "run", train(motion_clips, "auto", folder / "run", SMALL)


@pytest.mark.slow
def test_a_run_of_auto_holds_the_recipe_that_it_came_to_and_what_was_tried(chosen, motion_clips, tmp_path):
    run, result = chosen
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["selection"]["chosen"]
    assert {c["name"] for c in metrics["selection"]["candidates"]} >= set(metrics["selection"]["chosen"])
    recipe = load_recipe(run / "recipe.toml")
    assert recipe.head.name == "blend"
    assert len(recipe.head.options["members"]) == len(metrics["selection"]["chosen"])
    again = train(motion_clips, run / "recipe.toml", tmp_path / "again")
    assert again["metrics"]["accuracy"] == result["metrics"]["accuracy"]
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    scores = [load(folder / "model.onnx")(frames, None)[0] for folder in (run, tmp_path / "again")]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


@pytest.mark.slow
def test_every_training_says_how_it_stands_to_plain_classifiers(chosen):
    metrics = chosen[1]["metrics"]
    assert list(metrics["baselines"]["accuracy"]) == ["chance", "one frame", "mean", "mean and deviation"]
    assert set(metrics["baselines"]["difference"]) == {"model.onnx", "model.int8.onnx"}
    best = metrics["baselines"]["accuracy"][metrics["baselines"]["best"]]
    assert metrics["baselines"]["difference"]["model.onnx"]["mean"] == pytest.approx(metrics["accuracy"] - best)


def test_a_training_of_frames_is_held_against_the_colors_of_a_grid(tiny_run):
    found = tiny_run.result["metrics"]["baselines"]
    assert set(found["accuracy"]) == {"chance", "one frame", "mean", "mean and deviation"}


def test_a_group_for_each_class_is_refused_in_a_line(tmp_path):
    """Whole groups are held out, so a class that is one group would be scored and never learned."""
    labels = [f"c{i % 4}" for i in range(24)]
    np.savez(tmp_path / "features.npz", rgb=np.random.default_rng(0).integers(0, 255, (24, 3, 8), np.uint8))
    rows = [f"r{i},{label},{label}" for i, label in enumerate(labels)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group", *rows]))
    with pytest.raises(DataError, match="has no clip in train; where a group holds clips of one class alone"):
        train(tmp_path, out=tmp_path / "run")
