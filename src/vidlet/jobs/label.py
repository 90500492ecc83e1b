"""Pictures with boxes from videos that nobody has labelled: a large detector says what a small one shall learn."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, VidletError
from ..files import atomic_path, sha256_of, write_text
from ..metrics import overlaps
from ..progress import bar, say
from ..recipe import in_range
from ..runs import product_of
from ..runtime import Model, load
from ..tasks.predictions import find_sources
from ..video import frame_times, iter_frames, rate_ticks, uniform_indices
from ..video.sample import EPSILON_S

DOUBTFUL = 0.5  # times the threshold: a picture with a box between the two teaches neither its presence nor its absence
SAME = 0.3  # overlap with a sure box, from which on a doubtful one is about the same thing
EMPTY_SHARE = 0.1  # of the pictures, at most so many show nothing
SPLITS = ("train", "val", "test")
SHARES = (0.7, 0.1, 0.2)
QUALITY = 92


def label(
    model: str | Path | Model,
    source: str | Path,
    out: str | Path,
    classes: Sequence[str] = (),
    hz: float = 1.0,
    threshold: float = 0.5,
    most: int = 5000,
) -> dict[str, Any]:
    """Write ``out``: pictures of videos with the boxes that a detector finds, as YOLO's files, split by video.

        vidlet.label("things.onnx", "street/", "boxes/", classes=["person"])
        vidlet.train("boxes/", recipe="tiny-yolov2")

    A picture with a doubtful box (a score from half the threshold to the threshold, of which no sure box is near) is
    left out. Of pictures without
    any box some are kept, so that the small detector learns what nothing looks like.

    Args:
        model: a file that detects, or its run folder.
        source: a video, a folder of frames, or a folder of videos.
        out: a folder that is not there yet, or empty.
        classes: of the detector, that are wanted; none: those that are found.
        hz: pictures a second.
        threshold: a box needs this score.
        most: pictures at most, spread evenly over the videos.

    Returns:
        {"out", "files": {name: bytes}, "metrics": {"images", "boxes", "per_class", "empty", "doubtful", "videos"},
        "skipped": [{"path", "error"}]}.

    Raises:
        DataError: no videos, none of them can be read, nothing is found in any, or ``out`` has files in it.
        ModelError: not a detector.
    """
    in_range("hz", hz, 0.001, 1000)
    in_range("threshold", threshold, 0.001, 1)
    in_range("most", most, 1)
    detector = model if isinstance(model, Model) else load(product_of(model))
    names = _wanted(detector, classes)
    folder, sources = Path(out), find_sources(source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"--out {folder}: is there already; name a folder that is not, or an empty one")
    quota = max(1, most // len(sources))
    seen = _Seen(detector, names, threshold, folder, _splits(sources))
    skipped = []
    with bar("label", "video") as move:
        for done, path in enumerate(sources, 1):
            try:
                seen.look(path, hz, quota)
            except VidletError as error:
                skipped.append({"path": str(path), "error": str(error)})
            move(done, len(sources))
    if len(skipped) == len(sources):
        raise DataError(f"{source}: none of {len(sources)} videos can be read; first: {skipped[0]['error']}")
    if not seen.boxes:
        raise DataError(f"{source}: no box of a score of {threshold:g} in {seen.looked} pictures of {', '.join(names)}")
    return {**seen.finish(sources), "skipped": skipped}


class _Seen:
    """What was found so far, and the files that were written of it."""

    def __init__(
        self, model: Model, names: Sequence[str], threshold: float, folder: Path, splits: dict[Path | str, list[str]]
    ) -> None:
        self.model, self.names, self.threshold, self.folder, self.splits = model, list(names), threshold, folder, splits
        self.boxes: Counter[str] = Counter()
        self.images = self.empty = self.doubtful = self.looked = 0
        self.places = {model.box_labels.index(name): number for number, name in enumerate(self.names)}

    def look(self, path: Path | str, hz: float, quota: int) -> None:
        """Take the pictures on display at 0, 1/hz, 2/hz ..., up to ``quota`` of them, spread evenly over the video."""
        times = frame_times(path)
        ticks = rate_ticks(0.0, float(times[-1]) + 1e-3, hz)
        shown = np.unique(np.searchsorted(times, ticks + EPSILON_S, side="right") - 1)  # on display at each tick
        wanted = set(shown[uniform_indices(len(shown), min(quota, len(shown)))].tolist())
        splits = self.splits[path]
        stretch = times[-1] / len(splits) + EPSILON_S
        for number, frame in enumerate(iter_frames(path)):
            if number not in wanted:
                continue
            time_s, rgb = frame.time_s, frame.rgb()
            self.looked += 1
            rows = self.model.detect(rgb)
            rows = rows[np.isin(rows[:, 5].astype(int), list(self.places))]
            sure = rows[rows[:, 4] >= self.threshold]
            unsure = rows[(rows[:, 4] >= DOUBTFUL * self.threshold) & (rows[:, 4] < self.threshold)]
            if (overlaps(unsure[:, :4], sure[:, :4]).max(1, initial=0) < SAME).any():
                self.doubtful += 1
                continue
            if not len(sure) and self.empty >= EMPTY_SHARE * (self.images + 1):
                continue
            self._write(Path(path), time_s, rgb, sure, splits[int(time_s / stretch)])

    def finish(self, sources: Sequence[Path | str]) -> dict[str, Any]:
        """Write the names of the classes and where the boxes come from; say what there is."""
        write_text(self.folder / "classes.txt", "".join(f"{name}\n" for name in self.names))
        told = {"detector": self.model.path.name, "sha256": sha256_of(self.model.path), "threshold": self.threshold}
        write_text(self.folder / "labelled_by.json", json.dumps(told, indent=1))
        metrics = {
            "images": self.images, "boxes": sum(self.boxes.values()), "per_class": dict(self.boxes.most_common()),
            "empty": self.empty, "doubtful": self.doubtful, "videos": len(sources),
        }  # fmt: skip
        kinds = ", ".join(f"{name} {count}" for name, count in self.boxes.most_common(5))
        say(
            f"{self.folder}: {self.images} pictures of {len(sources)} videos with {metrics['boxes']} boxes ({kinds}); "
            f"{self.empty} show nothing, {self.doubtful} doubtful ones were left out"
        )
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        return {"out": str(self.folder), "files": sizes, "metrics": metrics}

    def _write(self, video: Path, time_s: float, rgb: NDArray[np.uint8], rows: NDArray[np.float32], split: str) -> None:
        stem = f"{video.stem}-{hashlib.sha256(str(video).encode()).hexdigest()[:6]}-{round(1000 * time_s):08d}"
        lines = []
        for x1, y1, x2, y2, _, number in rows.tolist():
            self.boxes[self.names[self.places[int(number)]]] += 1
            box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            lines.append(f"{self.places[int(number)]} {' '.join(f'{value:.6f}' for value in box)}\n")
        write_text(self.folder / "labels" / split / f"{stem}.txt", "".join(lines))
        with atomic_path(self.folder / "images" / split / f"{stem}.jpg") as draft:
            Image.fromarray(rgb).save(draft, quality=QUALITY)
        self.images += 1
        self.empty += not lines


def _wanted(model: Model, classes: Sequence[str]) -> tuple[str, ...]:
    if not model.box_labels:
        raise DataError(f"{model.path}: no detector, it has no boxes to give")
    if unknown := [name for name in classes if name not in model.box_labels]:
        some = ", ".join(model.box_labels[:10]) + (", ..." if len(model.box_labels) > 10 else "")
        raise DataError(f"--classes: {model.path} does not know {', '.join(unknown)}; it knows {some}")
    return tuple(dict.fromkeys(classes)) or model.box_labels


def _splits(sources: Sequence[Path | str]) -> dict[Path | str, list[str]]:
    """The split of each video, so that no video is on two sides; of fewer than ten, of each tenth of its time."""
    tenths = [name for name, share in zip(SPLITS, SHARES, strict=True) for _ in range(round(10 * share))]
    if len(sources) < len(tenths):
        return dict.fromkeys(sources, tenths)
    order = sorted(sources, key=lambda path: hashlib.sha256(Path(path).name.encode("utf-8", "replace")).hexdigest())
    return {path: [tenths[10 * place // len(order)]] for place, path in enumerate(order)}
