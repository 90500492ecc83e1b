"""Intervals over groups: a slow loop, known coverage, and the cases at the edge."""

import numpy as np
import pytest

from vidlet.errors import DataError
from vidlet.metrics import Difference, bootstrap_interval, paired_bootstrap, rate_interval, wilson_interval


def clustered(seed: int, people: int = 20, clips: int = 10) -> tuple[np.ndarray, list[str]]:
    """Correctness of clips of people that differ: some are always read rightly, some hardly."""
    rng = np.random.default_rng(seed)
    skill = rng.beta(2, 1, people)
    correct = rng.random((people, clips)) < skill[:, None]
    return correct.ravel(), [f"p{i}" for i in range(people) for _ in range(clips)]


def slow_means(correct: np.ndarray, groups: list[str], repeats: int) -> np.ndarray:
    """The same resampling, clip by clip."""
    rng = np.random.default_rng(77)
    members = {g: [c for c, h in zip(correct, groups, strict=True) if h == g] for g in dict.fromkeys(groups)}
    names = list(members)
    draws = ([c for _ in names for c in members[names[rng.integers(len(names))]]] for _ in range(repeats))
    return np.array([np.mean(draw) for draw in draws])


def test_the_interval_is_that_of_a_slow_loop():
    correct, groups = clustered(0)
    expected = np.quantile(slow_means(correct, groups, 2000), [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(correct, groups), expected, atol=0.012)


def test_groups_of_unequal_size_weigh_by_their_clips():
    correct = np.array([1] * 6 + [0] * 2)
    low, high = bootstrap_interval(correct, ["a"] * 6 + ["b"] * 2)
    assert (low, high) == (0.0, 1.0)  # aa, ab, ba or bb: means 1, .75, .75, 0
    means = slow_means(correct, ["a"] * 6 + ["b"] * 2, 200)
    assert set(np.unique(means)) == {0.0, 0.75, 1.0}


def test_groups_widen_the_interval_of_clips_that_resemble_each_other():
    correct, groups = clustered(1)
    grouped, alone = bootstrap_interval(correct, groups), bootstrap_interval(correct, None)
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(*clustered(seed), repeats=300, seed=seed)
        hits += low <= 2 / 3 <= high  # mean of beta(2, 1)
    assert 0.88 <= hits / 200 <= 0.99


def test_a_clip_without_a_group_is_a_group_of_its_own():
    correct = np.arange(12) % 3 > 0
    assert bootstrap_interval(correct, [None] * 12) == bootstrap_interval(correct, None)
    assert bootstrap_interval(correct, [""] * 12) == bootstrap_interval(correct, [str(i) for i in range(12)])


def test_the_order_of_clips_and_the_names_of_groups_do_not_matter():
    correct, groups = clustered(2)
    order = np.random.default_rng(0).permutation(len(correct))
    renamed = np.array([f"x{g}" for g in groups])[order]
    assert bootstrap_interval(correct[order], renamed) == bootstrap_interval(correct, groups)


def test_a_single_group_gives_a_degenerate_interval():
    assert bootstrap_interval([True, False, True, True], ["a"] * 4) == (0.75, 0.75)


def test_the_difference_on_a_single_group_is_known_and_its_interval_is_not():
    assert paired_bootstrap([1, 1, 0], [0, 1, 0], ["a"] * 3) == (1 / 3, None, None)
    assert paired_bootstrap([1], [0], None) == (1.0, None, None)
    assert None not in paired_bootstrap([1, 1, 0], [0, 1, 0], ["a", "a", "b"])


def test_no_clips_have_no_interval():
    assert np.isnan(bootstrap_interval([], [])).all()
    mean, low, high = paired_bootstrap([], [], None)
    assert np.isnan(mean) and low is None and high is None


def test_the_seed_decides_and_a_higher_level_is_wider():
    correct, groups = clustered(3)
    assert bootstrap_interval(correct, groups, seed=4) == bootstrap_interval(correct, groups, seed=4)
    low, high = bootstrap_interval(correct, groups, level=0.5)
    wide_low, wide_high = bootstrap_interval(correct, groups, level=0.99)
    assert wide_low < low < high < wide_high


def test_many_groups_fit_in_memory_blocks():
    correct = np.arange(30_000) % 4 > 0
    low, high = bootstrap_interval(correct, None, repeats=300)
    assert 0.744 < low < 0.75 < high < 0.756


def test_pairs_cancel_what_the_clips_share():
    a, groups = clustered(5)
    b = a.copy()
    b[np.flatnonzero(a)[:2]] = False  # B is wrong on two clips more
    difference = paired_bootstrap(a, b, groups)
    assert difference == Difference(pytest.approx(0.01), difference.low, difference.high)
    assert 0 <= difference.low <= difference.mean <= difference.high < 0.05
    wide = bootstrap_interval(a, groups)
    assert wide[1] - wide[0] > 4 * (difference.high - difference.low)
    assert paired_bootstrap(b, a, groups).mean == pytest.approx(-0.01)
    assert paired_bootstrap(a, a, groups) == Difference(0.0, 0.0, 0.0)


def test_lengths_that_do_not_fit_are_named():
    with pytest.raises(DataError, match="3 clips need 3 groups, got 2"):
        bootstrap_interval([1, 0, 1], ["a", "b"])
    with pytest.raises(DataError, match="same clips"):
        paired_bootstrap([1, 0], [1], None)


def test_an_interval_holds_at_the_ends():
    # z^2 = 3.8415: 12 of 12 leave 12 / (12 + z^2), and none of 12 the rest; half of 12 are 0.5 -+ 0.2462
    assert wilson_interval(1.0, 12) == pytest.approx((0.7575, 1.0), abs=5e-5)
    assert wilson_interval(0.0, 12) == pytest.approx((0.0, 0.2425), abs=5e-5)
    assert wilson_interval(0.5, 12) == pytest.approx((0.2538, 0.7462), abs=5e-5)
    assert rate_interval([True] * 12, None) == (*wilson_interval(1.0, 12), "Wilson")


def test_where_all_groups_are_alike_each_counts_as_one_clip():
    groups = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    low, high, rule = rate_interval([True] * 12, groups)
    assert (low, high) == pytest.approx((0.4385, 1.0), abs=5e-5)  # 3 / (3 + z^2)
    assert rule == "Wilson over groups"
    assert rate_interval([True, False, True, True], ["a"] * 4)[:2] == wilson_interval(0.75, 1)


def test_groups_that_differ_are_resampled():
    right, groups = [True] * 7 + [False] * 5, ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert rate_interval(right, groups) == (*bootstrap_interval(right, groups), "bootstrap over groups")


def test_an_interval_covers_what_it_says_it_does_near_the_end():
    rng, hits = np.random.default_rng(0), 0
    for right in rng.binomial(20, 0.97, size=2000):
        low, high = wilson_interval(right / 20, 20)
        hits += low <= 0.97 <= high
    assert hits / 2000 > 0.93
