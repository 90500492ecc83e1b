"""Trials by the actors of a Ray cluster: ``vidlet fit DATA --engine ray`` (vidlet[ray]).

An actor holds what the trials of the search need, reads features and records from folders that all machines see, and
tries one candidate at a time. One that is killed is started again by Ray, and its trial with it.
"""

from __future__ import annotations

from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

from ..errors import DataError
from ..features import same_version, what_failed
from .proxy import Job, Outcome, Trials


class Trying:
    """One worker."""

    def __init__(self, trials: Trials) -> None:
        self.trials = trials

    def version(self) -> str:
        """Which vidlet the worker runs."""
        return version("vidlet")

    def check(self) -> None:
        """DataError: what the trials need is not seen here."""
        self.trials.check()

    def work(self, tried: Any, epochs: int) -> Outcome:
        """Try something."""
        return self.trials.work(tried, epochs)


class ClusterWorkers:
    """What ``Workers`` is, by as many actors as the cluster has processors.

    Args:
        ray: as ``on_cluster`` gives it.

    Raises:
        DataError: the machines run another vidlet, or do not see the features.
    """

    def __init__(self, trials: Trials, ray: Any) -> None:
        self._ray, self.count = ray, max(1, int(ray.cluster_resources().get("CPU", 1)))
        given = ray.put(trials)
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(Trying)
        self._actors = [actor.remote(given) for _ in range(self.count)]
        self._given = [0] * self.count  # to each: trials that it has not ended
        same_version(ray, self._actors)
        ray.get([actor.check.remote() for actor in self._actors])

    def submit(self, job: Job) -> Future[Outcome]:
        """Try a candidate where the fewest wait."""
        number = self._given.index(min(self._given))
        self._given[number] += 1
        future: Future[Outcome] = Future()

        def finished(inner: Future[Outcome]) -> None:
            self._given[number] -= 1
            if error := inner.exception():
                future.set_exception(DataError(what_failed(error)))
            else:
                future.set_result(inner.result())

        self._actors[number].work.remote(*job).future().add_done_callback(finished)
        return future

    def look(self) -> float:
        """See ``Workers``: Ray sees to the dead."""
        return 1.0

    def close(self) -> None:
        """End the actors, and what they try."""
        for actor in self._actors:
            self._ray.kill(actor)
