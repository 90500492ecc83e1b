"""Staggered windows: a model of clips of a few seconds on a video that never ends.

N windows share the extractor (the N of the artifact's state), each with its own history; each is as long as a
training clip and starts a stride (length / N) after the one before; zeroing its row of the state starts it anew.
Memory is constant.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..video.flow import optical_flow

State = dict[str, NDArray]


@dataclass(frozen=True)
class Step:
    """What a model gives: scores (N, K), the next state, and boxes (M, 6) if it detects."""

    scores: NDArray[np.float32]
    state: State
    boxes: NDArray[np.float32] | None = None


class Steps(Protocol):
    """The part of a model that windows need."""

    @property
    def inputs(self) -> Container[str]:
        """Names of what it takes of a clip."""

    def run(self, frames: NDArray | Mapping[str, NDArray], state: State | None = None) -> Step:
        """Advance the state by some frames."""

    def zero_state(self, n: int = 1) -> State:
        """The initial state of n windows."""


# Decoded frames in the form in which a model takes them.


class FrameFeed:
    """Turns frames, in their order, into what ``Model.run`` takes: with the optical flow, where a model sees that too.

    Flow is that of ``video.flow.optical_flow`` since the frame before, in whichever call that came; of the first frame
    it is zero.

    Args:
        inputs: names of the model's inputs.

    Raises:
        DependencyError: when called, of a model that sees flow, and OpenCV is not installed.
    """

    def __init__(self, inputs: Container[str]) -> None:
        self._flow = "flow" in inputs
        self._before: NDArray[np.uint8] | None = None

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8] | dict[str, NDArray]:
        """The next frames (T, H, W, 3)."""
        if not self._flow:
            return frames
        flow = optical_flow(frames, self._before)
        self._before = frames[-1].copy()
        return {"frames": frames, "flow": flow}


class StaggeredWindows:
    """Feeds frames one at a time to N windows.

    Window w sees the frames from w * stride to w * stride + length and stands in row w % N. ``whole`` adds one more
    row that is never started anew: the score of everything so far.
    """

    def __init__(self, model: Steps, length: int, windows: int, whole: bool = False) -> None:
        self.model = model
        self._feed = FrameFeed(model.inputs)
        self.windows = max(1, min(windows, length))
        self.stride = max(1, round(length / self.windows))
        self.length = self.stride * self.windows
        self.frames = 0
        self.state = model.zero_state(self.windows + whole)
        self.scores: NDArray[np.float32] = np.zeros((self.windows + whole, 0), np.float32)

    def push(self, frame: NDArray[np.uint8]) -> Step:
        """Show one frame (H, W, 3) to all windows; their scores stay in ``scores`` (N, K)."""
        if self.frames % self.stride == 0 and self.frames:
            row = self.frames // self.stride % self.windows
            for name, array in self.state.items():
                self.state[name] = array if array.flags.writeable else array.copy()
                self.state[name][row] = 0
        step = self.model.run(self._feed(frame[None]), self.state)
        self.state, self.scores = step.state, step.scores
        self.frames += 1
        return step

    def drop_whole(self) -> None:
        """Forget the row that is never started anew."""
        self.state = {name: array[: self.windows].copy() for name, array in self.state.items()}

    def age(self, window: int) -> int:
        """Frames that a window has seen."""
        return min(max(self.frames - window * self.stride, 0), self.length)

    @property
    def oldest(self) -> int:
        """The window under way that has seen most; with two windows or more, at least half its length once it can."""
        return max((self.frames - 1) // self.stride - self.windows + 1, 0)

    def row(self, window: int) -> NDArray[np.float32]:
        """Scores (K,) of a window that is under way, or has just ended."""
        return self.scores[min(window % self.windows, len(self.scores) - 1)]  # without a state there is one row
