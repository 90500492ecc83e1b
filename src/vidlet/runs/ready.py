"""Ready models: files that are called by a name wherever a model file is wanted, as ``vidlet predict motion clip.mp4``.

A name is that of a file or run in the folder ``VIDLET_MODELS``, or one of the table below, whose files lie in the cache
once ``vidlet models NAME`` (or the command that makes them) has put them there. A path that exists goes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..files import cache_folder, write_bytes
from ..published import DETECTORS, WeightsFile

FOLDER = "VIDLET_MODELS"
MOTION = "motion"


@dataclass(frozen=True)
class Ready:
    """One entry of the table: what the file is, and what it is made of."""

    task: str
    about: str
    licence: str
    source: str  # an address, or the command that makes it
    parts: tuple[WeightsFile, ...] = ()  # what others published; ``vidlet models NAME`` makes a file of ours of them

    def place(self, name: str) -> Path:
        """Where the file lies; of another published file somewhere else."""
        mark = f"-{self.parts[0].sha256[:8]}" if self.parts else ""
        return cache_folder("models", f"{name}{mark}.onnx")


READY: Mapping[str, Ready] = {
    MOTION: Ready("clips", "eight drawn movements, the file of the demo", "Apache-2.0", "vidlet demo"),
    **{
        name: Ready("boxes", "80 kinds of things (COCO)", parts[0].licence, parts[0].url, parts)
        for name, parts in DETECTORS.items()
    },
}


def ready_file(name: str) -> Path | None:
    """The file or run of a name; None where nothing is called so.

    Raises:
        ModelError: a name of the table whose file is not there yet; says how it comes.
    """
    for known, path in local_models():
        if known == name:
            return path
    if name not in READY:
        return None
    path = READY[name].place(name)
    if not path.is_file():
        raise ModelError(f"{name}: a ready model that is not on this machine yet; {how_to_get(name)}")
    return path


def ready_names() -> list[str]:
    """Every name that may stand for a file."""
    return [*READY, *(name for name, _ in local_models())]


def how_to_get(name: str) -> str:
    """What puts the file of an entry of the table there."""
    return f"`vidlet models {name}` fetches it" if READY[name].parts else f"`{READY[name].source}` makes it"


def local_models() -> Iterator[tuple[str, Path]]:
    """Name and path of each model file and of each run in ``VIDLET_MODELS``.

    Raises:
        ModelError: that is no folder.
    """
    if not (given := os.environ.get(FOLDER)):
        return
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{FOLDER}={folder}: not a folder")
    for path in sorted(folder.iterdir()):
        if path.suffix == ".onnx" and path.is_file():
            yield path.stem, path
        elif path.is_dir() and any(path.glob("*.onnx")):
            yield path.name, path


def keep_ready(name: str, file: Path) -> None:
    """Put a copy of a file where its name finds it."""
    write_bytes(READY[name].place(name), file.read_bytes())
