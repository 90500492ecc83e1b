"""Trials by several machines that share a folder: ``vidlet fit DATA --out SHARED/run --join``, on each of them.

One process leads: the one that holds the run's lock. It alone chooses what is tried and writes ``trials.jsonl``. Trials
for which it has no process of its own free lie as files in ``joined/``; others take them by renaming, try them, and
leave the outcome. Who does not say within ``LOST_S`` seconds that it lives is taken for dead, and its trials are given
back; an outcome that comes later still is not counted again. No clock is compared with another's: what counts is
whether a file has changed since the leader looked. If the leader dies the lock is free, and another goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, TrainingError, VidletError
from ..files import Lock, cache_folder, write_text
from ..progress import say, working
from ..recipe import Extractor
from ..runs import FIT, METRICS
from .proxy import CLIPS, ClipTrials, Job, Outcome, Pool, Trials, Workers
from .space import Candidate, Space

LOST_S = 20.0  # of silence: a helper is taken for dead
BEAT_S = 2.0  # between two signs of life
LOOK_S = 0.2  # between two looks at the folder
JOB, TAKEN, DONE, ALIVE = ".job", ".taken", ".done", ".alive"  # NUMBER.job, NUMBER.HELPER.taken, HELPER.alive


class Board:
    """The folder in which trials lie. Each file appears whole, and changes hands by its name."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.folder = run / "joined"

    def open(self, trials: Trials) -> str:
        """Lay out what every trial needs, and name it; what an earlier leader left is removed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex[:8]
        told = {"search": name, "version": version("vidlet")}
        write_text(self.folder / "search.json", json.dumps(told | trials.lay_out(self.folder)))
        return name

    def close(self) -> None:
        """End the trials: who helps finds nothing any more."""
        (self.folder / "search.json").unlink(missing_ok=True)

    def end(self, why: str) -> None:
        """End the search, with what went wrong, so that who waits does not go on with it."""
        self.close()
        write_text(self.folder / "over", why)

    @property
    def over(self) -> str | None:
        """Why the search ended without a model; "" where it did not, None where it has not ended."""
        with contextlib.suppress(OSError):
            return (self.folder / "over").read_text("utf-8")
        return "" if (self.run / METRICS).exists() and (self.run / FIT).exists() else None

    def search(self) -> dict[str, Any] | None:
        """What the leader laid out; None where no trials are wanted now."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.folder / "search.json").read_text("utf-8"))
            return found
        return None

    def files(self, ending: str) -> list[Path]:
        """The files of a kind, oldest number first."""
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == ending and path.name[0] != ".")
        except OSError:
            return []

    def given(self, told: Mapping[str, Any]) -> ClipTrials:
        """The trials of clips that ``search`` tells.

        Raises:
            DataError: the features are not where this machine sees them.
        """
        with np.load(self.folder / CLIPS, allow_pickle=False) as stored:
            targets, folds = stored["targets"], tuple(stored["folds"])
        stores = {(place, hz): setting for place, hz, setting in told["stores"]}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told["space"].items()}
        plans = [{**plan, "input_size": tuple(plan["input_size"])} for plan in told["space"]["extractors"]]
        space = Space(**{**values, "extractors": tuple(Extractor(**plan) for plan in plans)})
        root = next((path for path in (Path(told["root"]), cache_folder("features")) if path.is_dir()), None)
        root = root or Path(told["root"])
        pool = Pool(root, stores, tuple(told["keys"]), targets, folds, told["max_frames"], told["device"])
        trials = ClipTrials(space, pool)
        trials.check()
        return trials


class SharedWorkers:
    """``Workers`` of this process, and whoever joined the run."""

    def __init__(self, trials: Trials, count: int, board: Board) -> None:
        self.own, self.board = Workers(trials, count), board
        self._waiting: dict[str, tuple[Job, Future[Outcome]]] = {}  # number -> trial that others may take
        self._here: set[Future[Outcome]] = set()  # of the processes of this one
        self._seen: dict[str, tuple[str, float]] = {}  # helper -> its last sign of life, and when it was new
        self._posted = 0
        self._name = board.open(trials)

    @property
    def count(self) -> int:
        """Trials side by side, here and where others live."""
        return self.own.count + sum(json.loads(sign)["workers"] for sign in self._living().values())

    def submit(self, job: Job) -> Future[Outcome]:
        """Try a candidate as soon as a process is free, wherever."""
        future: Future[Outcome] = Future()
        if self._free():
            self._try_here(job, future)
        else:
            self._posted += 1
            number = f"{self._name}-{self._posted:06d}"
            self._waiting[number] = job, future
            told = {"candidate": asdict(job[0]) if isinstance(job[0], Candidate) else job[0], "epochs": job[1]}
            write_text(self.board.folder / f"{number}{JOB}", json.dumps(told))
        return future

    def look(self) -> float:
        """See to what others have done, and to what the dead have left; seconds until the next look."""
        taken = self.board.files(TAKEN)  # looked at before the signs of life: who takes a trial has given one
        for path in self.board.files(ALIVE):
            with contextlib.suppress(OSError):
                sign = path.read_text("utf-8")
                if sign and self._seen.get(path.stem, ("", 0.0))[0] != sign:
                    if path.stem not in self._seen:
                        say(f"{path.stem} has joined the search")
                    self._seen[path.stem] = sign, time.monotonic()
        for path in self.board.files(DONE):
            self._take(path)
        living = self._living()
        for path in taken:
            number, _, helper = path.stem.partition(".")
            if helper not in living and number in self._waiting:
                say(f"{helper} is silent: its trial is given back")
                with contextlib.suppress(OSError):
                    path.replace(self.board.folder / f"{number}{JOB}")
        for path in self.board.files(JOB):
            if self._free() and path.stem in self._waiting:
                with contextlib.suppress(OSError):  # a helper has it
                    path.unlink()
                    self._try_here(*self._waiting.pop(path.stem))
        return LOOK_S

    def close(self) -> None:
        """Drop what waits and what runs."""
        self.board.close()
        self.own.close()

    def _living(self) -> dict[str, str]:
        """The helpers that spoke lately, and what they said."""
        return {name: sign for name, (sign, when) in self._seen.items() if time.monotonic() - when < LOST_S}

    def _free(self) -> bool:
        self._here = {future for future in self._here if not future.done()}
        return len(self._here) < self.own.count

    def _try_here(self, job: Job, future: Future[Outcome]) -> None:
        def finished(inner: Future[Outcome]) -> None:
            if inner.cancelled():
                future.cancel()
            elif error := inner.exception():
                future.set_exception(error)
            else:
                future.set_result(inner.result())

        inner = self.own.submit(job)
        self._here.add(inner)
        inner.add_done_callback(finished)

    def _take(self, path: Path) -> None:
        """The outcome of a trial: counted if its trial still waits."""
        number = path.stem.partition(".")[0]
        told = json.loads(path.read_text("utf-8"))
        if number in self._waiting:
            _, future = self._waiting.pop(number)
            future.set_result(Outcome(**told))
        for left in (path, path.with_suffix(TAKEN), self.board.folder / f"{number}{JOB}"):
            left.unlink(missing_ok=True)


