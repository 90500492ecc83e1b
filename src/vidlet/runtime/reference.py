"""One small network that every installation carries: how many times slower one machine is than another.

``reference.onnx`` is six inverted residuals of MobileNetV2 at 14 x 14 in float32 (benchmarks/speed/make_reference.py).
"""

from __future__ import annotations

import time
from importlib import resources

import numpy as np

from .session import open_session


def reference_ms(seconds: float = 1.0) -> float:
    """Median milliseconds of the reference network on one thread of this machine."""
    data = (resources.files("vidlet") / "runtime" / "reference.onnx").read_bytes()
    session = open_session(data, "reference.onnx", threads=1)
    feeds = {name: np.full(shape, 0.5, np.float32) for name, shape in session.inputs.items()}
    for _ in range(3):
        session.run(None, feeds)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))
