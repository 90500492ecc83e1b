"""Which frames are looked at: worked by hand, and what must hold for every length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlet.video import consecutive_window, random_ascending, rate_ticks, uniform_indices

lengths = st.integers(1, 500)


def test_two_seconds_at_eight_hertz_have_sixteen_ticks_and_not_the_one_at_the_end():
    ticks = rate_ticks(0.0, 2.0, 8.0)
    np.testing.assert_array_equal(ticks, np.arange(16) / 8)


def test_ticks_begin_at_the_start_plus_the_phase():
    np.testing.assert_allclose(rate_ticks(3.0, 3.6, 5.0, 0.1), [3.1, 3.3, 3.5])


def test_a_clip_shorter_than_a_tick_has_one_tick():
    assert rate_ticks(1.0, 1.01, 8.0, 0.1).tolist() == [1.0]


@given(st.floats(0, 100), st.floats(0.01, 30), st.floats(0.1, 60))
def test_ticks_lie_inside_the_clip_at_the_rate_without_drift(start_s, seconds, hz):
    ticks = rate_ticks(start_s, start_s + seconds, hz)
    assert ticks[0] == start_s
    assert ticks[-1] < start_s + seconds
    np.testing.assert_allclose(ticks, start_s + np.arange(len(ticks)) / hz, rtol=0, atol=1e-9)
    assert abs(len(ticks) - seconds * hz) <= 1 or len(ticks) == 1


def test_uniform_indices_by_hand():
    assert uniform_indices(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert uniform_indices(10, 3).tolist() == [1, 5, 8]
    assert uniform_indices(2, 4).tolist() == [0, 0, 1, 1]
    assert uniform_indices(1, 3).tolist() == [0, 0, 0]


@given(lengths, lengths)
def test_uniform_indices_are_the_formula_ascend_and_mirror(n, m):
    indices = uniform_indices(n, m)
    assert indices.tolist() == [int(np.floor((k + 0.5) * n / m + 1e-9)) for k in range(m)]
    assert 0 <= indices[0] <= indices[-1] < n
    assert (np.diff(indices) >= 0).all()
    assert (np.abs((n - 1 - indices[::-1]) - indices) <= 1).all()


def test_as_many_frames_as_there_are_is_every_frame():
    rng = np.random.default_rng(0)
    for choice in (uniform_indices(7, 7), random_ascending(7, 7, rng), consecutive_window(7, 7, rng)):
        assert choice.tolist() == list(range(7))


@given(lengths, lengths, st.integers(0, 9))
def test_random_ascending_takes_every_frame_as_evenly_as_can_be(n, m, seed):
    indices = random_ascending(n, m, np.random.default_rng(seed))
    assert len(indices) == m
    assert (np.diff(indices) >= 0).all()
    counts = np.bincount(indices, minlength=n)
    assert len(counts) == n
    assert counts.max() - counts.min() <= 1


def test_random_ascending_reaches_every_frame_equally_often():
    rng = np.random.default_rng(1)
    counts = np.bincount(np.concatenate([random_ascending(10, 3, rng) for _ in range(3000)]), minlength=10)
    assert np.abs(counts - 900).max() < 120


@given(lengths, lengths, st.integers(0, 9))
def test_a_consecutive_window_lies_inside_the_clip(n, m, seed):
    indices = consecutive_window(n, m, np.random.default_rng(seed))
    assert len(indices) == min(n, m)
    assert (np.diff(indices) == 1).all()
    assert 0 <= indices[0] <= indices[-1] < n


def test_windows_begin_at_the_first_and_at_the_last_possible_frame():
    rng = np.random.default_rng(2)
    starts = {int(consecutive_window(5, 3, rng)[0]) for _ in range(100)}
    assert starts == {0, 1, 2}


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="cannot choose 5 of 0 frames"):
        uniform_indices(0, 5)