class Helper:
    """A process that tries what the leader of a run lays out.

    Args:
        workers: trials side by side.
        trials: of other data than clips, as this process finds them, by the identity of the search.
    """

    def __init__(self, board: Board, workers: int, trials: Callable[[str], Trials] | None = None) -> None:
        self.board, self.count, self.tried, self.trials = board, 1 if trials else workers, 0, trials
        self.name = f"{platform.node().replace('.', '-') or 'machine'}-{os.getpid()}-{uuid.uuid4().hex[:4]}"
        self._workers: Workers | None = None
        self._search = ""
        self._running: dict[Future[Outcome], Path] = {}
        self._beats, self._spoke = 0, -BEAT_S

    def step(self) -> None:
        """Take trials, and leave the outcomes of those that are done.

        Raises:
            DataError: the leader runs another version, or its features are not seen here.
        """
        told = self.board.search()
        if told is None or told["search"] != self._search:
            self.stop()
        if told is None:
            return
        if self._workers is None:
            if told["version"] != version("vidlet"):
                raise DataError(
                    f"{self.board.run}: the search is led by vidlet {told['version']}, this machine has "
                    f"{version('vidlet')}: install the same"
                )
            if ("identity" in told) != (self.trials is not None):
                raise DataError(f"{self.board.run}: the search is over other data than those given here")
            try:
                given = self.trials(told["identity"]) if self.trials else self.board.given(told)
            except FileNotFoundError:  # it ends, or begins anew, just now
                return
            self._workers, self._search = Workers(given, self.count), told["search"]
        self._speak()
        for future in [future for future in self._running if future.done()]:
            outcome = future.result()
            taken = self._running.pop(future)
            if taken.exists():  # else it was given back
                write_text(taken.with_suffix(DONE), json.dumps(asdict(outcome)))
            self.tried += 1
        for path in self.board.files(JOB):
            if len(self._running) >= self.count:
                break
            taken = path.with_name(f"{path.stem}.{self.name}{TAKEN}")
            with contextlib.suppress(FileNotFoundError):  # another has it
                path.replace(taken)
                job = json.loads(taken.read_text("utf-8"))
                tried = job["candidate"]
                tried = Candidate(**tried) if isinstance(tried, dict) else tried
                self._running[self._workers.submit((tried, job["epochs"]))] = taken

    def stop(self) -> None:
        """Drop what runs; it is given back."""
        if self._workers is not None:
            self._workers.close()
        for taken in self._running.values():
            with contextlib.suppress(OSError):
                taken.replace(taken.with_name(taken.name.partition(".")[0] + JOB))
        (self.board.folder / f"{self.name}{ALIVE}").unlink(missing_ok=True)
        self._workers, self._running, self._search = None, {}, ""

    def _speak(self) -> None:
        if time.monotonic() - self._spoke < BEAT_S:
            return
        self._beats, self._spoke = self._beats + 1, time.monotonic()
        with contextlib.suppress(FileNotFoundError):  # the folder of a search that is over
            write_text(
                self.board.folder / f"{self.name}{ALIVE}", json.dumps({"workers": self.count, "beat": self._beats})
            )


@contextlib.contextmanager
def leading(run: Path, workers: int, trials: Callable[[str], Trials] | None = None) -> Iterator[Board | None]:
    """Help the search in a run until nobody leads it; then lead it, or None where it is over. See ``Helper``.

    Raises:
        TrainingError: it ended without a model. DataError: this machine cannot help; what it had is given back.
    """
    board, lock = Board(run), Lock(run)
    helper = Helper(board, workers, trials)
    try:
        if waited := not lock.acquire():
            with working(f"help with the search in {run}"):
                while not lock.acquire():
                    helper.step()
                    time.sleep(LOOK_S)
    finally:
        helper.stop()
    try:
        if Lock(run).acquire():
            raise DataError(f"{run}: this disk does not lock folders, which --join needs; take another, or no --join")
        over = board.over
        if over == "":
            say(f"{run}: the search is over; {helper.tried} trials were tried here")
            yield None
            return
        if over and waited:
            raise TrainingError(f"{run}: the search has ended: {over}")
        try:
            yield board
        except VidletError as error:
            board.end(str(error))
            raise
        shutil.rmtree(board.folder, ignore_errors=True)
    finally:
        lock.release()
