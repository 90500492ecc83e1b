"""Progress on standard error: a bar where a person looks on, silence in a pipe."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .wording import shown_lines


@contextmanager
def bar(text: str, unit: str = "clip") -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that moves a bar."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # its own is the system's: a process that is ended leaves it behind
    meter = tqdm(desc=text, unit=unit, file=sys.stderr, disable=None, leave=False)

    def move(done: int, total: int) -> None:
        meter.total = total
        meter.update(done - meter.n)

    try:
        yield move
    finally:
        meter.close()


def say(line: str) -> None:
    """A line for the person, on standard error; what names in it would do to a terminal is escaped."""
    print(shown_lines(line), file=sys.stderr, flush=True)


def megabytes(size: int) -> str:
    """Bytes for people: 941,000 -> "941 kB", 3,400,000 -> "3.40 MB" (10^6)."""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
