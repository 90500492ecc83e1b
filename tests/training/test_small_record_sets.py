"""The recipe of a paper for millions of records, on a few: it learns what the mean over time cannot see."""

import numpy as np
import pytest

from vidlet.datasets import Record, render_residual, write_records
from vidlet.datasets.frame_record import quantize
from vidlet.jobs.train import train

pytestmark = pytest.mark.slow  # two minutes on an idle core


def test_gated_netvlad_is_not_behind_the_mean_on_few_records(tmp_path):
    render_residual(tmp_path / "set", 700, 150, 300, classes=10)
    found = {}
    for recipe in ("gated-netvlad", "records-mean"):
        result = train(tmp_path / "set", recipe, tmp_path / recipe, {"compress": []}, device="cpu")
        found[recipe] = result["metrics"]["gap20"]
        assert result["metrics"]["warnings"] == []
    assert found["gated-netvlad"] >= found["records-mean"] + 0.1


def draw_classes(folder, counts, classes=15, seed=0):
    """Shards of records of one label each, which the mean over their frames tells."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    centers = 0.1 * rng.standard_normal((classes, 80))

    def record(name):
        label = int(rng.integers(classes))
        frames = centers[label] + 0.5 * rng.standard_normal((int(rng.integers(8, 17)), 80))
        codes = quantize(frames)
        return Record(name, (label,), {"rgb": codes[:, :64], "audio": codes[:, 64:]})

    for split, count in counts.items():
        write_records(folder / f"{split}0000.tfrecord", (record(f"{split}{i}") for i in range(count)))
    return folder


@pytest.mark.parametrize("recipe", ["auto", "gated-netvlad"])
def test_two_thousand_records_of_15_classes_are_no_trap(tmp_path, recipe):
    """Forty updates left batch norm's statistics at their start: train 1.0, validation at chance, and no word of it."""
    data = draw_classes(tmp_path / "set", {"train": 1450, "validate": 260, "test": 300})
    narrower = {} if recipe == "auto" else {"head.options.hidden": 256}
    found = train(data, recipe, tmp_path / "run", {"compress": [], **narrower}, device="cpu")["metrics"]
    best = max(value for name, value in found["baselines"]["accuracy"].items())
    assert best > 0.8
    assert found["accuracy"] > best - 0.06
    assert found["warnings"] == []


def test_a_training_that_cannot_have_learned_says_so(tmp_path):
    data = draw_classes(tmp_path / "set", {"train": 300, "validate": 100, "test": 100})
    slow = {"compress": [], "head.options.hidden": 16, "training.lr": 1e-9, "training.epochs": 4, "training.batch": 20}
    warnings = train(data, "gated-netvlad", tmp_path / "run", slow, device="cpu")["metrics"]["warnings"]
    assert any("the loss did not fall" in line for line in warnings)
