"""The recipe of a paper for millions of records, on a few: it learns what the mean over time cannot see."""

import pytest

from vidlet.datasets import render_residual
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
