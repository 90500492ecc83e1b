"""What can be refused before any work begins, and before anything heavy is imported: paths that are not there."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ..cloud import is_address
from ..errors import DataError, ExportError, ModelError, RecipeError, TrainingError, WeightsError, why
from ..progress import started_by_torchrun
from ..recipe import Recipe, check_steps, load_end_to_end, load_recipe, nearest
from ..wording import shown

POSITIONAL = ("data", "model", "models", "source", "run_folder", "runs")
NEEDED = ("init", "teacher", "against", "device", "extractor", "runtime", "detector", "stream", "merge")
READ = (*POSITIONAL, *NEEDED, "none", "recipe")  # the last two may be names, too
WRITTEN = ("out", "save", "csv", "report", "record", "join")  # options that name what a command writes
SOME_TENSOR = re.compile(r"(?<=\.onnx):|(?<=\.tflite):")
WATCHING = ("predict", "record", "label", "segment")  # their source is a path, a camera or an address
REACHING = {"data": ("data", "evaluate", "extract", "fit", "train"), "out": ("extract", "fit", "train")}  # see cloud.py


def check_processes(command: str) -> None:
    """Refuse to do the work of one process several times over.

    Raises:
        DataError: torchrun started several, of a command that is not trained together.
    """
    if command != "train" and started_by_torchrun():
        raise DataError(f"vidlet {command}: is one process's work; of the commands torchrun is for train alone")


def check_paths(args: argparse.Namespace) -> None:
    """Refuse input that does not exist and output that cannot be written.

    Raises:
        VidletError: the first such path, with the nearest name that exists.
    """
    given = vars(args)
    for option in (*READ, *WRITTEN):
        if any(not str(path).strip() for path in _several(given.get(option))):
            name = option.upper() if option in POSITIONAL else f"--{option}"
            raise DataError(f"{name}: an empty path (a variable of the shell that is not set?)")
    for option in ("data", *WRITTEN):
        for path in _several(given.get(option)):
            if is_address(path) and args.command not in REACHING.get(option, ()):
                raise DataError(f"{option} {shown(path)}: vidlet {args.command} takes no address here, only a path")
    streams = given.get("stream") or []
    for path in (*_several(given.get("data")), *(data for _, data in streams)):
        if not is_address(path):
            _there(path, "no such folder or table", DataError)
    files = [*_several(given.get("model")), *_several(given.get("models")), *(model for model, _ in streams)]
    for path in (*files, *(_several(given.get("against")) if args.command == "evaluate" else ())):
        if "://" not in path:
            _there(path, "no such file or run, and no ready model", ModelError, names=_ready)
    if args.command == "compare":
        for path in (*args.runs, *_several(args.against)):
            if args.data is None:
                _there(path, "no such run; give --data DATA for files", DataError)
            elif "://" not in path:
                _there(path, "no such file or run, and no ready model", ModelError, names=_ready)
    if args.command == "export" and given.get("source") and "://" not in args.source:
        _there(args.source, "no such file or run, and no ready model", ExportError, names=_ready)
    if given.get("source") and args.command in WATCHING:
        _check_source(given["source"])
    if given.get("run_folder"):
        _there(given["run_folder"], "no such run folder", TrainingError)
    for option in ("init", "teacher"):
        for path in _several(given.get(option)):
            _there(path, "no such run folder or model file", TrainingError, f"--{option} ")
    if args.command == "fit" and given.get("device"):
        _there(args.device, "no such file; `vidlet benchmark MODEL --save FILE` writes it", RecipeError, "--device ")
    if args.command == "export" and args.labels not in (None, "coco"):
        _there(args.labels, "no such file (of classes, one a line), and not coco", ExportError, "--labels ")
    for path in _several(given.get("extractor")):
        _there(SOME_TENSOR.split(path)[0], "no such file", WeightsError, "--extractor ")
    for option in ("runtime", "detector", "merge"):
        for path in _several(given.get(option)):
            _there(path, "no such folder" + " or file" * (option == "detector"), DataError, f"--{option} ")
    for option in WRITTEN:
        if isinstance(given.get(option), str) and given[option] and not is_address(given[option]):
            _writable(Path(given[option]), _as_typed(args, option))
    _check_values(args)


def _as_typed(args: argparse.Namespace, option: str) -> str:
    """The option by the name that was typed: --save is also called --out."""
    also = option == "save" and any(re.match(r"--out(=|$)", word) for word in getattr(args, "words", ()))
    return "--out" if also else f"--{option}"


def _check_values(args: argparse.Namespace) -> None:
    """Refuse values that no data could make right, and a --none that is neither there nor a class of DATA."""
    given = vars(args)
    for recipe in _several(given.get("recipe")):
        for chain in load_recipe(recipe).compress:
            check_steps(chain)
    for chain in (*_several(given.get("steps")), *_several(given.get("chain"))):
        check_steps(chain)
    if given.get("fine_tune") not in (None, "auto", "no"):
        load_end_to_end(args.fine_tune, "--fine-tune")
    if given.get("fold") is not None:
        from ..tasks.clips import parse_fold

        parse_fold(given["fold"])
    if given.get("shard") is not None:
        from ..features.shards import Shard

        Shard.parse(given["shard"])
    if args.command == "ensemble":
        from ..search.budget import check_quantities

        check_quantities([args.max_size])
    none = given.get("none")
    if none is not None and not os.path.exists(none) and not is_address(args.data):  # noqa: PTH110
        from ..datasets import read_table, with_background
        from ..tasks import task_of_data

        if task_of_data(args.data).name == "clips":  # others say that they have no --none
            with_background(read_table(args.data), none)


def check_pictures(data: str, recipe: Recipe | None = None) -> None:
    """Refuse a folder of images where clips are wanted, before torch is loaded; others are read when their turn comes.

    Raises:
        DataError: as ``read_table``.
    """
    from ..datasets import read_table
    from ..datasets.folders import seems_of_images
    from ..tasks import task_of_data, task_of_recipe

    if not is_address(data) and Path(data).is_dir() and seems_of_images(Path(data)):
        task = task_of_data(data) if recipe is None else task_of_recipe(recipe, data)
        if task.name == "clips":
            read_table(data)


def _several(given: object) -> Iterable[str]:
    return (
        [path for path in given if isinstance(path, str)]
        if isinstance(given, list)
        else [given]
        if isinstance(given, str)
        else []
    )


def _check_source(source: str) -> None:
    if source.lower().startswith("file://"):
        from ..video.address import as_place

        source = str(as_place(source))
    if not (source.isdecimal() or "://" in source or source.startswith("/dev/")):
        _there(source, "no such file or folder", DataError)


def _there(
    path: str, wrong: str, error: type[Exception], option: str = "", names: Callable[[], Iterable[str]] = tuple
) -> None:
    """Refuse a path that does not exist, unless it is one of the names that may stand for a path of a single word."""
    if os.path.exists(path) or any(mark in path for mark in "*?["):  # noqa: PTH110  # False for a name no file can have
        return
    folder, name = os.path.split(str(path).rstrip("/"))
    others = [] if folder or Path(name).suffix else [*names()]
    if path in others:
        return
    try:
        near = nearest(name, [*others, *os.listdir(folder or ".")])  # noqa: PTH208
    except (OSError, ValueError):
        near = ""
    raise error(f"{option}{path}: {wrong}{near}")


def _ready() -> Iterable[str]:
    from ..runs.ready import ready_names

    return ready_names()


def _writable(path: Path, option: str) -> None:
    """Refuse a path below which no file can be made; nothing is left behind."""
    try:
        folder = next(parent for parent in (path, *path.parents) if parent.exists())
        folder = folder if folder.is_dir() or folder != path else folder.parent  # a file is replaced
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise DataError(f"{option} {path}: cannot be written ({why(error)})") from error
