"""The networks of a task: how they are built, trained, read from a run and turned into files. All of it needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..datasets import Background, BoxTable, ClipTable
from ..metrics import Rejection
from ..progress import working
from ..recipe import Recipe, Training
from ..runs import RunFolder
from ..runtime import Model
from ..training.team import ALONE, Team

if TYPE_CHECKING:
    from ..compression import Chain
    from ..training import Progress
    from .transfer import Start

Table = TypeVar("Table", ClipTable, BoxTable)
Network = TypeVar("Network")


class FileWriter(Protocol):
    """Turns trained networks of one recipe and one table into model files."""

    def write(self, trained: Any, chain: Chain, path: Path, temperature: float | None = None) -> Any:
        """Compress a network by a chain and write it; returns the network as the file has it."""
        ...


class Prepared(Protocol):
    """Training and validation data as the loop takes them."""

    @property
    def train(self) -> Any:
        """What is trained on."""
        ...

    @property
    def val(self) -> Any:
        """What validates."""
        ...

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """(path, error) of what could not be read."""
        ...


@dataclass(frozen=True)
class Order(Generic[Table]):
    """One training that is asked for.

    Args:
        training: the recipe's, or another length of it.
        folder: gets checkpoint, log and weights.
        identity: hash of recipe, data and everything else that determines the result.
        start: the run whose weights this one begins from.
        teachers: files whose answers are learned beside the labels.
        title: what the progress bar says.
        report: called after each epoch with its row of the log and the number of epochs in all.
        team: the processes that train together; the first one writes.
    """

    plan: Recipe
    training: Training
    table: Table
    folder: RunFolder
    identity: str
    device: str = "cpu"
    resume: bool = False
    strict: bool = False
    start: Start | None = None
    teachers: tuple[Model, ...] = ()
    title: str = "train"
    report: Callable[[dict[str, float], int], None] | None = None
    team: Team = ALONE


@dataclass(frozen=True)
class Networks(Generic[Table, Network]):
    """The functions of a task that need torch.

    Attributes:
        find_chain: (text, recipe) -> the compression steps of a chain; a RecipeError where there are none such.
        check: (recipe) refuses a training that cannot be, before any data are read.
        choose: (recipe, table, run, device, resume) -> the recipe with a head, where it leaves that to measuring, and
            what was measured (metrics.json, ``selection``); else the recipe and nothing.
        baselines: (recipe, table, network, prepared, scored clips, file -> its scores) -> how plain classifiers do on
            the same clips, and how the files stand to the best of them (metrics.json); nothing where there are none.
        reject: (recipe, table, network, prepared, background, product, what the choice held out) -> the threshold to
            ship and the background that it was found by; None where nothing says how "none of these" looks.
        doubt: (table, prepared) -> the training clips whose label is doubted most, by models that have not seen them.
        resolve: (recipe, table, device, overrides) -> the recipe as it is for these data and this machine.
        build: (recipe, table, start) -> an untrained network, the same for the same seed.
        prepare: (recipe, table, network, strict) -> its training and validation data.
        advise: (recipe, table, network, prepared, device) says what a person should know before a long training, and
            returns it.
        fit: (network, prepared, order) trains it in place and leaves its weights in the order's folder.
        open: (run, recipe, table) -> the trained network of a finished run.
        writer: (recipe, table, network, prepared, device) -> what makes files of it; steps that train do so there.
    """

    find_chain: Callable[[str, Recipe], Chain]
    check: Callable[[Recipe], None]
    choose: Callable[[Recipe, Table, RunFolder, str, bool], tuple[Recipe, dict[str, Any]]]
    baselines: Callable[[Recipe, Table, Network, Any, Table, Mapping[str, Any]], dict[str, Any]]
    reject: Callable[..., tuple[Rejection, Background] | None]
    doubt: Callable[[Table, Any], list[dict[str, Any]]]
    resolve: Callable[[Recipe, Table, str, Mapping[str, Any]], Recipe]
    build: Callable[[Recipe, Table, Start | None], Network]
    prepare: Callable[[Recipe, Table, Network, bool], Any]
    advise: Callable[[Recipe, Table, Network, Any, str], list[str]]
    fit: Callable[[Network, Any, Order[Table]], Progress]
    open: Callable[[RunFolder, Recipe, Table], Network]
    writer: Callable[[Recipe, Table, Network, Any, str], Any]


def write_files(
    writer: FileWriter,
    trained: Any,
    chains: Sequence[Chain],
    run: RunFolder,
    stem: str = "model",
    temperature: float | None = None,
) -> list[str]:
    """Write the float32 file of a network and one for each chain; return their names.

    Args:
        stem: what the names begin with, before the chain.
        temperature: None: the one that fits the validation clips best.
    """
    from ..compression import file_name

    names = []
    for chain in ((), *(chain for chain in chains if chain)):
        names.append(file_name(chain, stem))
        with working(f"write {names[-1]}"):
            writer.write(trained, chain, run / names[-1], temperature)
    return names
