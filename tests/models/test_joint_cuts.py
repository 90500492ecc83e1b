"""Several cuts of one network as one extractor: their features side by side, in the file and in integers too."""

import numpy as np
import pytest
import torch

from vidlet.artifact import ArtifactNetwork, artifact_graph, check_parity, torch_reference
from vidlet.compression import CLIP_STEPS
from vidlet.errors import RecipeError
from vidlet.models import build_extractor, build_head
from vidlet.models.extractors import JointCuts, split_cuts
from vidlet.recipe import Extractor, Head

PLAN = Extractor(width=0.35, input_size=(64, 64), cut="block2/4+block4/2+head/0", grid=0, weights="none")


def joint() -> JointCuts:
    torch.manual_seed(0)
    built = build_extractor(PLAN)
    assert isinstance(built, JointCuts)
    return built


def frames(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)


@torch.no_grad()
def test_the_features_are_those_of_each_cut_side_by_side():
    extractor = joint()
    found = extractor(torch.from_numpy(frames()))
    assert found.shape[1:] == extractor.feature_shape
    assert list(extractor.places()) == ["block2", "block4", "head"]
    maps = extractor.normalize(torch.from_numpy(frames()))
    for part in extractor.backbone.parts:
        maps = extractor.backbone.get_submodule(part)(maps)
        if part in extractor.places():
            begin, shape = extractor.places()[part]
            grid = extractor.grids[part]
            own = torch.nn.functional.adaptive_avg_pool2d(maps, grid or 1).reshape(len(maps), *shape)
            seen = found[:, begin : begin + own[0].numel()].reshape(own.shape)
            torch.testing.assert_close(seen, own, atol=1e-5, rtol=1e-4)


def test_a_file_of_heads_on_two_cuts_keeps_the_contract_in_float_and_in_integers():
    extractor = joint()
    places = extractor.places()
    members = [
        {"head": "grid-gru", "options": {"channels": 4, "project": 8, "hidden": 8},
         "begin": places["block2"][0], "shape": list(places["block2"][1])},
        {"head": "probe", "options": {"statistics": "mean+deviation"}, "begin": places["head"][0], "shape": [1280]},
    ]  # fmt: skip
    head = build_head(Head("blend", {"members": members}), extractor.feature_shape, 3)
    clip = torch.from_numpy(frames())
    with torch.no_grad():
        features = extractor(clip)
    head.calibrate(features.mean(0), features.std(0))
    network = ArtifactNetwork(extractor, head).eval()
    graph = artifact_graph(network, (64, 64))
    check_parity(graph.SerializeToString(), frames(), torch_reference(network))
    whole = CLIP_STEPS["int8"].apply(graph, None, [frames()])
    check_parity(whole.SerializeToString(), frames())


@pytest.mark.parametrize("cut", ["block2+head/0", "block2/4+block2/2", "block2/x+head/0"])
def test_a_cut_without_a_grid_or_twice_is_refused(cut):
    with pytest.raises(RecipeError, match="CUT/GRID each once"):
        split_cuts(cut)
