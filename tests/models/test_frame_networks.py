"""The rank study's networks: their layers' counts by hand, and one contract with every head."""

import warnings

import pytest
import torch

from vidlet.errors import RecipeError
from vidlet.models import build_head
from vidlet.models.frame_networks import FRAME_NETWORKS
from vidlet.recipe import Head
from vidlet.reproductions.tt3dcnn import STUDY
from vidlet.tensor_train import TTConv2d

SHAPE = (1, 32, 32)


def convolutions(head) -> int:
    return sum(p.numel() for name, p in head.body.named_parameters() if p.ndim != 1)


def test_dense_weights_are_the_products_of_their_sizes():
    cnn1, cnn2 = (build_head(Head("frame-network", {"network": name}), SHAPE, 10) for name in ("cnn-1", "cnn-2"))
    assert convolutions(cnn1) == 9 * (64 + 64 * 64 + 64 * 128 + 3 * 128 * 128)
    assert convolutions(cnn2) == 9 * (64 + 64 * 64 + 3 * 256 * 256) + 64 * 256
    assert (cnn1.hidden.in_features, cnn2.hidden.in_features) == (4 * 128, 4 * 256)  # 2 x 2 places are left


def test_a_train_of_rank_r_has_the_counted_cores():
    r = 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is clipped
        head = build_head(Head("frame-network", {"network": "cnn-1", "tt": "convolutions", "rank": r}), SHAPE, 10)
    of = {(64, 64): (16, 16, 16), (64, 128): (16, 32, 16), (128, 128): (32, 32, 16)}
    counts = {key: 9 * r + (a + b) * r * r + c * r for key, (a, b, c) in of.items()}
    expected = 9 * 64 + counts[64, 64] + counts[64, 128] + 3 * counts[128, 128]
    assert convolutions(head) == expected


def test_the_tables_have_the_modes_of_which_the_paper_gives_the_ranks():
    for name, (in_modes, out_modes) in STUDY.items():
        network, sizes = name.lower().split(", ")
        head = build_head(Head("frame-network", {"network": network, "tt": "convolutions"}), SHAPE, 10)
        trains = [m for m in head.body if isinstance(m, TTConv2d)]
        found = [m for m in trains if f"{m.in_channels}-{m.out_channels}" == sizes]
        assert found and all((m.in_modes, m.out_modes) == (in_modes, out_modes) for m in found)
        assert all(max(m.ranks) == 16 for m in found)


def test_a_clip_is_the_mean_of_its_frames():
    head = build_head(Head("frame-network", {}), SHAPE, 4).eval()
    clip = torch.randn(2, 3, *SHAPE)
    with torch.no_grad():
        whole, _ = head(clip, head.zero_state(2, clip))
        single = [head(clip[:, t : t + 1], head.zero_state(2, clip))[0] for t in range(3)]
    torch.testing.assert_close(whole, torch.stack(single).mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "shape", "text"),
    [
        ({"network": "cnn-3"}, SHAPE, "did you mean cnn-"),
        ({"tt": "linear"}, SHAPE, "none or convolutions"),
        ({}, (96,), "take pixels"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(options, shape, text):
    with pytest.raises(RecipeError, match=text):
        build_head(Head("frame-network", options), shape, 3)


def test_both_networks_are_listed():
    assert set(FRAME_NETWORKS) == {"cnn-1", "cnn-2"}
