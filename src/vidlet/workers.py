"""Threads that do work nobody waits for: one that fails is said at once and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_FAILURES = 100  # after which it is no accident any more
PAUSE_S = 0.2


def supervised(work: Callable[[], None], failed: Callable[[Exception], None]) -> None:
    """Call ``work`` until it returns; whenever it raises, tell ``failed`` and call it again, up to 100 times."""
    for _ in range(MOST_FAILURES):
        try:
            work()
            return
        except Exception as error:  # whatever it is, the next event must not be lost for it
            failed(error)
            time.sleep(PAUSE_S)
