"""One contract for all heads: streaming equals the clip, padding changes nothing, windows are independent."""

import numpy as np
import pytest
import torch

from vidlet.errors import RecipeError
from vidlet.models.heads import HEADS, build_head
from vidlet.recipe import Head

CLASSES, SHAPE = 5, (6, 2, 2)
OPTIONS = {
    "gru": {"hidden": 7, "units": 8},
    "lstm": {"hidden": 7, "units": 8},
    "single": {"units": 8},
    "mean": {},
    "netvlad": {"clusters": 4, "hidden": 8, "experts": 3, "audio": 4},
    "nextvlad": {"clusters": 4, "groups": 4, "hidden": 8, "audio": 4},
    "bag-of-frames": {"project": 12, "hidden": 8},
    "bag-of-words": {"clusters": 6, "hidden": 8, "audio": 4},
    "netfv": {"clusters": 3, "hidden": 8, "audio": 4},
    "pooled": {"top": 3, "hidden": 8},
    "gru-moe": {"hidden": 7, "layers": 2},
    "lstm-moe": {"hidden": 7, "layers": 2},
    "clip-network": {"network": "small", "frames": 5},
    "probe": {"statistics": "mean+deviation+change+highest+middle+segments+steps", "segments": 3},
    "blend": {"members": [{"head": "grid-gru"}, {"head": "probe", "options": {"segments": 2}, "weight": 2.0}]},
}
VARIANTS = [
    Head("probe", {"statistics": "segments+steps", "segments": 2, "positions": "mirrored"}),
    Head("probe", {"statistics": "mean+steps", "unit": True}),
    Head("clip-network", {"network": "small", "tt": "both"}),
    Head("grid-gru", {"appearance": True}),
    Head("tt-lstm", {"out_modes": [2, 2, 4], "ranks": [3], "recurrent_ranks": [3], "changes": True}),
    Head("netvlad", {"clusters": 4, "hidden": 8, "light": True, "gating": False, "experts": 0, "standardize": True}),
    Head("bag-of-frames", {"project": 12, "hidden": 8, "pool": "mean"}),
    Head("pooled", {"top": 0, "deviation": False, "experts": 0}),
]
CASES = [Head(name, OPTIONS.get(name, {})) for name in HEADS] + VARIANTS
ORDERLESS = (
    "single",
    "mean",
    "netvlad",
    "nextvlad",
    "bag-of-frames",
    "bag-of-words",
    "netfv",
    "pooled",
    "frame-network",
)


@pytest.fixture(params=CASES, ids=lambda head: head.name + "+" * (head in VARIANTS))
def head(request):
    torch.manual_seed(0)
    built = build_head(request.param, SHAPE, CLASSES)
    for module in built.modules():  # statistics other than the identity
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm3d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    built.calibrate(torch.randn(SHAPE[0]), torch.rand(SHAPE[0]) + 0.5)
    return built.eval()


def features(batch, frames, seed=1):
    return torch.randn(batch, frames, *SHAPE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_one_frame_at_a_time_equals_the_whole_clip(head):
    clip = features(2, 9)
    whole, after = head(clip, head.zero_state(2, clip))
    state = head.zero_state(2, clip)
    for t in range(9):
        logits, state = head(clip[:, t : t + 1], state)
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=0)
    for name in head.state_shapes:
        torch.testing.assert_close(state[name], after[name], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_padding_frames_change_nothing(head):
    clip = features(1, 5)
    alone, _ = head(clip, head.zero_state(1, clip))
    padded = torch.cat([clip, 100 * features(1, 4, seed=2)], 1)
    mask = torch.arange(9)[None] < 5
    masked, _ = head(padded, head.zero_state(1, clip), mask)
    torch.testing.assert_close(masked, alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_zeroed_row_restarts_its_window_and_no_other(head):
    clip = features(1, 6).expand(2, -1, -1, -1, -1)
    _, state = head(clip[:, :3], head.zero_state(2, clip))
    for value in state.values():
        value[1] = 0
    logits, _ = head(clip[:, 3:], state)
    whole, _ = head(clip[:1], head.zero_state(1, clip))
    late, _ = head(clip[:1, 3:], head.zero_state(1, clip))
    torch.testing.assert_close(logits, torch.cat([whole, late]), atol=1e-5, rtol=0)


def test_the_state_has_the_shapes_that_are_announced(head):
    clip = features(3, 2)
    _, state = head(clip, head.zero_state(3, clip))
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: (3, *shape) for name, shape in head.state_shapes.items()
    }


def test_every_parameter_gets_a_gradient(head):
    clip = features(3, 4)
    logits, _ = head.train()(clip, head.zero_state(3, clip), torch.ones(3, 4, dtype=torch.bool))
    (logits * torch.arange(float(CLASSES))).sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_the_order_of_frames_matters_to_all_but_the_orderless_heads():
    clip = features(1, 6)
    for recipe in CASES:
        torch.manual_seed(0)
        built = build_head(recipe, SHAPE, CLASSES).eval()
        forth, _ = built(clip, built.zero_state(1, clip))
        back, _ = built(clip.flip(1), built.zero_state(1, clip))
        assert torch.allclose(forth, back, atol=1e-5) == (recipe.name in ORDERLESS)


def test_the_mean_head_takes_the_mean():
    built = build_head(Head("mean", {"units": 0}), (4,), 3).eval()
    clip = torch.randn(1, 5, 4)
    logits, _ = built(clip, built.zero_state(1, clip))
    expected = built.classifier(clip.mean(1))
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)


def test_the_paper_heads_have_the_size_that_the_thesis_implies():
    def count(name):
        return sum(p.numel() for p in build_head(Head(name), (1280,), 101).parameters())

    dense = 1280 * 512 + 512 + 512 * 101 + 101 + 2 * 1280 + 2 * 512
    assert count("gru") == 2 * 3 * 1280 * 1280 + 6 * 1280 + dense
    assert count("lstm") == 2 * 4 * 1280 * 1280 + 8 * 1280 + dense


def test_a_still_picture_has_no_change_and_a_first_frame_neither():
    built = build_head(Head("grid-gru"), SHAPE, CLASSES).eval()
    still = features(1, 1).expand(-1, 4, -1, -1, -1)
    other = features(1, 1, seed=9).expand(-1, 4, -1, -1, -1)
    a, _ = built(still, built.zero_state(1, still))
    b, _ = built(other, built.zero_state(1, other))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Head("grid-gro"), "did you mean grid-gru"),
        (Head("grid-gru", {"chanels": 3}), "did you mean channels"),
        (Head("grid-gru", {"channels": "many"}), "channels must be int"),
    ],
)
def test_a_wrong_name_or_option_is_named_with_the_nearest(recipe, said):
    with pytest.raises(RecipeError, match=said):
        build_head(recipe, SHAPE, CLASSES)


def test_a_grid_head_on_a_pooled_vector_says_what_to_set():
    with pytest.raises(RecipeError, match="set grid"):
        build_head(Head("grid-gru"), (1280,), CLASSES)


def test_standardizing_leaves_a_constant_channel_alone():
    built = build_head(Head("grid-gru"), SHAPE, CLASSES)
    built.calibrate(torch.zeros(6), torch.tensor([0.0, 2, 1, 1, 1, 1]))
    assert np.allclose(built.standardize.scale.flatten()[:2], [1, 0.5])
