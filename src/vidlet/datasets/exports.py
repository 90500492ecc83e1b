"""What labelling tools and hubs write, recognized by their files: the table of their readers.

A line is (name, find, read): ``find`` gives what ``read`` takes, or nothing where a path is not that tool's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .cvat import cvat_file, read_cvat
from .fiftyone_export import fiftyone_file, read_fiftyone
from .hugging_face import metadata_files, read_metadata
from .label_studio import is_label_studio, read_label_studio
from .table import ClipTable


class Export(NamedTuple):
    """How the files of a tool are found at a path, and read."""

    find: Callable[[Path], Any]
    read: Callable[[Any, Path], ClipTable]


EXPORTS: dict[str, Export] = {
    "Label Studio": Export(is_label_studio, lambda found, path: read_label_studio(path)),
    "CVAT": Export(cvat_file, lambda found, path: read_cvat(found)),
    "FiftyOne": Export(fiftyone_file, lambda found, path: read_fiftyone(found)),
    "Hugging Face": Export(metadata_files, read_metadata),
}


def is_export(path: Path) -> bool:
    """Whether a path is what one of these tools wrote."""
    return any(export.find(path) for export in EXPORTS.values())


def read_export(path: Path) -> ClipTable | None:
    """The table of what a tool wrote, or None where ``path`` is nothing that is known.

    Raises:
        DataError: it makes no sense, or none of its videos is there.
    """
    for export in EXPORTS.values():
        if found := export.find(path):
            return export.read(found, path)
    return None
