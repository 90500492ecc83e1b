"""Every size that the YouTube-8M paper prints follows from the shapes, and our network has these shapes."""

import pytest
import torch

from vidlet.models import build_head
from vidlet.recipe import Head
from vidlet.reproductions import youtube8m
from vidlet.reproductions.youtube8m import ENSEMBLES, MIB, MODELS, ensemble_bytes, parameter_count, stored_bytes, tables

TOO_HIGH = {
    "GHLRP": 0.75,
    "FJSOQR": 0.75,
    "GF": 0.75,
    "GFAB": 0.56,
}  # printed too high by so much at most, or B is guessed


@pytest.mark.parametrize("letter", MODELS)
def test_the_sizes_of_table_1_follow_from_the_shapes(letter):
    model = MODELS[letter]
    assert stored_bytes(model.clusters, model.hidden) / MIB == pytest.approx(model.float32_mib, abs=0.0051)
    assert stored_bytes(model.clusters, model.hidden, 2) / MIB == pytest.approx(model.half_mib, abs=0.0051)


@pytest.mark.parametrize("members", ENSEMBLES)
def test_the_sizes_of_table_2_are_sums_of_their_members(members):
    tolerance = TOO_HIGH.get(members, 0.051)
    assert ensemble_bytes(members) / MIB == pytest.approx(ENSEMBLES[members].mib, abs=tolerance)


def test_14224_subsets_fit_into_a_gibibyte():
    assert youtube8m.fitting_subsets() == 14_224


def test_four_members_in_8_bits_take_half_of_float16():
    assert 487 < ensemble_bytes("YHLS", 1) / MIB < 557


@pytest.mark.parametrize("letter", ["Y", "P"])
def test_our_network_has_as_many_numbers_as_the_papers(letter):
    model = MODELS[letter]
    options = {"clusters": model.clusters, "hidden": model.hidden, "experts": 5, "audio": 128}
    with torch.device("meta"):
        head = build_head(Head("netvlad", options), (1152,), 3862)
    state = [value for name, value in head.state_dict().items() if not name.endswith("num_batches_tracked")]
    assert sum(value.numel() for value in state) == parameter_count(model.clusters, model.hidden)
    assert len(state) == len(youtube8m.weight_shapes(model.clusters, model.hidden)) == 32


def test_the_tables_have_the_contracts_form_and_numbers():
    found = tables()["tables"]
    assert [table["title"][:7] for table in found[:2]] == ["Table 1", "Table 2"]
    rows = [row for table in found for row in table["rows"]]
    assert all(set(row) == {"name", "unit", "printed", "recomputed", "measured"} for row in rows)
    sizes = [row for row in rows if row["unit"] == "MiB" and row["printed"]]
    assert len(sizes) == 2 * len(MODELS) + len(ENSEMBLES)
    assert all(abs(row["printed"] - row["recomputed"]) < 0.75 for row in sizes)
    assert sum(row["unit"] == "GAP@20" for row in rows) == 2 * 18 + 12 + 5 * 2
