"""The built-in motion set: clips whose class is only in the order of their frames.

Classes come in pairs of which one is the other reversed in time. Every clip is drawn as one of the first class of its
pair, with random scene and parameters; for the second class its frames are turned round before noise is added. So
within a pair each frame, and each unordered bag of frames, has the same distribution under both classes: a model that
sees single frames or their mean is at chance, and only the order tells. What moves besides (distractors, a shaking
background, flicker, noise) is the same forwards and backwards. Frames are drawn from signed distances, antialiased.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, VidletError
from ..files import write_text
from ..labels import label_order
from ..video import read_many, write_video
from .table import SPLITS, Clip, ClipTable

MOTION_PAIRS = (
    ("move_left", "move_right"),
    ("rotate_clockwise", "rotate_counterclockwise"),
    ("grow", "shrink"),
    ("open", "close"),
)
EXTRA_PAIRS = (("move_up", "move_down"), ("appear", "vanish"))
SCENES = 30
FRAME_RATES = (12, 16, 20, 24, 30)

Distance = np.ndarray  # signed distance to an outline in units of the frame's side, negative inside: (T, S, S)


@dataclass(frozen=True)
class MotionClip:
    """A drawn clip: frames uint8 (T, S, S, 3), their rate, the class and the scene that it shares with others."""

    frames: np.ndarray
    fps: int
    label: str
    group: str


def render_motion(
    out: str | os.PathLike[str],
    clips: int = 480,
    seed: int = 0,
    size: int = 96,
    split: Sequence[float] = (0.65, 0.15, 0.2),
    *,
    classes_extra: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ClipTable:
    """Write the motion set as H.264 files with clips.csv into a folder, and return its table.

    Classes are equally frequent, in every scene too. ``split`` are the shares of scenes for train, val and test; with
    fewer than three rounds of all classes the later splits stay empty. The pixels depend on the other arguments
    alone. ``classes_extra`` adds two pairs (up and down, appear and vanish). ``progress`` gets (done, total).

    Raises:
        DataError: fewer than one clip, frames smaller than 32 or of odd size.
    """
    if clips < 1 or size < 32 or size % 2:
        raise DataError(f"motion set: {clips} clips of {size} x {size}; it takes at least 1 clip, an even size from 32")
    root = Path(out)
    names = _class_names(classes_extra)
    split_of = _scene_splits(_scene_count(clips, len(names)), split, seed)

    def render(index: int) -> Clip:
        drawn = draw_clip(index, clips, seed, size, classes_extra)
        path = root / "videos" / drawn.label / f"{drawn.label}_{index:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, drawn.frames, drawn.fps)
        return Clip(path, (drawn.label,), drawn.group, split_of[drawn.group])

    done: list[Clip] = []
    for _, clip in read_many(range(clips), render, workers):
        if isinstance(clip, VidletError):
            raise clip
        done.append(clip)
        if progress:
            progress(len(done), clips)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "group", "split"))
    writer.writerows((clip.path.relative_to(root).as_posix(), clip.label, clip.group, clip.split) for clip in done)
    write_text(root / "clips.csv", text.getvalue())
    return ClipTable(tuple(done), label_order((clip.label for clip in done), str(root)), root)


def draw_clip(index: int, clips: int, seed: int = 0, size: int = 96, classes_extra: bool = False) -> MotionClip:
    """Draw clip ``index`` of a set of ``clips``; it depends on the arguments alone."""
    names = _class_names(classes_extra)
    round_, kind = divmod(index, len(names))
    scene = round_ % _scene_count(clips, len(names))
    rng = np.random.default_rng((seed, 1, index))
    look = _scene(seed, scene)
    fps = int(rng.choice(FRAME_RATES))
    half_seconds = int(rng.integers(2, 6))  # 1 to 2.5 s, so that sampling at 2, 4, 8 Hz reaches both ends alike
    times = np.linspace(0.0, 1.0, fps * half_seconds // 2 + 1)
    progress = _progress(times, rng)
    canvas = _Canvas(size, look, len(times), rng)
    _draw_distractors(canvas, rng)
    _MOTIONS[names[kind - kind % 2]](canvas, progress, rng)
    frames = canvas.rgb[::-1] if kind % 2 else canvas.rgb
    return MotionClip(_finish(frames, look, rng), fps, names[kind], f"scene{scene:02d}")


def _class_names(classes_extra: bool) -> list[str]:
    return [name for pair in MOTION_PAIRS + (EXTRA_PAIRS if classes_extra else ()) for name in pair]


def _scene_count(clips: int, classes: int) -> int:
    return min(SCENES, max(1, clips // classes))


def _scene_splits(scenes: int, shares: Sequence[float], seed: int) -> dict[str, str]:
    """The split of each scene; as many splits as there are scenes have at least one."""
    if len(shares) != len(SPLITS) or min(shares) < 0 or not shares[0] > 0:
        raise DataError(f"motion set: split {tuple(shares)} is not three shares for train, val and test")
    val, test = (max(1, round(share * scenes / sum(shares))) if share else 0 for share in shares[1:])
    val = min(val, scenes - 1)
    names = ["val"] * val + ["test"] * min(test, scenes - 1 - val)
    names = ["train"] * (scenes - len(names)) + names
    order = np.random.default_rng((seed, 2)).permutation(scenes)
    return {f"scene{scene:02d}": name for scene, name in zip(order, names, strict=True)}


@dataclass(frozen=True)
class _Look:
    """What the clips of a scene share."""

    background: np.ndarray  # float32 (96, 96, 3) in [0, 1], wraps round
    colors: np.ndarray  # of objects, far from the background: (3, 3)
    noise: float  # deviation of the pixel noise, of 255
    shake: float  # deviation of the background's position, of the frame's side
    flicker: float
    distractors: int  # most


def _scene(seed: int, scene: int) -> _Look:
    rng = np.random.default_rng((seed, 0, scene))
    dark, light = np.sort(rng.uniform(0.1, 0.9, (2, 3)), axis=0)
    base = rng.uniform(0.15, 0.85, 3)
    other = np.clip(base + rng.uniform(-0.2, 0.2, 3), 0, 1)
    mix = _texture(rng)[..., None]
    background = (base * mix + other * (1 - mix)).astype(np.float32)
    palette = rng.uniform(0, 1, (200, 3))
    palette[:100] = np.where(rng.random((100, 3)) < 0.5, dark * 0.6, 0.4 + 0.6 * light)
    far = np.abs(palette - (base + other) / 2).sum(axis=1)
    colors = palette[np.argsort(-far)[:40]][rng.permutation(40)[:3]]
    return _Look(
        background,
        colors.astype(np.float32),
        noise=rng.uniform(1.0, 7.0),
        shake=float(rng.choice([0.0, 0.0, 0.006])),
        flicker=float(rng.choice([0.0, 0.02])),
        distractors=int(rng.integers(0, 4)),
    )


def _texture(rng: np.random.Generator) -> np.ndarray:
    """A periodic pattern (96, 96) in [0, 1]: waves of a few directions, blobs, stripes or checks."""
    y, x = np.mgrid[0:96, 0:96] / 96 * 2 * np.pi
    kind = rng.integers(4)
    if kind == 0:
        waves = sum(np.cos(rng.integers(-3, 4) * x + rng.integers(-3, 4) * y + rng.uniform(0, 6.3)) for _ in range(5))
        pattern = np.asarray(waves)
    elif kind == 1:
        pattern = np.cos(rng.integers(2, 7) * x + rng.integers(-6, 7) * y)
    elif kind == 2:
        n = rng.integers(2, 6)
        pattern = np.tanh(3 * np.sin(n * x) * np.sin(n * y))
    else:
        spectrum = np.fft.fft2(rng.standard_normal((96, 96)))
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
        pattern = np.fft.ifft2(spectrum / (0.02 + radius) ** 1.5).real
    return (pattern - pattern.min()) / (np.ptp(pattern) + 1e-9)


def _progress(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From 0 to 1 over the clip (T,): rest, a motion of varied pace, rest; reversed it has the same distribution."""
    start, end = rng.uniform(0.0, 0.15), 1.0 - rng.uniform(0.0, 0.15)
    t = np.clip((times - start) / (end - start), 0.0, 1.0)
    bend = rng.uniform(-0.5, 0.5)
    ease = rng.uniform(0.0, 1.0)
    t = t + bend * t * (1 - t)
    return (1 - ease) * t + ease * t * t * (3 - 2 * t)


