"""Cuts of one network in one pass, and a slower rate out of a faster one: the stores are those of each alone."""

import numpy as np
import pytest
import torch

from vidlet.artifact import extractor_graph, taps_graph
from vidlet.datasets import read_table, render_motion
from vidlet.features import extract, extract_taps, thinned
from vidlet.models import build_extractor
from vidlet.models.extractor import Taps
from vidlet.recipe import Extractor, Sampling

CUTS = ("block2", "block5")


@pytest.fixture(scope="module")
def cuts():
    found = {}
    for cut in CUTS:
        found[cut] = build_extractor(Extractor(width=0.35, input_size=(64, 64), cut=cut, grid=4, weights="none"))
    weights = found["block5"].state_dict()
    found["block2"].load_state_dict(
        {name: weights[name] for name in found["block2"].state_dict() if name != "bins"}, strict=False
    )
    return found


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_motion(folder, clips=16, seed=0)
    return read_table(folder)


def test_each_output_of_the_taps_equals_its_extractor(cuts):
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        together = Taps(cuts)(frames)
        for found, extractor in zip(together, cuts.values(), strict=True):
            torch.testing.assert_close(found, extractor(frames))


def test_one_pass_fills_the_store_of_each_cut(cuts, table, tmp_path):
    graphs = {cut: extractor_graph(e).SerializeToString(deterministic=True) for cut, e in cuts.items()}
    taps = taps_graph(Taps(cuts)).SerializeToString(deterministic=True)
    sampling = Sampling("rate", hz=16)
    found = extract_taps(table, taps, graphs, sampling, (64, 64), tmp_path)
    for cut in CUTS:
        alone = extract(table, graphs[cut], sampling, (64, 64), tmp_path)
        assert alone.computed == 0  # nothing was left to do
        fresh = extract(table, graphs[cut], sampling, (64, 64), tmp_path / "fresh")
        for key in fresh.keys:
            np.testing.assert_allclose(
                found[cut].store.read(key).features, fresh.store.read(key).features, rtol=2e-3, atol=1e-3
            )


def test_every_second_frame_at_16_hz_is_a_frame_at_8_hz(cuts, table, tmp_path):
    graph = extractor_graph(cuts["block2"]).SerializeToString(deterministic=True)
    fast = extract(table, graph, Sampling("rate", hz=16), (64, 64), tmp_path)
    slow = thinned(fast, Sampling("rate", hz=16), 2, tmp_path)
    again = extract(table, graph, Sampling("rate", hz=8), (64, 64), tmp_path)
    assert again.computed == 0
    direct = extract(table, graph, Sampling("rate", hz=8), (64, 64), tmp_path / "direct")
    for key in direct.keys:
        a, b = slow.store.read(key), direct.store.read(key)
        np.testing.assert_allclose(a.times_s, b.times_s, atol=1e-6)
        np.testing.assert_array_equal(a.features, b.features)
