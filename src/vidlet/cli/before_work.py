"""What can be refused before any work begins, and before anything heavy is imported: paths that are not there."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ..cloud import is_address
from ..errors import DataError, ExportError, ModelError, RecipeError, TrainingError, why
from ..progress import started_by_torchrun
from ..recipe import Recipe, nearest
from ..wording import shown

POSITIONAL = ("data", "model", "models", "source", "run_folder")
READ = (*POSITIONAL, "init", "teacher", "against", "device", "extractor", "runtime", "detector")
WRITTEN = ("out", "save", "csv", "report")  # options that name what a command writes
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
    if given.get("data") and not is_address(given["data"]):
        _there(given["data"], "no such folder or table", DataError)
    for path in (*_several(given.get("model")), *_several(given.get("models"))):
        if "://" not in path:
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
    for option in WRITTEN:
        if given.get(option) and not is_address(given[option]):
            _writable(Path(given[option]), f"--{option}")


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
