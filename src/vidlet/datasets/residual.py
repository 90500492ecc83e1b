"""The built-in "paired residual" set: records of frame features whose labels are in how frames differ from their word.

Frames are noisy copies of 16 words (centers in 64 dimensions of picture and 16 of sound). Each of 60 classes owns two
words a, b and a direction u. A video of the class holds frames m_a + r u and m_b - r u; its twin, which is no video of
the class, holds m_a - r u and m_b + r u. Words, their counts and the mean over time are the same in both: only what
keeps a residual for each word (VLAD) tells them apart. A few videos show several classes, frames are in random order.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import write_text
from .frame_record import Record, quantize
from .records import write_records

WORDS, RGB, AUDIO = 16, 64, 16
RESIDUAL, NOISE, AUDIO_NOISE = 0.45, 0.2, 0.15
SPLITS = {"train": "train", "validate": "val", "test": "test"}  # prefix of a shard -> its split
SHARD = 1000  # videos


@dataclass(frozen=True)
class ResidualWorld:
    """What all videos of a seed share: word centers, and each class' two words and direction."""

    rgb: NDArray[np.float64]  # (WORDS, RGB), unit length
    audio: NDArray[np.float64]  # (WORDS, AUDIO), unit length
    words: NDArray[np.int64]  # (K, 2)
    direction: NDArray[np.float64]  # (K, RGB), unit length
    frequency: NDArray[np.float64]  # (K,), sums to 1


def residual_world(classes: int = 60, seed: int = 0) -> ResidualWorld:
    """Draw centers, word pairs (all different) and directions.

    Raises:
        DataError: more classes than pairs of words.
    """
    pairs = np.array([(a, b) for a in range(WORDS) for b in range(a)])
    if not 1 <= classes <= len(pairs):
        raise DataError(f"classes must be 1 to {len(pairs)}, got {classes}")
    rng = np.random.default_rng([seed, 0])
    frequency = np.arange(1, classes + 1) ** -0.6
    return ResidualWorld(
        _unit(rng.standard_normal((WORDS, RGB))),
        _unit(rng.standard_normal((WORDS, AUDIO))),
        pairs[rng.permutation(len(pairs))[:classes]],
        _unit(rng.standard_normal((classes, RGB))),
        frequency / frequency.sum(),
    )


def draw_video(world: ResidualWorld, name: str, rng: np.random.Generator) -> Record:
    """One video: 1 + Bin(4, .4) classes drawn, those whose words are taken skipped, each itself or its twin."""
    shown = _choose(world, rng)
    signs = rng.choice([-1, 1], len(shown))
    if signs.max() < 0:  # at least one label
        signs[0] = 1
    count = int(rng.integers(20, 41))
    owner = np.arange(count) // 2 % len(shown)  # frames come in pairs, one of each word
    which = np.arange(count) % 2
    chosen = np.array(shown)[owner]
    word = world.words[chosen, which]  # (T,)
    shift = (signs[owner] * np.where(which == 0, 1, -1) * RESIDUAL)[:, None] * world.direction[chosen]  # (T, RGB)
    free = np.setdiff1d(np.arange(WORDS), world.words[shown])
    background = rng.choice(free, int(rng.integers(5, 16)))
    word = np.concatenate([word, background])
    shift = np.concatenate([shift, np.zeros((len(background), RGB))])
    order = rng.permutation(len(word))
    rgb = (world.rgb[word] + shift)[order] + NOISE * rng.standard_normal((len(word), RGB))
    audio = world.audio[word][order] + AUDIO_NOISE * rng.standard_normal((len(word), AUDIO))
    labels = tuple(sorted(c for c, sign in zip(shown, signs, strict=True) if sign > 0))
    return Record(name, labels, {"rgb": quantize(rgb), "audio": quantize(audio)})


def render_residual(
    out: str | os.PathLike[str],
    train: int = 6000,
    val: int = 1500,
    test: int = 1500,
    seed: int = 0,
    *,
    classes: int = 60,
    compressed: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write shards of 1000 videos (train0000.tfrecord, validate0000.tfrecord, test0000.tfrecord) and clips.csv.

    Video number n of a seed is the same whatever the other numbers are. Returns the shards.

    Raises:
        DataError: no videos in a split, or more classes than there are pairs of words.
    """
    folder, world = Path(out), residual_world(classes, seed)
    counts = {"train": train, "validate": val, "test": test}
    if min(counts.values()) < 1:
        raise DataError(f"each split needs at least one video, got {train}, {val} and {test}")
    shards: list[Path] = []
    rows: list[tuple[str, str, str, str]] = []
    total, done = sum(counts.values()), 0
    for part, (prefix, count) in enumerate(counts.items(), 1):
        for number, begin in enumerate(range(0, count, SHARD)):
            path = folder / f"{prefix}{number:04d}.tfrecord{'.gz' if compressed else ''}"
            videos = list(_videos(world, prefix, range(begin, min(begin + SHARD, count)), seed, part))
            write_records(path, videos, compressed)
            shards.append(path)
            for video in videos:
                names = "|".join(class_name(label) for label in video.labels)
                rows.append((video.id, names, "|".join(map(str, video.labels)), SPLITS[prefix]))
            done += len(videos)
            if progress:
                progress(done, total)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("name", "label", "label_id", "split"))
    writer.writerows(rows)
    write_text(folder / "clips.csv", table.getvalue())
    return shards


def class_name(label: int) -> str:
    """The name of a class of the set."""
    return f"class{label:02d}"


def _videos(world: ResidualWorld, prefix: str, numbers: range, seed: int, part: int) -> Iterator[Record]:
    for number in numbers:
        yield draw_video(world, f"{prefix}{number:05d}", np.random.default_rng([seed, part, number]))


def _choose(world: ResidualWorld, rng: np.random.Generator) -> list[int]:
    """Classes of a video, no two of which share a word."""
    wanted = min(1 + int(rng.binomial(4, 0.4)), len(world.frequency))
    shown: list[int] = []
    taken: set[int] = set()
    for candidate in rng.choice(len(world.frequency), wanted, replace=False, p=world.frequency):
        words = set(world.words[candidate].tolist())
        if not words & taken:
            shown.append(int(candidate))
            taken |= words
    return shown


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
