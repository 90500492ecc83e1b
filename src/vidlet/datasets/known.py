"""Published data sets, recognized by their official lists beside their videos."""

from __future__ import annotations

from pathlib import Path

from .hmdb import hmdb51_lists, read_hmdb51
from .kinetics import kinetics_tables, moments_tables, read_kinetics, read_moments
from .something import numbered_lists, read_numbered
from .table import ClipTable
from .ucf import is_ucf11, read_ucf11, read_ucf101, ucf101_lists
from .viva import read_viva, twin_folders


def read_known(path: Path) -> ClipTable | None:
    """The table of a published data set, or None where ``path`` is none that is known.

    ``path`` is the folder of the lists, the one above it, or one of the lists, which also chooses among several splits.

    Raises:
        DataError: a list that makes no sense, or none of its videos is there.
    """
    root = path if path.is_dir() else path.parent
    if found := ucf101_lists(path):
        return read_ucf101(*found, root)
    if found := hmdb51_lists(path):
        return read_hmdb51(*found, root)
    if tables := kinetics_tables(path):
        return read_kinetics(tables, root)
    if tables := moments_tables(path):
        return read_moments(tables, root)
    if lists := numbered_lists(path):
        return read_numbered(lists, root)
    if twin_folders(path):
        return read_viva(path)
    return read_ucf11(path) if path.is_dir() and is_ucf11(path) else None
