"""A trained model: one ONNX file, one function.

    scores, state = model(frames, state)

A whole clip at once, or one frame at a time with the state handed on, gives the same scores. The contract of the
file is in docs/clients.md and schema/artifact.json. Nothing of the training framework is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray

from .. import video
from ..datasets.frame_record import Record, frame_codes
from ..errors import DataError, ModelError, VidletError
from ..recipe import Sampling
from ..video.folder import load_image
from ..wording import notebook_table, shown
from .known import Known
from .metadata import read_metadata, read_model_bytes
from .onnx_parts import OnnxFile, Value
from .safety import judge
from .session import open_session
from .sources import Source, ahead, check_resize, is_live, sampled_frames
from .structure import check_structure
from .windows import FrameFeed, StaggeredWindows, State, Step

CHUNK = 4  # frames a call when a clip is classified: more of them do not fit the caches, and cost memory
LIVE_WINDOWS = 4
THRESHOLD = 0.5  # of files that say none
SHOWN = 5  # labels of a prediction in a notebook
MAX_ROW = 2**26  # elements of one frame, or of one window's state

Clips: TypeAlias = "list[Clip] | tuple[Clip, ...]"
Clip: TypeAlias = "str | Path | Record | NDArray | Mapping[str, NDArray]"  # what ``classify`` names

# name of an input: element type, rank, fixed size of the last dimension (0: the file's)
_INPUTS = {"frames": ("uint8", 4, 3), "flow": ("float32", 4, 2), "rgb": ("uint8", 2, 0), "audio": ("uint8", 2, 0)}


@dataclass(frozen=True)
class StateSpec:
    """One array of the state: shape (N, *shape)."""

    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """The answer for one clip. ``damage`` says what was wrong with the file behind the frames that could be read."""

    label: str
    score: float
    scores: dict[str, float]
    frames: int = 0
    damage: str = ""

    def _repr_html_(self) -> str:
        """What a notebook shows: the best labels with their scores."""
        best = sorted(self.scores.items(), key=lambda item: -item[1])[:SHOWN]
        return notebook_table((name, f"{score:.3f}") for name, score in best)


@dataclass(frozen=True)
class Moment:
    """The answer after one sampled frame. ``boxes`` (M, 6): x1 y1 x2 y2 in [0, 1], score, class; None: no detector."""

    time_s: float
    scores: dict[str, float]
    label: str
    score: float
    boxes: NDArray[np.float32] | None = field(default=None, compare=False)


def load(path: str | Path, threads: int | None = None, provider: str = "cpu") -> Model:
    """Read a model file, check it, and make it ready to run.

        model = vidlet.load("model.onnx")
        model.classify("clip.mp4").label              # one clip
        scores, state = model(frames, state)          # uint8 (T, H, W, 3), any T; state=None starts
        for moment in model.stream(0): ...            # a camera, a stream or a file: moment.time_s, .label, .scores

    Args:
        path: a .onnx file as ``vidlet train`` writes it. Nothing in it is executed but the graph, which is checked.
        threads: for one operator; None lets the runtime choose.
        provider: where it runs: "cpu", "cuda", "openvino" ..., a key of ``vidlet.runtime.PROVIDERS``.

    Raises:
        ModelError: truncated, foreign, hostile, of another version, or not as the contract says; one line.
        DependencyError: the installed runtime has no such provider.
    """
    return Model(path, threads, provider)


class Model:
    """A loaded model. Made by ``load``."""

    def __init__(self, path: str | Path, threads: int | None = None, provider: str = "cpu") -> None:
        self.path = Path(path)
        data = read_model_bytes(self.path)
        self.bytes = len(data)
        self.metadata: dict[str, Any] = read_metadata(data, str(path))
        file = check_structure(data, str(path))
        self.labels: tuple[str, ...] = tuple(self.metadata["labels"])
        self.box_labels: tuple[str, ...] = tuple(self.metadata.get("box_labels", ()))
        self.inputs: dict[str, tuple[int, ...]] = {}  # name: shape without T
        self.state_spec: dict[str, StateSpec] = {}
        self._read_interface(file)
        self._check_widths(judge(file).outputs)
        self.threads, self.provider = threads, provider
        self._session = open_session(data, str(path), threads, provider)

    def __fspath__(self) -> str:
        """Its file: what takes a path takes a loaded model."""
        return str(self.path)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value}" if name else value for name, value in self._told())
        return f"Model({str(self.path)!r}: {told})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a small table of the same."""
        rows = [("file", str(self.path)), *((name or "classes", value) for name, value in self._told())]
        return notebook_table(rows)

    def _told(self) -> list[tuple[str, str]]:
        """(name, value) of what a person wants to know: labels, bytes, what goes in, how good it was."""
        names = [shown(name) for name in self.labels or self.box_labels]
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        kind = "labels" if self.labels else "kinds of boxes"
        told = [("", f"{len(names)} {kind} ({some})"), ("bytes", f"{self.bytes:,}")]
        told += [(name, " x ".join(map(str, shape))) for name, shape in self.inputs.items()]
        told.append(("rate", f"{self.rate_hz:g} frames/s"))
        for item in self.metadata.get("evidence", []):
            what, _, where = str(item.get("what", "")).partition(", ")
            if what in ("accuracy", "map50") and isinstance(item.get("value"), float):
                told.append((what, f"{item['value']:.3f} ({shown(where)})"))
        return told

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        if "frames" not in self.inputs:
            raise ModelError(f"{self.path}: takes {' and '.join(self.inputs)} features, not frames")
        height, width, _ = self.inputs["frames"]
        return height, width

    @property
    def sampling(self) -> Sampling:
        """Which frames of a clip the model was trained on."""
        sampling = self.metadata["sampling"]
        if sampling["rule"] == "rate":
            return Sampling("rate", hz=float(sampling["hz"]))
        return Sampling("uniform", frames=sampling["frames"])

    @property
    def median_s(self) -> float:
        """Median length of a training clip in seconds."""
        return float(self.metadata["sampling"]["median_s"])

    @property
    def rate_hz(self) -> float:
        """Frames a second at which the training clips were seen."""
        sampling = self.sampling
        return sampling.hz if sampling.rule == "rate" else sampling.frames / self.median_s

    @property
    def clip_chunk(self) -> int:
        """Frames a call when a clip is classified: few, but all that a ring of frames spans: it costs once a call."""
        ring = self.state_spec.get("ring")
        return max(CHUNK, ring.shape[0] + 1) if ring else CHUNK

    @property
    def multi_label(self) -> bool:
        """Whether the labels are independent of each other."""
        return bool(self.metadata.get("multi_label", False))

    @property
    def none(self) -> str:
        """The label that means none of the others and is never announced; "" where there is no such."""
        return str(self.metadata.get("none", {}).get("label", ""))

    @property
    def threshold(self) -> float:
        """The score from which on a label is named: the one that the training found, else one half."""
        return float(self.metadata.get("none", {}).get("threshold", THRESHOLD))

    def __call__(self, frames: NDArray | Mapping[str, NDArray], state: State | None = None) -> tuple[NDArray, State]:
        """Return scores (N, K) after the last frame, and the state to hand on. See ``run``."""
        step = self.run(frames, state)
        return step.scores, step.state

    def run(self, frames: NDArray | Mapping[str, NDArray], state: State | None = None) -> Step:
        """Advance the state by T frames.

        Args:
            frames: uint8 (T, H, W, 3); a model of features takes uint8 (T, D); one of several inputs a dict of them.
            state: what the last call gave, or ``zero_state(n)``; None starts one window.

        Returns:
            scores float32 (N, K), (N, 0) if the model only detects; state; boxes float32 (M, 6) of the last frame.

        Raises:
            DataError: an array of another shape or type; says which and what is expected.
        """
        state = self.zero_state() if state is None else state
        feeds = self._check_inputs(frames) | self._check_state(state)
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))
        next_state = {name: outputs[f"next_state.{name}"] for name in self.state_spec}
        rows = next(iter(state.values())).shape[0] if state else 1
        scores = outputs.get("scores", np.zeros((rows, 0), np.float32))
        boxes = outputs.get("boxes")
        self._check_outputs(rows, scores, next_state, boxes)
        return Step(scores, next_state, boxes)

    def zero_state(self, n: int = 1) -> State:
        """The initial state of n windows."""
        return {name: np.zeros((n, *spec.shape), spec.dtype) for name, spec in self.state_spec.items()}

    @overload
    def classify(
        self, path: Clip, start_s: float | None = None, end_s: float | None = None, fps: float | None = None
    ) -> Prediction: ...

    @overload
    def classify(
        self,
        path: Clips,
        start_s: float | None = None,
        end_s: float | None = None,
        fps: float | None = None,
    ) -> list[Prediction]: ...

    def classify(
        self,
        path: Clip | Clips,
        start_s: float | None = None,
        end_s: float | None = None,
        fps: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Name a clip (a file, a part of one, or a folder of frame images), whatever its length, in constant memory.

        This is what ``evaluate`` scores. ``vidlet predict`` says the same of a video of at most one and a half training
        clips; the label and scores of a longer one are there the mean over its timeline (``predict_timeline``).

        A list of clips (a tuple, a column of a table) gives the list of their answers; some are decoded while others
        are computed.

        ``fps`` are the frames a second of a folder of images (25 if not told).

        A model of stored features takes a record, or what ``run`` takes: uint8 (T, D), or a dict of them.

        Raises:
            DataError: the clip cannot be read, or the record lacks an input of the model.
            ModelError: the model takes no frames, or names no clips.
        """
        if isinstance(path, np.ndarray) and path.dtype.kind in "OU":  # names in a column of a table
            path = path.tolist()
        if not isinstance(path, (str, Path, Record, np.ndarray, Mapping)):
            if not isinstance(path, Iterable):
                kind = type(path).__name__
                raise DataError(
                    f"a clip is a file, a folder of frames, a record or an array, got {kind} {path!r}"[:200]
                )
            found = video.read_many(list(path), lambda clip: self.classify(clip, start_s, end_s, fps))
            return [_or_raise(answer) for _, answer in found]
        if not isinstance(path, (str, Path)):
            codes = {name: frame_codes(path, (name,)) for name in self.inputs} if isinstance(path, Record) else path
            count = len(codes if isinstance(codes, np.ndarray) else next(iter(codes.values())))
            return Prediction(*self.name_scores(self(codes)[0][0]), count)
        return classify_together([self], path, start_s, end_s, fps)[0]

    def detect(self, picture: str | Path | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes (M, 6) of an image file, or of a picture uint8 (H, W, 3) of any size.

        A row is x1 y1 x2 y2 in [0, 1], score, and the class, an index into ``box_labels``; best first, down to a score
        of 0.001: choose your own threshold.

        Raises:
            DataError: not an image.
            ModelError: the model does not detect.
        """
        if not self.box_labels:
            raise ModelError(f"{self.path}: no detector, it has no boxes to give")
        self.needs_video()
        rgb = picture if isinstance(picture, np.ndarray) else load_image(Path(picture))
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise DataError(f"a picture must be uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
        boxes = self.run(video.resize(rgb, self.input_size)[None]).boxes
        return np.zeros((0, 6), np.float32) if boxes is None else boxes

    def stream(self, source: Source, windows: int | None = None, fps: float | None = None) -> Iterator[Moment]:
        """Yield the answer after every sampled frame of a file, a folder of frames, a camera or a stream.

        A file has one history from its start (so that its last moment is what ``classify`` says where the model
        samples at a rate); ``fps`` is that of a folder of frames. What never ends has ``windows`` staggered ones, and
        the oldest under way speaks.
        """
        self.needs_video()
        windows = (LIVE_WINDOWS if is_live(source) else 0) if windows is None else windows
        staggered = (
            StaggeredWindows(self, round(self.median_s * self.rate_hz), windows)
            if windows and self.state_spec
            else None
        )
        state: State | None = None
        feed = FrameFeed(self.inputs)
        for time_s, frame in sampled_frames(source, self.rate_hz, self.input_size, fps=fps):
            if staggered:
                step = staggered.push(frame)
                row = staggered.row(staggered.oldest)
            else:
                step = self.run(feed(frame[None]), state)
                state, row = step.state, step.scores[0]
            label, score, named = self.name_scores(row)
            yield Moment(time_s, named, label, score, step.boxes)

    def name_scores(self, row: NDArray[np.float32]) -> tuple[str, float, dict[str, float]]:
        """Scores (K,) as (best label, its score, all of them by name); ("", 0, {}) if the model only detects."""
        named = {label: float(score) for label, score in zip(self.labels, row, strict=True)}
        best = max(named, key=named.__getitem__, default="")
        return best, named.get(best, 0.0), named

    def names(self, label: str, score: float, threshold: float | None = None) -> bool:
        """Whether a best label is to be told: it means something, and reaches the threshold (None: the model's own)."""
        return bool(label) and label != self.none and score >= (self.threshold if threshold is None else threshold)

    def needs_video(self, labels: bool = False) -> None:
        """Raise a ModelError unless the model takes frames, resized by our rule (and names clips)."""
        if labels and not self.labels:
            raise ModelError(f"{self.path}: a detector, it names no clips; its boxes come from stream()")
        if "frames" not in self.inputs:
            raise ModelError(f"{self.path}: takes {' and '.join(self.inputs)} as arrays, no video; call model(...)")
        check_resize(self.metadata["resize"], str(self.path))

    def _check_inputs(self, frames: NDArray | Mapping[str, NDArray]) -> dict[str, NDArray]:
        arrays = frames if isinstance(frames, Mapping) else {next(iter(self.inputs)): frames}
        if set(arrays) != set(self.inputs):
            raise DataError(f"{self.path}: takes {' and '.join(self.inputs)}, got {' and '.join(map(str, arrays))}")
        lengths = set()
        for name, shape in self.inputs.items():
            array, dtype = arrays[name], _INPUTS[name][0]
            wanted = f"{dtype} (T, {', '.join(map(str, shape))})"
            if not isinstance(array, np.ndarray):
                raise DataError(f"{name} must be an array {wanted}, got {type(array).__name__}")
            if array.dtype != dtype or array.shape[1:] != shape or not array.size:
                raise DataError(f"{name} must be {wanted} with T >= 1, got {array.dtype} {array.shape}")
            lengths.add(len(array))
        if len(lengths) > 1:
            raise DataError(f"{' and '.join(self.inputs)} must have one length, got {sorted(lengths)}")
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def _check_state(self, state: State) -> dict[str, NDArray]:
        if set(state) != set(self.state_spec):
            raise DataError(f"the state must have {', '.join(self.state_spec) or 'nothing'}, got {', '.join(state)}")
        rows = set()
        for name, spec in self.state_spec.items():
            array = state[name]
            if not isinstance(array, np.ndarray) or array.dtype != spec.dtype or array.shape[1:] != spec.shape:
                wanted = f"{spec.dtype} (N, {', '.join(map(str, spec.shape))})"
                got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise DataError(f"state {name} must be {wanted}, got {got}")
            rows.add(len(array))
        if len(rows) > 1 or 0 in rows:
            raise DataError(f"all states must have the same number of rows, at least 1, got {sorted(rows)}")
        return {f"state.{name}": np.ascontiguousarray(array) for name, array in state.items()}

    def _check_widths(self, outputs: Mapping[str, Known]) -> None:
        """Hold what the graph will give against the contract, before it runs."""
        for name, columns in (("scores", len(self.labels)), ("boxes", 6)):
            dims = outputs[name].dims if name in self._outputs else (0, columns)
            if len(dims) != 2 or dims[1] != columns:
                raise ModelError(f"{self.path}: gives {name} of shape {dims}, but must give {columns} a row")
        for name, spec in self.state_spec.items():
            dims = outputs[f"next_state.{name}"].dims
            if dims[1:] != spec.shape:
                raise ModelError(f"{self.path}: next_state.{name} has the shape (N, {', '.join(map(str, dims[1:]))})")

    def _check_outputs(self, rows: int, scores: NDArray, state: State, boxes: NDArray | None) -> None:
        """Refuse an answer that is none: another shape than the contract's, or numbers that are not finite."""
        if scores.shape != (rows, len(self.labels)):
            raise ModelError(f"{self.path}: gave scores {scores.shape} for {rows} windows of {len(self.labels)} labels")
        if boxes is not None and (boxes.ndim != 2 or boxes.shape[1] != 6):
            raise ModelError(f"{self.path}: gave boxes {boxes.shape}, expected (M, 6)")
        if not np.isfinite(scores).all() or (boxes is not None and not np.isfinite(boxes).all()):
            raise ModelError(f"{self.path}: gave scores that are not finite; the file is damaged, or was trained wrong")
        for name, spec in self.state_spec.items():
            if state[name].shape != (rows, *spec.shape) or state[name].dtype != spec.dtype:
                raise ModelError(f"{self.path}: gave next_state.{name} {state[name].dtype} {state[name].shape}")

    def _read_interface(self, file: OnnxFile) -> None:
        """Take inputs, outputs and state from the graph, and hold them against the contract."""
        inputs = {value.name: value for value in file.graph.given}
        outputs = {value.name: value for value in file.graph.outputs}
        for name in self.metadata["inputs"]:
            dtype, rank, last = _INPUTS[name]
            shape = self._fixed(inputs.pop(name, None), name, (dtype,))
            if len(shape) != rank - 1 or (last and shape[-1] != last):
                raise ModelError(f"{self.path}: input {name} has the shape (T, {', '.join(map(str, shape))})")
            self.inputs[name] = shape
        if "flow" in self.inputs and self.inputs["flow"][:2] != self.inputs["frames"][:2]:
            raise ModelError(f"{self.path}: inputs frames and flow are of different sizes")
        for name, value in inputs.items():
            short = name.removeprefix("state.")
            if short == name or f"next_state.{short}" not in outputs:
                raise ModelError(f"{self.path}: input {name!r} is neither in metadata inputs nor a state with a next")
            shape = self._fixed(value, name, ("float32", "uint8"))
            if outputs[f"next_state.{short}"].data_type != value.data_type:
                raise ModelError(f"{self.path}: next_state.{short} has another type than state.{short}")
            self.state_spec[short] = StateSpec(np.dtype(value.dtype), shape)
        for name, labels in (("scores", self.labels), ("boxes", self.box_labels)):
            if bool(labels) != (name in outputs):
                raise ModelError(f"{self.path}: {name} and their labels must both be there, or neither")
        dims = (outputs["scores"].dims or ()) if self.labels else ()
        if len(dims) == 2 and isinstance(dims[1], int) and dims[1] != len(self.labels):
            raise ModelError(f"{self.path}: {dims[1]} scores, but {len(self.labels)} labels")
        known = {"scores", "boxes", *(f"next_state.{name}" for name in self.state_spec)}
        self._outputs = tuple(name for name in outputs if name in known)

    def _fixed(self, value: Value | None, name: str, dtypes: tuple[str, ...]) -> tuple[int, ...]:
        """The shape of an input behind its free first dimension."""
        if value is None:
            raise ModelError(f"{self.path}: metadata name the input {name}, the graph has none")
        if value.dtype not in dtypes:
            raise ModelError(f"{self.path}: input {name} is {value.dtype or 'no tensor'}, not {' or '.join(dtypes)}")
        dims = value.dims or ()
        if not dims or isinstance(dims[0], int) or not all(isinstance(dim, int) and dim > 0 for dim in dims[1:]):
            raise ModelError(f"{self.path}: input {name} must have a free first dimension and fixed others, has {dims}")
        if math.prod(cast("tuple[int, ...]", dims[1:])) > MAX_ROW:
            raise ModelError(f"{self.path}: input {name} has the absurd shape {dims}")
        return cast("tuple[int, ...]", dims[1:])


def _or_raise(answer: Prediction | VidletError) -> Prediction:
    if isinstance(answer, VidletError):
        raise answer
    return answer


def classify_together(
    models: Sequence[Model],
    path: str | Path,
    start_s: float | None = None,
    end_s: float | None = None,
    fps: float | None = None,
) -> list[Prediction]:
    """What several models say of one clip, which is decoded once: to each it is as ``Model.classify``.

    Raises:
        DataError: the clip cannot be read.
        ModelError: one takes no frames or names no clips, or they see clips in different ways.
    """
    for model in models:
        model.needs_video(labels=True)
    ways = {(model.sampling, model.input_size, model.clip_chunk) for model in models}
    if len(ways) != 1:
        raise ModelError(f"{models[0].path}: not all of these models see clips alike: {len(ways)} samplings or sizes")
    sampling, size, chunk = ways.pop()
    states: list[State | None] = [None] * len(models)
    scores: list[NDArray | None] = [None] * len(models)
    count, damage = 0, ""
    feeds = [FrameFeed(model.inputs) for model in models]
    for part in ahead(video.stream_clip(path, sampling, size, chunk=chunk, start_s=start_s, end_s=end_s, fps=fps)):
        for i, model in enumerate(models):
            scores[i], states[i] = model(feeds[i](part.frames), states[i])
        count, damage = count + len(part.frames), part.damage
    found = []
    for model, own in zip(models, scores, strict=True):
        if own is None:
            raise DataError(f"{path}: no frame could be read")
        found.append(Prediction(*model.name_scores(own[0]), count, damage))
    return found
