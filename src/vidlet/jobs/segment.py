"""Homogeneous segments of a video, found without labels: where the features of an extractor change."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..metrics.changes import change_points, noise
from ..models import build_extractor
from ..recipe import Sampling, load_recipe
from ..video import stream_clip

MOST_FRAMES = 20_000  # exact cutting costs the square of it


def segment(
    source: str | Path,
    recipe: str = "mobilenetv2-single",
    overrides: Mapping[str, Any] | None = None,
    hz: float = 2.0,
    strength: float = 3.0,
    shortest_s: float = 1.0,
) -> dict[str, Any]:
    """Cut a video where its pictures change, into pieces that are alike within; nothing is trained, nothing named.

    A cut must save ``strength`` times the noise of a frame (what neighbors differ by) times the log of their number.

    Args:
        recipe: whose extractor looks at the frames.
        hz: frames a second.
        shortest_s: of a segment, in seconds.

    Returns:
        {"source", "frames", "segments": [{"start_s", "end_s"}]}.

    Raises:
        DataError: no video, or more than ``MOST_FRAMES`` frames at this rate.
    """
    if hz <= 0 or strength <= 0 or shortest_s < 0:
        raise DataError(f"segment: hz and strength must be positive, got {hz:g}, {strength:g} and {shortest_s:g} s")
    extractor = build_extractor(load_recipe(recipe, overrides).extractor)
    rows: list[np.ndarray] = []
    times: list[float] = []
    for part in stream_clip(source, Sampling("rate", hz=hz), extractor.input_size, 16):
        with torch.no_grad():
            rows.append(extractor(torch.from_numpy(part.frames)).flatten(1).numpy())
        times += part.times_s.tolist()
        if len(times) > MOST_FRAMES:
            raise DataError(f"{source}: more than {MOST_FRAMES:,} frames at {hz:g} Hz; lower --hz")
    features = np.concatenate(rows)
    penalty = max(strength * noise(features) * np.log(max(len(features), 2)), 1e-6)
    cuts = change_points(features, float(penalty), max(1, round(shortest_s * hz)))
    edges = [times[0], *(times[cut] for cut in cuts), times[-1] + 1 / hz]
    pieces = [{"start_s": round(a, 3), "end_s": round(b, 3)} for a, b in itertools.pairwise(edges)]
    return {"source": str(source), "frames": len(features), "segments": pieces}
