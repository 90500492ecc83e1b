"""The threshold of "none of these", by hand and against a slow search; doubts of labels by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlet.metrics import choose_threshold, doubts, named_scores


def test_what_is_named_is_the_best_label_and_nothing_where_none_is_the_best():
    best, sure = named_scores([[0.5, 0.2, 0.3], [0.3, 0.3, 0.4], [0.1, 0.7, 0.2]], none=2)
    assert best.tolist() == [0, 2, 1]
    assert sure.tolist() == [0.5, 0.0, 0.7]
    assert named_scores([[0.3, 0.3, 0.4]])[1].tolist() == [0.4]


def test_a_class_that_catches_all_lets_the_threshold_be_low():
    found = choose_threshold([0.9, 0.8, 0.31239, 0.0], [0.0] * 50)
    assert found == (0.3123, 0.75, 0.75, 0.0)


def test_one_clip_in_a_hundred_may_be_lost_for_nothing():
    found = choose_threshold([0.02, *[0.5] * 99], [0.0])
    assert (found.threshold, found.recall, found.recall_without) == (0.5, 0.99, 1.0)
    assert choose_threshold([0.02, 0.03, *[0.5] * 98], [0.0]).threshold == 0.03


def test_clips_that_are_all_sure_raise_it_no_higher_than_one_half():
    assert choose_threshold([0.999] * 50, [0.0] * 50).threshold == 0.5
    assert 0.9 < choose_threshold([0.999] * 50, [0.9] * 50).threshold <= 0.999


def test_false_names_raise_the_threshold_where_that_costs_fewer_right_ones():
    found = choose_threshold([0.4, *[0.9] * 9], [0.6] * 5 + [0.1] * 5)
    assert 0.6 < found.threshold <= 0.9
    assert (found.recall, found.false) == (0.9, 0.0)


def test_without_anything_right_or_anything_false():
    assert choose_threshold([0.0, 0.0], [0.7, 0.2])[:3] == (0.5, 0.0, 0.0)
    assert np.isnan(choose_threshold([0.9], []).false)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.lists(st.integers(0, 20), max_size=30))
def test_no_threshold_above_the_free_one_is_better(right, false):
    right, false = np.array(right) / 20, np.array(false) / 20
    found = choose_threshold(right, false)
    if not right.any():
        return
    free = [t for t in np.arange(1, 21) / 20 if (right >= t).mean() >= found.recall_without - 0.01 - 1e-9]
    least = min(max(free), 0.5)
    assert found.threshold >= least - 1e-3

    def gain(t):
        return (right >= t).mean() - ((false >= t).mean() if len(false) else 0)

    for t in np.arange(1, 401) / 400:
        assert t < least - 1e-9 or gain(found.threshold) >= gain(t) - 1e-9 or t > right.max()


def test_a_label_is_doubted_as_far_as_another_is_ahead_of_it():
    found = doubts([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [np.nan] * 3], [0, 2, 1])
    np.testing.assert_allclose(found[:2], [-0.5, 0.6])
    assert np.isnan(found[2])


@pytest.mark.parametrize("seed", range(3))
def test_flipped_labels_come_first_where_the_others_are_clear(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 200)
    said = np.full((200, 4), 0.1)
    said[np.arange(200), truth] = 0.7
    labels = truth.copy()
    labels[:10] = (labels[:10] + 1) % 4
    assert set(np.argsort(-doubts(said, labels))[:10]) == set(range(10))