class _Canvas:
    """The frames of a clip while they are drawn: float32 (T, S, S, 3) in [0, 1], coordinates in [0, 1]."""

    def __init__(self, size: int, look: _Look, frames: int, rng: np.random.Generator) -> None:
        self.look = look
        self.frames = frames
        self.size = size
        axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self.y, self.x = axis[None, :, None], axis[None, None, :]
        offset = rng.uniform(0, 96, 2) + look.shake * 96 * rng.standard_normal((frames, 2)) * (look.shake > 0)
        pixels = np.arange(size) * (96 / size)
        rows = (pixels[None] + offset[:, :1]).astype(np.int64) % 96  # (T, S)
        columns = (pixels[None] + offset[:, 1:]).astype(np.int64) % 96
        if look.shake:
            self.rgb = look.background[rows[:, :, None], columns[:, None, :]]
        else:
            self.rgb = np.repeat(look.background[rows[:1, :, None], columns[:1, None, :]], frames, axis=0)

    def paint(self, distance: Distance, color: np.ndarray, opacity: np.ndarray | float = 1.0) -> None:
        """Cover what is inside of an outline (T or 1, S, S) with a color; edges are one pixel soft."""
        alpha = np.clip(0.5 - distance * self.size, 0.0, 1.0) * opacity
        touched = np.flatnonzero(alpha.any(axis=(0, 2)))
        if not len(touched):
            return
        band = slice(touched[0], touched[-1] + 1)
        alpha = alpha[:, band, :, None].astype(np.float32)
        self.rgb[:, band] += alpha * (color.astype(np.float32) - self.rgb[:, band])

    def local(
        self, center: tuple[np.ndarray | float, np.ndarray | float], angle: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates x and y, each (T or 1, S, S), around a center, turned by an angle (clockwise on the screen)."""
        dx, dy = self.x - _column(center[0]), self.y - _column(center[1])
        cos, sin = np.cos(_column(angle)), np.sin(_column(angle))
        return dx * cos + dy * sin, dy * cos - dx * sin


def _column(values: np.ndarray | float) -> np.ndarray:
    return np.atleast_1d(np.asarray(values, dtype=np.float32))[:, None, None]


def _disk(x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> Distance:
    return np.hypot(x, y) - _column(radius)


def _box(x: np.ndarray, y: np.ndarray, half_width: np.ndarray | float, half_height: np.ndarray | float) -> Distance:
    return np.maximum(np.abs(x) - _column(half_width), np.abs(y) - _column(half_height))


def _diamond(x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> Distance:
    return (np.abs(x) + np.abs(y) - _column(radius) * 1.25) * np.float32(0.7071)


def _ring(x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> Distance:
    radius = _column(radius)
    return np.abs(np.hypot(x, y) - radius * np.float32(0.75)) - radius * np.float32(0.25)


def _cross(x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> Distance:
    radius = np.asarray(radius)
    return np.minimum(_box(x, y, radius, radius * 0.36), _box(x, y, radius * 0.36, radius))


def _triangle(x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> Distance:
    return np.maximum(np.abs(x) * np.float32(0.866) + y * np.float32(0.5), -y) - _column(radius) * np.float32(0.6)


def _square(x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> Distance:
    return _box(x, y, np.asarray(radius) * 0.85, np.asarray(radius) * 0.85)


_SHAPES: tuple[Callable[[np.ndarray, np.ndarray, np.ndarray | float], Distance], ...] = (
    _disk,
    _square,
    _diamond,
    _ring,
    _cross,
    _triangle,
)


def _draw_distractors(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Up to three small shapes that stand, tremble or blink, each frame for itself."""
    for _ in range(int(rng.integers(0, canvas.look.distractors + 1))):
        shape = _SHAPES[rng.integers(len(_SHAPES))]
        tremble = rng.choice([0.0, 0.012]) * rng.standard_normal((2, canvas.frames))
        x, y = rng.uniform(0.05, 0.95, 2)[:, None] + (tremble if tremble.any() else tremble[:, :1])
        blink = 1.0 if rng.random() < 0.7 else _column(rng.random(canvas.frames) < 0.6)
        color = np.clip(canvas.look.colors[rng.integers(3)] + rng.uniform(-0.3, 0.3, 3), 0, 1)
        canvas.paint(shape(*canvas.local((x, y), rng.uniform(0, 6.3)), rng.uniform(0.03, 0.06)), color, blink)


def _object_color(canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    return np.clip(canvas.look.colors[rng.integers(3)] + rng.uniform(-0.08, 0.08, 3), 0, 1)


def _point(low: float, high: float, rng: np.random.Generator) -> tuple[float, float]:
    return float(rng.uniform(low, high)), float(rng.uniform(low, high))


def _random_shape(rng: np.random.Generator) -> Callable[[np.ndarray, np.ndarray, np.ndarray | float], Distance]:
    return _SHAPES[rng.integers(len(_SHAPES))]


def _path(progress: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis across the frame from high to low, and a slight drift on the other: two arrays (T,)."""
    middle, reach = rng.uniform(0.4, 0.6), rng.uniform(0.45, 0.65)
    along = middle + reach * (0.5 - progress)
    across = rng.uniform(0.28, 0.72) + rng.uniform(-0.08, 0.08) * (progress - 0.5)
    return along, across


def _move_left(canvas: _Canvas, progress: np.ndarray, rng: np.random.Generator) -> None:
    x, y = _path(progress, rng)
    _paint_moving(canvas, x, y, rng)


def _move_up(canvas: _Canvas, progress: np.ndarray, rng: np.random.Generator) -> None:
    y, x = _path(progress, rng)
    _paint_moving(canvas, x, y, rng)


def _paint_moving(canvas: _Canvas, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> None:
    shape, angle, radius = _random_shape(rng), rng.uniform(0, 6.3), rng.uniform(0.12, 0.2)
    canvas.paint(shape(*canvas.local((x, y), angle), radius), _object_color(canvas, rng))


def _rotate_clockwise(canvas: _Canvas, progress: np.ndarray, rng: np.random.Generator) -> None:
    """A hand with a knob, a drop or a half disk, none like itself when turned."""
    angle = rng.uniform(0, 2 * np.pi) + np.radians(rng.uniform(170, 300)) * progress
    radius = rng.uniform(0.3, 0.42)
    x, y = canvas.local(_point(0.44, 0.56, rng), angle)
    kind, color = rng.integers(3), _object_color(canvas, rng)
    if kind == 0:
        hand = _box(x - radius * 0.4, y, radius * 0.55, radius * rng.uniform(0.18, 0.26))
        canvas.paint(np.minimum(hand, _disk(x - radius * 0.85, y, radius * 0.34)), color)
    elif kind == 1:
        canvas.paint(np.maximum(_disk(x, y, radius * 0.95), -x), color)
    else:
        canvas.paint(_disk(x, y, radius * 0.9), color * 0.5 + 0.25)
        canvas.paint(_disk(x - radius * 0.45, y, radius * 0.4), 1 - color)


def _grow(canvas: _Canvas, progress: np.ndarray, rng: np.random.Generator) -> None:
    low, high = rng.uniform(0.06, 0.14), rng.uniform(0.26, 0.4)
    shape, angle = _random_shape(rng), rng.uniform(0, 6.3)
    center = _point(0.38, 0.62, rng)
    canvas.paint(shape(*canvas.local(center, angle), low + (high - low) * progress), _object_color(canvas, rng))


def _open(canvas: _Canvas, progress: np.ndarray, rng: np.random.Generator) -> None:
    """A mouth that opens, or a gate of two halves that part."""
    radius, color = rng.uniform(0.3, 0.42), _object_color(canvas, rng)
    x, y = canvas.local(_point(0.44, 0.56, rng), rng.uniform(0, 6.3))
    if rng.random() < 0.5:
        half = np.radians(rng.uniform(2, 15) + rng.uniform(55, 85) * progress)  # half of the mouth's angle
        away = np.abs(y) * np.cos(_column(half)) - x * np.sin(_column(half))  # distance from the lips, outside > 0
        canvas.paint(np.maximum(_disk(x, y, radius), -away), color)
    else:
        gap = rng.uniform(0.0, 0.02) + rng.uniform(0.15, 0.22) * progress
        leaf = radius * rng.uniform(0.24, 0.36)
        canvas.paint(_box(np.abs(x) - _column(gap + leaf), y, leaf, radius * rng.uniform(0.7, 1.0)), color)


def _appear(canvas: _Canvas, progress: np.ndarray, rng: np.random.Generator) -> None:
    shape, angle, radius = _random_shape(rng), rng.uniform(0, 6.3), rng.uniform(0.2, 0.32)
    opacity = _column(0.08 + 0.92 * progress)
    canvas.paint(shape(*canvas.local(_point(0.35, 0.65, rng), angle), radius), _object_color(canvas, rng), opacity)


_MOTIONS: dict[str, Callable[[_Canvas, np.ndarray, np.random.Generator], None]] = {
    "move_left": _move_left,
    "rotate_clockwise": _rotate_clockwise,
    "grow": _grow,
    "open": _open,
    "move_up": _move_up,
    "appear": _appear,
}


def _finish(frames: np.ndarray, look: _Look, rng: np.random.Generator) -> np.ndarray:
    """Brightness, flicker and pixel noise, drawn for every frame by itself -> uint8 (T, S, S, 3)."""
    count = len(frames)
    gain = rng.uniform(0.8, 1.15) * (1 + look.flicker * rng.standard_normal(count)).astype(np.float32)
    noise = rng.standard_normal(frames.shape[:3], dtype=np.float32) * np.float32(look.noise)
    bright = frames * (gain * 255.0).astype(np.float32)[:, None, None, None] + noise[..., None]
    return np.clip(bright, 0, 255).astype(np.uint8)
