"""Summaries of measured times."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError


def percentiles_ms(times_s: ArrayLike, percentiles: Sequence[int] = (50, 95)) -> dict[str, float]:
    """Percentiles, in milliseconds, of times in seconds: {"p50": ..., "p95": ...}, linear between neighbors."""
    times = np.asarray(times_s, np.float64)
    if not times.size:
        raise DataError("no times to summarize: nothing was measured")
    return {f"p{p}": float(ms) for p, ms in zip(percentiles, np.percentile(times * 1e3, percentiles), strict=True)}
