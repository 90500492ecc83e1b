"""Mapped pages that were read count as memory of the process until the system needs them: they are given back before.

The system would take such pages when memory is short, for the file holds the same. But a process of a large store would
look as large as the store, and limits of containers and of schedulers count so. What is given back stays in the
system's cache of files, from which it comes back when it is read again.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import threading
from typing import Any

MOST_BYTES = 1 << 27  # of all maps of this process that are in memory, about
AROUND_BYTES = 1 << 21  # that the system may bring along with what is read: a large page of its cache


class _Maps:
    """The files of which something was read since pages were given back last."""

    def __init__(self) -> None:
        self.files: dict[int, tuple[Any, int]] = {}  # address -> buffer of Arrow, which keeps it mapped; bytes of it
        self.bytes = 0  # of all
        self.lock = threading.Lock()


_maps = _Maps()


def give_back_later(file: Any, read_bytes: int) -> None:
    """Know that so many bytes of a mapped file were read; where that makes many, give the pages of all files back.

    What was read stays where it is and as it is: a page that was given back is read again when it is asked for.

    Args:
        file: a buffer of Arrow that is the whole map, read only.
    """
    with _maps.lock:
        address, size = file.address, file.size
        known = _maps.files.get(address, (file, 0))[1]
        if known == size:
            return
        now = min(size, known + read_bytes + AROUND_BYTES)
        _maps.files[address] = file, now
        _maps.bytes += now - known
        if _maps.bytes < MOST_BYTES:
            return
        files, _maps.files, _maps.bytes = _maps.files, {}, 0
    for one, _ in files.values():
        _give_back(one)


def _give_back(file: Any) -> None:
    """Give the pages of a map back, where the system has a call for it."""
    if hasattr(mmap, "MADV_DONTNEED") and file.size and not file.address % mmap.PAGESIZE:
        _madvise()(file.address, file.size, mmap.MADV_DONTNEED)


@functools.cache
def _madvise() -> Any:
    """The system's own call: that of Python's mmap is for files that it has opened."""
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call
