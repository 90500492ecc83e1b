"""Homogeneous pieces of a sequence: a case by hand, every split tried, and what must not matter."""

import itertools

import numpy as np
import pytest

from vidlet.errors import DataError
from vidlet.metrics.changes import change_points, noise


def slow(values: np.ndarray, penalty: float, shortest: int) -> float:
    """The least cost over all ways to cut."""
    best = np.inf
    for count in range(len(values)):
        for cuts in itertools.combinations(range(1, len(values)), count):
            edges = [0, *cuts, len(values)]
            if min(np.diff(edges)) >= shortest:
                best = min(best, cost(values, cuts, penalty))
    return best


def cost(values: np.ndarray, cuts, penalty: float) -> float:
    pieces = np.split(values, list(cuts))
    return sum(((piece - piece.mean(0)) ** 2).sum() for piece in pieces) + penalty * len(cuts)


def test_two_levels_are_cut_where_they_meet():
    values = np.array([0, 0, 0, 4, 4])[:, None]
    assert change_points(values, 1.0) == [3]  # one piece costs 19.2
    assert change_points(values, 20.0) == []
    assert change_points(values, 1.0, shortest=3) == []  # no two pieces of three rows in five
    assert change_points(np.zeros((4, 2)), 1.0) == []
    assert change_points(np.zeros((0, 2)), 1.0) == []


@pytest.mark.parametrize("shortest", [1, 2, 3])
def test_no_other_split_costs_less(shortest):
    rng = np.random.default_rng(shortest)
    for _ in range(10):
        values = np.repeat(rng.normal(size=(3, 2)), 3, 0) + 0.4 * rng.normal(size=(9, 2))
        cuts = change_points(values, 0.8, shortest)
        assert cost(values, cuts, 0.8) == pytest.approx(slow(values, 0.8, shortest))
        assert min(np.diff([0, *cuts, 9])) >= shortest


def test_a_shift_of_all_values_moves_no_cut_and_time_may_run_backwards():
    values = np.repeat(np.random.default_rng(0).normal(size=(4, 5)), 6, 0)
    values += 0.1 * np.random.default_rng(1).normal(size=values.shape)
    cuts = change_points(values, 1.0)
    assert cuts == [6, 12, 18]
    assert change_points(values + 1e3, 1.0) == cuts
    assert change_points(values[::-1], 1.0) == [24 - cut for cut in cuts[::-1]]


def test_the_noise_is_that_of_the_pieces_not_of_the_changes():
    rng = np.random.default_rng(0)
    values = np.repeat(10 * rng.normal(size=(5, 30)), 100, 0) + rng.normal(size=(500, 30))
    assert noise(values) == pytest.approx(30, rel=0.1)  # D times a variance of 1
    assert noise(values[:1]) == 0.0


def test_what_cannot_be_cut_is_refused():
    for values, penalty, shortest in ((np.zeros(3), 1.0, 1), (np.zeros((3, 1)), 0.0, 1), (np.zeros((3, 1)), 1.0, 0)):
        with pytest.raises(DataError, match="change points need"):
            change_points(values, penalty, shortest)
