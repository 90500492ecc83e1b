"""Probes: what their statistics are, by hand and against NumPy, and that stretches hold for clips of any length."""

import numpy as np
import pytest
import torch

from vidlet.errors import RecipeError
from vidlet.models.ensemble import Ensemble, Part
from vidlet.models.heads import build_head
from vidlet.models.probe import Probe, Stretches
from vidlet.recipe import Head

EVERYTHING = "mean+deviation+change+highest+middle+segments+steps"


def stretch_oracle(clip: np.ndarray, begin: float, end: float) -> np.ndarray:
    """The mean of a stretch, frame by frame, where frame t lasts from t to t + 1."""
    total = len(clip)
    weights = [max(0.0, min(t + 1, end * total) - max(t, begin * total)) for t in range(total)]
    return np.average(clip, axis=0, weights=weights)


def means_of(stretches: Stretches, clip: torch.Tensor, pieces: list[int]) -> torch.Tensor:
    """The means after a clip (T, D) that was given in pieces of so many frames."""
    bins, count = torch.zeros(1, stretches.bins, clip.shape[1]), torch.zeros(1, 1)
    begin = 0
    for size in pieces:
        bins, count = stretches.add(bins, count, clip[None, begin : begin + size], None)
        begin += size
    return stretches.means(bins, count)[0]


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 12])
def test_stretches_of_a_clip_that_fits_its_bins_are_exact(frames):
    edges = [(i / 3, (i + 1) / 3) for i in range(3)]
    clip = torch.randn(frames, 2, generator=torch.Generator().manual_seed(frames))
    found = means_of(Stretches(12, edges), clip, [frames])
    expected = np.stack([stretch_oracle(clip.double().numpy(), *edge) for edge in edges])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("frames", [13, 24, 25, 100, 1000])
def test_stretches_of_longer_clips_are_those_of_bins_of_equal_frames(frames):
    """Frames that change slowly are nearly alike within a bin, so the error is a small part of what changes."""
    edges = [(i / 3, (i + 1) / 3) for i in range(3)]
    clip = torch.linspace(0, 1, frames)[:, None]
    found = means_of(Stretches(12, edges), clip, [frames])
    expected = np.stack([stretch_oracle(clip.double().numpy(), *edge) for edge in edges])
    np.testing.assert_allclose(found.numpy(), expected, atol=0.02)


@pytest.mark.parametrize("pieces", [[1] * 61, [5] * 12 + [1], [60, 1], [1, 60], [31, 30]])
def test_in_which_pieces_the_frames_come_changes_nothing(pieces):
    clip = torch.randn(61, 3, generator=torch.Generator().manual_seed(0))
    stretches = Stretches(8, [(0, 0.5), (0.5, 1), (0.4, 0.6)])
    whole = means_of(stretches, clip, [61])
    torch.testing.assert_close(means_of(stretches, clip, pieces), whole, atol=1e-5, rtol=0)


def test_a_bin_is_as_wide_as_the_least_power_of_two_that_holds_the_clip():
    width = Stretches(8, []).width(torch.tensor([[0.0], [1], [8], [9], [16], [17], [8 * 1024], [8 * 1024 + 1]]))
    assert width.flatten().tolist() == [1, 1, 1, 2, 2, 4, 1024, 2048]


def test_the_statistics_are_those_of_numpy():
    probe = Probe((4,), 3, EVERYTHING, segments=2)
    clip = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(1))
    mean, deviation, change, highest, middle, segments, steps = (v[0].numpy() for v in probe.describe(clip))
    x = clip[0].numpy()
    np.testing.assert_allclose(mean[0], x.mean(0), atol=1e-6)
    np.testing.assert_allclose(deviation[0], x.std(0), atol=1e-5)
    np.testing.assert_allclose(change[0], np.abs(np.diff(x, axis=0)).mean(0), atol=1e-6)
    np.testing.assert_allclose(highest[0], x.max(0), atol=1e-6)
    np.testing.assert_allclose(middle[0], stretch_oracle(x, 0.4, 0.6), atol=1e-6)
    np.testing.assert_allclose(segments, [x[:3].mean(0), x[3:].mean(0)], atol=1e-6)
    np.testing.assert_allclose(steps[0], x[3:].mean(0) - x[:3].mean(0), atol=1e-6)


def test_the_highest_value_may_be_below_zero():
    """The state begins with zeros, which must not count as a value."""
    probe = Probe((2,), 2, "highest")
    assert probe.describe(torch.full((1, 3, 2), -5.0))[0].unique().tolist() == [-5.0]


def test_of_frames_of_one_length_the_direction_alone_counts():
    probe = Probe((2, 2, 2), 3, "mean+deviation", unit=True).eval()
    clip = torch.randn(1, 5, 2, 2, 2, generator=torch.Generator().manual_seed(4))
    lengths = torch.tensor([0.1, 1.0, 2.0, 30.0, 5.0])[:, None, None, None]
    there, longer = (probe(x, probe.zero_state(1, x))[0] for x in (clip, clip * lengths))
    torch.testing.assert_close(there, longer)
    mean, _ = probe.describe(clip)
    flat = clip[0].flatten(1)
    expected = (flat / flat.norm(dim=1, keepdim=True)).mean(0) * 8**0.5  # a mean square of 1 in each frame
    torch.testing.assert_close(mean[0, 0], expected)


