"""The experiment of studies/frame_features.py in small, on files: what NetVLAD, averaging and storage do to GAP@20.

The bounds are those of the full form, but for those that a hundred and fifty steps on few records cannot keep.
"""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench():
    path = ROOT / "benchmarks" / "studies" / "frame_features.py"
    spec = importlib.util.spec_from_file_location("frame_features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gates")
    members, chains = ["mean-H256", "K16-H32"], ("half", "int8", "head4")
    return bench().one_seed(folder, 0, members, 160, [640, 160, 320], 150_000, classes=10, chains=chains)


def test_netvlad_sees_what_the_mean_cannot(found):
    members = found["members"]
    assert members["K16-H32"]["float32"]["gap20"] - members["mean-H256"]["float32"]["gap20"] >= 0.1


def test_averaged_checkpoints_are_not_worse_than_the_best_single_one(found):
    own = found["members"]["K16-H32"]
    assert own["float32"]["gap20"] >= own["single"]["gap20"]


def test_half_costs_nothing_and_8_bits_little_and_each_is_smaller(found):
    for own in found["members"].values():
        assert abs(own["half"]["gap20"] - own["float32"]["gap20"]) <= 1e-3
        assert abs(own["int8"]["gap20"] - own["float32"]["gap20"]) <= 1e-2
        assert own["float32"]["bytes"] > own["half"]["bytes"] > own["int8"]["bytes"] > own["head4"]["bytes"]


def test_the_ensembles_fit_and_are_not_worse_than_their_members_on_validation(found):
    for kind in ("half", "int8", "any"):
        chosen = found[f"ensemble {kind}"]
        assert chosen["bytes"] <= found["limit"]
        assert chosen["gap20"] >= max(chosen["members_gap20"].values()) - 0.02


def test_8_bits_make_the_better_ensemble_of_as_many_bytes(found):
    assert found["ensemble int8"]["gap20"] >= found["ensemble half"]["gap20"]
