"""Read clips ahead of whoever uses them: threads, in order, a bounded number at a time."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..errors import VidletError

Job = TypeVar("Job")
Result = TypeVar("Result")


def read_many(
    jobs: Iterable[Job], read: Callable[[Job], Result], workers: int = 2, ahead: int = 8
) -> Iterator[tuple[Job, Result | VidletError]]:
    """Yield (job, read(job)) in the order of the jobs, read by ``workers`` threads, at most ``ahead`` jobs in advance.

    A ``VidletError`` of a job is yielded in place of its result; any other error is our own mistake and raised. PyAV
    releases the interpreter lock, so threads decode side by side. When the consumer stops, breaks off or is
    interrupted, jobs not begun are dropped and the threads end with the jobs they are at.
    """
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read")
    pending: deque[tuple[Job, Future[Result | VidletError]]] = deque()
    rest = iter(jobs)
    try:
        while True:
            for job in itertools.islice(rest, max(ahead, 1) - len(pending)):
                pending.append((job, pool.submit(_attempt, read, job)))
            if not pending:
                return
            job, future = pending.popleft()
            yield job, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(read: Callable[[Job], Result], job: Job) -> Result | VidletError:
    try:
        return read(job)
    except VidletError as error:
        return error
