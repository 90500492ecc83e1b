"""Which frames of a clip are looked at: pure functions of lengths, rates and a random generator.

A clip has n frames, the model sees m of them. Every function returns indices in ascending order, or times in seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EPSILON_S = 1e-6  # two times closer than this are the same moment (time stamps are rounded to container ticks)


def ticks_from(start_s: float, hz: float, phase_s: float = 0.0) -> Iterator[float]:
    """Yield start + phase, start + phase + 1/hz, start + phase + 2/hz ... without end and without drift."""
    for k in itertools.count():
        yield start_s + phase_s + k / hz


def rate_ticks(start_s: float, end_s: float, hz: float, phase_s: float = 0.0) -> NDArray[np.float64]:
    """Return the ticks start + phase + k/hz that lie in [start, end); at least one (the start).

    A clip of 2 s at 8 Hz has 16 ticks: the tick at its very end belongs to the next clip.
    """
    inside = itertools.takewhile(lambda tick: tick < end_s - EPSILON_S, ticks_from(start_s, hz, phase_s))
    return np.array(list(inside) or [start_s], dtype=np.float64)


def uniform_indices(n: int, m: int) -> NDArray[np.int64]:
    """Return m indices evenly spread over n frames: index k is floor((k + 0.5) * n / m), the middle of the k-th m-th.

    A clip shorter than m frames repeats frames: n = 2, m = 4 gives 0 0 1 1.
    """
    _check(n, m)
    return (2 * np.arange(m, dtype=np.int64) + 1) * n // (2 * m)


def random_ascending(n: int, m: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return m random indices in ascending order, each frame at most once (DEEPEYE's training sampling).

    A clip shorter than m frames is taken whole as often as it fits, and the rest is drawn.
    """
    _check(n, m)
    whole, rest = divmod(m, n)
    drawn = rng.choice(n, size=rest, replace=False)
    return np.sort(np.concatenate([np.tile(np.arange(n), whole), drawn])).astype(np.int64)


def consecutive_window(n: int, m: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return m consecutive indices from a random start; a clip shorter than m frames is taken whole (n indices)."""
    _check(n, m)
    start = int(rng.integers(max(n - m, 0) + 1))
    return np.arange(start, start + min(m, n), dtype=np.int64)


def _check(n: int, m: int) -> None:
    if n < 1 or m < 1:
        raise ValueError(f"cannot choose {m} of {n} frames: both must be at least 1")
