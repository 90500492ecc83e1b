"""A linear classifier of what a clip was like: statistics over time, and means of its stretches in order. Ours.

Linear probes are what a head has to beat (docs/lab-notes.md); those of ordered stretches are close to recurrent heads
where order matters, and are solved in seconds. That order must be in a probe, says STEP (Thiyakesan Ponbagavathi and
Roitberg 2025, arXiv:2503.24298).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .frame_parts import check_positive, l2_normalize, masked
from .head import Head, Standardize, State, flat_size, last_of

STATISTICS = ("mean", "deviation", "change", "highest", "middle", "segments", "steps")
MIDDLE = (0.4, 0.6)  # of the clip
POSITIONS = ("all", "mirrored", "pooled")
FINER = 4  # bins a segment
_LEAST_VARIANCE = 1e-6  # of features whose mean square is 1


# Means over ordered stretches of a clip whose length is not known beforehand, at constant memory.
#
# A clip's frames are summed into R bins of w frames each. When all bins are full, neighbors are added together and w
# doubles, so between R / 2 and R bins hold the whole clip, however long it is. A stretch, say the third eighth of the
# clip, is the weighted mean of the bins that it overlaps: exact while w is 1, else as if a bin's frames were alike.
# What is in the bins depends on the number of frames alone, so frame by frame equals all at once.
DOUBLINGS = 20  # of a bin's width: 32 bins hold 33 million frames, and float32 counts to 16 million


class Stretches(nn.Module):
    """The bins of a clip and the means of its stretches.

    Args:
        bins: R, even.
        edges: begin and end of each stretch, as fractions of the clip.
    """

    def __init__(self, bins: int, edges: list[tuple[float, float]]) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("begin", torch.tensor([begin for begin, _ in edges]), persistent=False)
        self.register_buffer("end", torch.tensor([end for _, end in edges]), persistent=False)
        self.register_buffer("place", torch.arange(float(bins)), persistent=False)
        self.register_buffer("doubles", 2.0 ** torch.arange(float(DOUBLINGS)), persistent=False)
        self.begin: Tensor
        self.end: Tensor
        self.place: Tensor
        self.doubles: Tensor

    def width(self, count: Tensor) -> Tensor:
        """Frames a bin of clips of ``count`` (N, 1) frames: the least power of two w with R w >= count."""
        return 1 + ((count > self.bins * self.doubles) * self.doubles).sum(1, keepdim=True)

    def add(self, bins: Tensor, count: Tensor, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add the real frames of x (B, T, D) to bins (N, R, D) of ``count`` (N, 1) frames; B is N or 1."""
        number = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        frames = torch.full_like(count, x.shape[1]) if mask is None else mask.sum(1, keepdim=True).to(count.dtype)
        total = count + frames
        before, after = self.width(count), self.width(total)
        place = self.place.unsqueeze(1)  # (R, 1)
        merged = torch.floor(self.place * before / after).unsqueeze(1) == place  # (N, R, R): old bin -> new bin
        added = torch.floor((count + number) / after).unsqueeze(1) == place  # (N, R, T): frame -> new bin
        if mask is not None:
            added = added & mask.unsqueeze(1)
        return merged.to(x.dtype) @ bins + added.to(x.dtype) @ x, total

    def means(self, bins: Tensor, count: Tensor) -> Tensor:
        """The mean of each stretch of clips of ``count`` (N, 1) frames in bins (N, R, D): (N, S, D)."""
        width = self.width(count)
        low = torch.minimum(self.place * width, count).unsqueeze(1)  # (N, 1, R)
        high = torch.minimum((self.place + 1) * width, count).unsqueeze(1)
        begin, end = (self.begin * count).unsqueeze(2), (self.end * count).unsqueeze(2)  # (N, S, 1)
        overlap = (torch.minimum(high, end) - torch.maximum(low, begin)).clamp(min=0)  # (N, S, R), in frames
        share = overlap / (high - low).clamp(min=1)
        return (share / (end - begin)) @ bins