def test_one_frame_has_no_change_and_all_its_segments_are_that_frame():
    probe = Probe((2,), 2, "change+segments", segments=4)
    change, segments = probe.describe(torch.tensor([[[3.0, -1.0]]]))
    assert change.unique().tolist() == [0.0]
    torch.testing.assert_close(segments, torch.tensor([[[3.0, -1.0]]]).expand(1, 4, 2))


def test_pooled_positions_are_the_mean_of_each_statistic_over_the_grid():
    """The deviation is taken at each position first: what moves is seen wherever it is, and does not cancel out."""
    clip = torch.randn(1, 6, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    whole, pooled = (Probe((2, 3, 3), 2, EVERYTHING, segments=2, positions=how) for how in ("all", "pooled"))
    for value, found in zip(whole.describe(clip), pooled.describe(clip), strict=True):
        torch.testing.assert_close(found, value.unflatten(2, (2, 3, 3)).mean((3, 4)))


@pytest.mark.parametrize("columns", [1, 3, 4])
def test_mirrored_positions_do_not_tell_left_from_right(columns):
    torch.manual_seed(2)
    probe = Probe((2, 3, columns), 4, EVERYTHING, segments=2, positions="mirrored").eval()
    clip = torch.randn(1, 6, 2, 3, columns)
    there, back = (probe(x, probe.zero_state(1, x))[0] for x in (clip, clip.flip(4)))
    torch.testing.assert_close(there, back)
    upside_down = probe(clip.flip(3), probe.zero_state(1, clip))[0]
    assert not torch.allclose(there, upside_down)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"statistics": "mean+median"}, "statistics must be different ones of mean"),
        ({"statistics": "mean+mean"}, "must be different"),
        ({"segments": 1}, "segments must be at least 2"),
        ({"whiten": 2.0}, "whiten must be from 0 to 1"),
        ({"strength": 0.0}, "strength must be positive"),
        ({"squares": -1.0}, "squares must be 0 or more"),
        ({"positions": "mirored"}, "positions must be one of all"),
        ({"positions": "pooled"}, "needs a grid"),
    ],
)
def test_a_wrong_option_of_a_probe_is_named(options, said):
    with pytest.raises(RecipeError, match=said):
        build_head(Head("probe", options), (4,), 3)


def test_a_blend_answers_with_the_weighted_mean_of_the_probabilities():
    torch.manual_seed(0)
    first, second = (Probe((4,), 3, "mean") for _ in range(2))
    blend = Ensemble([first, second], weights=[3.0, 1.0])
    clip = torch.randn(2, 5, 4)
    own = [head(clip, head.zero_state(2, clip))[0].softmax(1) for head in (first, second)]
    found = blend(clip, blend.zero_state(2, clip))[0].softmax(1)
    torch.testing.assert_close(found, 0.75 * own[0] + 0.25 * own[1], atol=1e-6, rtol=0)


def test_a_blend_of_many_labels_averages_sigmoids():
    torch.manual_seed(0)
    first, second = (Probe((4,), 3, "mean") for _ in range(2))
    blend = Ensemble([first, second], multi_label=True, weights=[3.0, 1.0])
    clip = torch.randn(2, 5, 4)
    own = [head(clip, head.zero_state(2, clip))[0].sigmoid() for head in (first, second)]
    found = blend(clip, blend.zero_state(2, clip))[0].sigmoid()
    torch.testing.assert_close(found, 0.75 * own[0] + 0.25 * own[1], atol=1e-6, rtol=0)


def test_a_part_is_calibrated_by_the_numbers_of_its_channels():
    """Mean and deviation of a channel follow from those of its positions, as if all its values were looked at."""
    values = torch.randn(50, 3 + 2 * 4, generator=torch.Generator().manual_seed(2))
    head = build_head(Head("probe", {"statistics": "mean"}), (2, 2, 2), 3)
    Part(head, 3, (2, 2, 2)).calibrate(values.mean(0), values.std(0, correction=0))
    own = values[:, 3:].unflatten(1, (2, 4))
    torch.testing.assert_close(head.scale.mean.flatten(), own.mean((0, 2)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "at least one head among its members"),
        ({"members": [{"head": "probe", "weigth": 1}]}, "a member has the keys"),
        ({"members": [{"head": "prob"}]}, "did you mean probe"),
        ({"members": [{"head": "probe", "begin": 3, "shape": [2]}]}, "a part up to 5"),
    ],
)
def test_a_wrong_member_of_a_blend_is_named(options, said):
    with pytest.raises(RecipeError, match=said):
        build_head(Head("blend", options), (4,), 3)
