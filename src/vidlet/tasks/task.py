"""What a task is: one record of plain functions for a kind of data and of model, and another for its networks.

A command asks once which task it is about (``task_of_...`` in this room's ``__init__``) and then calls the record's
functions. Everything in ``Task`` works where torch is not installed. ``Task.networks`` imports torch and gives the
functions that build, train, compress and write.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..datasets import BoxTable, ClipTable
from ..errors import DataError, VidletError
from ..files import write_text
from ..progress import megabytes, say, working
from ..runs import PREDICTIONS, REPORT, RunFolder, choose, write_evidence
from ..runtime import Model, load

if TYPE_CHECKING:
    from .networks import Networks
    from .predictions import Wanted

Table = TypeVar("Table", ClipTable, BoxTable)
Scored = TypeVar("Scored")
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class DataSource:
    """The user's DATA argument and how it is to be read.

    Args:
        fold: "I/K" for fold I (from 0) of a K-fold by group; None: the splits of the data, or ours where it has none.
        strict: what cannot be used is an error, not a note.
        names: the classes of a model that is to be scored on the data.
        val_shards: so many shards of records, drawn at random, validate, and all others that are not test train.
    """

    path: str | Path
    fold: str | None = None
    strict: bool = False
    names: tuple[str, ...] = ()
    val_shards: int | None = None


@dataclass(frozen=True)
class Task(Generic[Table, Scored]):
    """What a command does differently for clips, for images with boxes and for records of stored features.

    Attributes:
        unit: what a table has many of: "clip" or "image". Its plural is a key of metrics and evidence.
        read: the data with a split for each clip or image.
        check: refuses a table of which nothing can be trained.
        inspect: (path, strict, workers, progress) -> a report on the data, with ``to_dict``.
        score: (model, table, strict) -> what the model says of each clip or image.
        summarize: (scored, model) -> the figures of a model file, as ``evaluate`` returns them.
        figures: (model, table, strict) -> the same without the scores of all clips at once.
        listing: the file that lists what was said, and ``to_csv``: file name -> scored, as its text.
        differ: (scored, other scored on the same table) -> "difference" in pairs, and what else compares two files.
        headline: which of a file's figures stand at the top of metrics.json, and ``evidence``: which in the file.
        line: (figures) -> the quality of a file in a few words.
        report: (run, metrics, log, scored, table, data) writes report.html.
        remarks: (table) -> what else metrics.json tells of the data.
        view: (report on the data, path) draws a page of the data; None where there is nothing to draw.
        sample: (model, table, inputs) -> a few frames or codes as the model takes them, to hold a joint file to its
            members; None where files are not joined.
        compare: (model, other, table, names, strict, report) -> figures of ``evaluate --against``; None where two
            files cannot be set beside each other.
        predict: (model, source, wanted) -> what the model says of a source, a dict at a time.
        networks: imports what trains, and returns it.
        refuses: option of a command -> why it makes no sense here.
    """

    name: str
    unit: str
    read: Callable[[DataSource], Table]
    check: Callable[[Table], None]
    inspect: Callable[..., Any]
    score: Callable[[Model, Table, bool], Scored]
    summarize: Callable[[Scored, Model], dict[str, Any]]
    figures: Callable[[Model, Table, bool], dict[str, Any]]
    to_csv: Callable[[Mapping[str, Scored]], str]
    differ: Callable[[Scored, Scored], dict[str, Any]]
    headline: Callable[[Figures], Sequence[str]]
    evidence: Callable[[Figures], Sequence[str]]
    line: Callable[[Figures], str]
    report: Callable[..., None]
    predict: Callable[[Model, str | Path, Wanted], Iterator[dict[str, Any]]]
    networks: Callable[[], Networks[Table, Any]]
    listing: str = PREDICTIONS
    sample: Callable[[Model, Table, Sequence[str]], Any] | None = None
    compare: Callable[..., dict[str, Any]] | None = None
    view: Callable[[Any, str | Path], None] | None = None
    remarks: Callable[[Table], dict[str, Any]] = lambda table: {}
    refuses: Mapping[str, str] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """The plural of ``unit``."""
        return f"{self.unit}s"

    def counts(self, table: Table) -> str:
        """How many clips or images of which splits, and of how many classes."""
        parts = [f"{len(table.of_split(split))} {split}" for split in ("train", "val", "test")]
        return f"{', '.join(parts)} {self.counted} of {len(table.labels)} classes"

    def check_options(self, error: type[VidletError], **given: object) -> None:
        """Refuse options that were given and make no sense for this task.

        Raises:
            VidletError: of the class ``error``, with the reason.
        """
        for option, value in given.items():
            if value and option in self.refuses:
                raise error(self.refuses[option])

    def scored_split(self, table: Table, split: str | None = None) -> tuple[str, Table]:
        """See :func:`scored_split`."""
        return scored_split(table, split, self.counted)

    def score_files(
        self, run: RunFolder, names: Sequence[str], table: Table, strict: bool = False, listing: str = ""
    ) -> tuple[dict[str, Any], dict[str, Scored]]:
        """Score every file of a run on the same table; the others are compared with the first in pairs.

        Args:
            listing: the file that lists what each file said; "": the task's own.

        Returns:
            metrics with a section a file under "files" and the first file's headline, and what each file said.
        """
        metrics: dict[str, Any] = {"files": {}}
        scored: dict[str, Scored] = {}
        for name in names:
            with working(f"score {name}"):
                model = load(run / name, threads=1)
                scored[name] = self.score(model, table, strict)
            metrics["files"][name] = self.summarize(scored[name], model)
        write_text(run / (listing or self.listing), self.to_csv(scored))
        for name in names[1:]:
            found = self.differ(scored[name], scored[names[0]])
            found["difference"] |= {"against": names[0]}
            metrics["files"][name] |= found
        for key in self.headline(metrics["files"][names[0]]):
            metrics[key] = metrics["files"][names[0]][key]
        return metrics, scored

    def write_evidence(
        self, run: RunFolder, names: Sequence[str], metrics: dict[str, Any], table: Table, command: str
    ) -> None:
        """See :func:`vidlet.runs.write_evidence`."""
        write_evidence(run, names, metrics, self.evidence, table, command, self.counted)

    def say_next(self, run: RunFolder) -> None:
        """Say which file to ship, and why, where the report is and what to do next."""
        say(f"ship    {choose(run).line()}")
        say(f"report  {run / REPORT}")
        say(f"next    vidlet predict {shlex.quote(str(run))} {'RECORDS' if self.name == 'records' else 'VIDEO'}")

    def say(self, run: RunFolder, metrics: Mapping[str, Any], names: Sequence[str]) -> None:
        """Say in one line what was made, where, how large it is and how good."""
        files = metrics["files"]
        parts = [f"{name} {megabytes(metrics['bytes'][name])}, {self.line(files[name])}" for name in names]
        say(f"{run}: {'; '.join(parts)} on {files[names[0]][self.counted]} {metrics['split']} {self.counted}")


def scored_split(table: Table, split: str | None = None, counted: str = "clips") -> tuple[str, Table]:
    """The split to score and its clips or images: "all", the one asked for, or None: test, else val.

    Raises:
        DataError: there are none.
    """
    for name in (split,) if split else ("test", "val"):
        chosen = table if name == "all" else table.of_split(name)
        if len(chosen):
            return name, chosen
    raise DataError(f"{table.root}: no {counted} in split {split or 'test or val'}")