class Probe(Head):
    """Statistics of a clip, each at its scale, and a linear classifier.

    ``mean``, ``deviation`` and ``highest`` are over all frames, ``change`` is the mean distance |x_t - x_(t-1)| of a
    feature between frames, ``middle`` the mean of the middle fifth, ``segments`` the means of as many equal stretches
    in order, ``steps`` the differences of neighboring ones. State: what each of them needs, among it ``bins``.

    ``vector`` is what the classifier sees: :func:`~vidlet.training.linear.fit_probe_` solves it to convergence, and
    sets ``center`` and ``gain`` so that each statistic's numbers are about 0 and of one size over the training clips.

    Args:
        statistics: names, joined by "+".
        segments: how many.
        whiten: power of each number's deviation over the clips that it is divided by: 1 makes all alike, 0 keeps their
            sizes; for principal components, whose last are noise, something between.
        strength: of the L2 penalty of the solution (the vectors' mean square length is 1).
        positions: what is left of the grid in each statistic: "all" of it, the mean of it and its mirror image
            ("mirrored": what comes from the left is as what comes from the right), or its mean ("pooled": it does not
            matter where something moves, only that it does).
        squares: above 0 the solution is that of least squares, at once for many classes; its scores, less one half,
            times this are the logits. 0: that of least cross-entropy.
        alike: in least squares classes count alike, however many clips they have.
        unit: each frame's numbers are brought to one length first, so that its direction alone counts: stored features
            of whole videos are longer where less is going on.
        sharpness: of the solution of least cross-entropy, by which its logits are multiplied: a weak penalty gives the
            better order of the classes and says it too surely, a strong one the other way round.
    """

    shares_frames = True

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        statistics: str = "mean+deviation",
        segments: int = 8,
        whiten: float = 1.0,
        strength: float = 1e-3,
        positions: str = "all",
        squares: float = 0.0,
        unit: bool = False,
        alike: bool = True,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        self.names = tuple(statistics.split("+"))
        unknown = [name for name in self.names if name not in STATISTICS]
        if unknown or len(set(self.names)) < len(self.names):
            raise RecipeError(
                f"head probe: option statistics must be different ones of {', '.join(STATISTICS)}, joined by '+', "
                f"got {statistics!r}"
            )
        check_positive("probe", segments=segments)
        if segments < 2:
            raise RecipeError(f"head probe: option segments must be at least 2, got {segments}")
        if not 0 <= whiten <= 1:
            raise RecipeError(f"head probe: option whiten must be from 0 to 1, got {whiten:g}")
        if not strength > 0:
            raise RecipeError(f"head probe: option strength must be positive, got {strength:g}")
        if not sharpness > 0:
            raise RecipeError(f"head probe: option sharpness must be positive, got {sharpness:g}")
        if squares < 0:
            raise RecipeError(f"head probe: option squares must be 0 or more, got {squares:g}")
        if positions not in POSITIONS:
            raise RecipeError(f"head probe: option positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
        if positions != "all" and len(feature_shape) != 3:
            raise RecipeError(f"head probe: option positions {positions!r} needs a grid, got features {feature_shape}")
        self.segments, self.whiten, self.positions = segments, whiten, positions
        self.strength, self.squares, self.unit, self.alike = strength, squares, unit, alike
        self.sharpness = sharpness
        self.grid, self.size = tuple(feature_shape), flat_size(feature_shape)
        self.seen = _numbers_left(self.grid, positions)  # of a statistic
        self.scale = Standardize(feature_shape[0], len(feature_shape) - 1, 0.0)
        rows = {"segments": segments, "steps": segments - 1}
        self.rows = [rows.get(name, 1) for name in self.names]
        self.register_buffer("center", torch.zeros(len(self.names), self.seen))
        self.register_buffer("gain", torch.ones(len(self.names), self.seen))
        self.center: Tensor
        self.gain: Tensor
        self.classify = nn.Linear(sum(self.rows) * self.seen, classes)
        self._ordered = any(name in ("segments", "steps") for name in self.names)
        edges = [(i / segments, (i + 1) / segments) for i in range(segments)] if self._ordered else []
        self.stretches = Stretches(FINER * segments, [*edges, MIDDLE]) if self._needs_bins() else None
        self.state_shapes = {"count": (1,)} | self._shapes()

    def _needs_bins(self) -> bool:
        return self._ordered or "middle" in self.names

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        if "mean" in self.names or "deviation" in self.names:
            found["sum"] = (self.size,)
        for name, state in (("deviation", "squares"), ("change", "changes"), ("highest", "highest")):
            if name in self.names:
                found[state] = (self.size,)
        if "change" in self.names:
            found["previous"] = (self.size,)
        if self.stretches is not None:
            found["bins"] = (self.stretches.bins, self.size)
        return found

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.scale.set(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (N, K); B is N or 1."""
        found, after = self._describe(features, state, mask)
        parts = [
            ((value - self.center[i]) * self.gain[i]).flatten(1) for i, value in enumerate(found)
        ]  # each (N, rows * D)
        return self.classify(torch.cat(parts, 1)), after

    def describe(self, features: Tensor) -> list[Tensor]:
        """The statistics of whole clips, features (B, T, *feature_shape), before center and gain: (B, rows, D) each.

        D is what ``positions`` leaves of the numbers of a frame.
        """
        return self._describe(features, self.zero_state(len(features), features), None)[0]

    def _describe(self, features: Tensor, state: State, mask: Tensor | None) -> tuple[list[Tensor], State]:
        x = self._lengths(features).flatten(2)  # (B, T, D)
        frames = x.shape[1] if mask is None else mask.sum(1, keepdim=True).to(x.dtype)
        count = state["count"] + frames  # (N, 1)
        after: State = {"count": count}
        real = masked(x, mask)
        found: dict[str, Tensor] = {}
        if "sum" in self.state_shapes:
            after["sum"] = state["sum"] + real.sum(1)
            found["mean"] = after["sum"] / count
        if "deviation" in self.names:
            after["squares"] = state["squares"] + (real * real).sum(1)
            variance = after["squares"] / count - found["mean"] * found["mean"]
            found["deviation"] = variance.clamp(min=0).add(_LEAST_VARIANCE).sqrt()
        if "change" in self.names:
            after["changes"], after["previous"] = self._changes(x, state, mask)
            found["change"] = after["changes"] / (count - 1).clamp(min=1)
        if "highest" in self.names:
            after["highest"] = self._highest(x, state, mask)
            found["highest"] = after["highest"]
        if self.stretches is not None:
            after["bins"], _ = self.stretches.add(state["bins"], state["count"], x, mask)
            means = self.stretches.means(after["bins"], count)  # (N, S, D)
            found["middle"] = means[:, -1]
            if self._ordered:
                found["segments"], found["steps"] = means[:, :-1], means[:, 1:-1] - means[:, :-2]
        rows = [found[name] if found[name].ndim == 3 else found[name].unsqueeze(1) for name in self.names]
        return [self._merged(value) for value in rows], after

    def _lengths(self, features: Tensor) -> Tensor:
        """Features (B, T, *feature_shape) with a mean square of about 1, over all frames or in each."""
        if not self.unit:
            return self.scale(features)
        return l2_normalize(features.flatten(2)) * self.size**0.5

    def _merged(self, value: Tensor) -> Tensor:
        """What is left of the positions of a statistic (N, rows, D): (N, rows, seen)."""
        if self.positions == "all":
            return value
        grid = value.unflatten(2, self.grid)  # (N, rows, C, G, G)
        if self.positions == "pooled":
            return grid.mean((3, 4))
        half = (grid + grid.flip(4))[..., : (self.grid[2] + 1) // 2] / 2
        return half.flatten(2)

    def _changes(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sum of |x_t - x_(t-1)| so far (N, D), and the last frame (N, D)."""
        first = (x[:, 0] - state["previous"]).abs() * (state["count"] > 0)
        later = masked((x[:, 1:] - x[:, :-1]).abs(), None if mask is None else mask[:, 1:]).sum(1)
        last = last_of(x, mask)
        return state["changes"] + first + later, last + torch.zeros_like(state["previous"])

    def _highest(self, x: Tensor, state: State, mask: Tensor | None) -> Tensor:
        """The highest value of each feature so far (N, D)."""
        known = x if mask is None else x.masked_fill(~mask.unsqueeze(2), torch.finfo(x.dtype).min)
        now = known.amax(1)
        return torch.where(state["count"] > 0, torch.maximum(state["highest"], now), now)


def _numbers_left(shape: tuple[int, ...], positions: str) -> int:
    """How many numbers of a frame's features are left of their positions."""
    if positions == "all":
        return flat_size(shape)
    channels, rows, columns = shape
    return channels if positions == "pooled" else channels * rows * ((columns + 1) // 2)
