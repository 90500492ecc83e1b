"""Mapped pages that were read count as memory of the process until the system needs them: they are given back before.

The system would take such pages when memory is short, for the file holds the same. But a process of a large store would
look as large as the store, and limits of containers and of schedulers count so. What is given back stays in the
system's cache of files, from which it comes back when it is read again.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from typing import Any

MOST_BYTES = 1 << 26  # that were read of all maps of this process and not given back


class _Read:
    """The files of which something was read since pages were given back last."""

    def __init__(self) -> None:
        self.files: dict[int, Any] = {}  # address -> buffer of Arrow, which keeps the file mapped there
        self.bytes = 0
        self.lock = threading.Lock()


_read = _Read()


def give_back_later(file: Any, read_bytes: int) -> None:
    """Know that so many bytes of a mapped file were read; where that makes many, give the pages of all files back.

    What was read stays where it is and as it is: a page that was given back is read again when it is asked for.

    Args:
        file: a buffer of Arrow that is the whole map, read only.
    """
    with _read.lock:
        _read.files[file.address] = file
        _read.bytes += read_bytes
        if _read.bytes < MOST_BYTES:
            return
        files, _read.files, _read.bytes = _read.files, {}, 0
    for one in files.values():
        _give_back(one)


def _give_back(file: Any) -> None:
    """Give the pages of a map back, where the system has a call for it."""
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None or file.address % mmap.PAGESIZE or not file.size:
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.madvise(file.address, file.size, advice)
