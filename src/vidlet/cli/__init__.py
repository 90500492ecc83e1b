"""The command line: one file a command, each parses, calls one job and prints.

Importing this costs nothing; a command's module, and what is heavy in it, is imported when the command runs.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import importlib
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from ..errors import VidletError
from ..progress import let_the_first_speak
from ..wording import as_json, shown, shown_lines

COMMANDS = {
    "demo": ("demo_command", "the whole story on the built-in data, no download"),
    "record": ("record_command", "clips for class folders, before a camera or cut from a long video"),
    "data": ("data_command", "what was understood of labelled clips, and what is wrong with them"),
    "label": ("label_command", "pictures with boxes from videos that nobody labelled, by a detector that knows more"),
    "train": ("train_command", "train a classifier from labelled clips: one file, its int8 twin, a report"),
    "fit": ("fit_command", "the best model that fits a budget of bytes, milliseconds and memory, with the evidence"),
    "compress": ("compress_command", "one more file of a run, made smaller by a chain of steps"),
    "ensemble": ("ensemble_command", "the best ensemble of model files that fits a byte limit, as one file"),
    "evaluate": ("evaluate_command", "accuracy of a model file on labelled clips"),
    "compare": ("compare_command", "runs in one table: accuracy with intervals, bytes, times, differences in pairs"),
    "sweep": (
        "sweep_command",
        "recipes, values and chains, or several budgets, of the same data: one table of all files",
    ),
    "fuse": ("fuse_command", "accuracy of several files together, as on pictures and on optical flow"),
    "predict": ("predict_command", "label a video, a folder or a camera: a timeline of segments"),
    "segment": ("segment_command", "cut a video into pieces that are alike within, without labels"),
    "export": (
        "export_command",
        "a trained model checked and written again, as a page or for darknet, or a .tflite as ONNX",
    ),
    "push": ("push_command", "a run's model files to Hugging Face's hub, with a card made of their evidence"),
    "benchmark": ("benchmark_command", "latency, frames/s, peak memory and bytes of a model file"),
    "inspect": ("inspect_command", "what is inside a model file, tensor by tensor, byte by byte"),
    "extract": ("extract_command", "compute what train needs of each clip, once; go on where it was stopped"),
    "models": ("models_command", "ready models: what there is, what was measured of each; fetch one by its name"),
    "recipes": ("recipes_command", "the built-in recipes, by task: what each is, in a sentence"),
    "completion": ("completion_command", "a script that lets the shell complete commands, options and recipes"),
    "papers": ("papers_command", "the papers' tables: what they print, what our code recomputes, what we measured"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 the input is wrong, 1 our mistake, 130 interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called (>&-)
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that are not text end nothing
    words = list(sys.argv[1:] if argv is None else argv)
    with _escaped_output(), _without_chatter():
        return _run(words)


def program() -> int:
    """``main`` as the program itself: when all is said the process ends at once.

    To take apart what torch and its kin left in memory takes a second of processor, on a busy machine many. Whatever
    was registered for the end of the process runs before.
    """
    status: list[int] = []
    atexit.register(lambda: _leave(*status))  # what is registered first is called last
    status.append(main())
    return status[0]


def _leave(status: int | None = None) -> None:
    if status is not None:  # else an error of ours is under way
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _run(words: list[str]) -> int:
    parser = _parser(words)
    args = parser.parse_args(words)
    args.words = words
    if not args.command:
        parser.print_help()
        return 0
    try:
        from .before_work import check_paths, check_processes

        check_processes(args.command)
        check_paths(args)
        _with_rate(args)
        with _stopped_politely(), _never_silent(args.command):
            result = args.run(args)
        if args.json and result is not None:
            print(as_json(result))
        sys.stdout.flush()
        return 0
    except VidletError as error:
        return _say(f"{type(error).__name__}: {error}", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _USERS_DISK:
            where = error.filename2 or error.filename or args.command  # of a copy the second is what is written
            return _say(f"DataError: {where}: {os.strerror(error.errno or 0)}", 2)
        raise
    except KeyboardInterrupt:
        return _say(f"interrupted; what was finished is kept{_how_to_go_on(args)}", 130)


def _never_silent(command: str) -> contextlib.AbstractContextManager[None]:
    """Where nobody sees bars, a line now and then, whatever a command does; ``predict`` speaks as it goes."""
    from ..progress import working

    return contextlib.nullcontext() if command == "predict" else working(command, plain_only=True)


_USERS_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS}
_USERS_DISK |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="vidlet",
        description="Compact video classifiers: train from a folder of clips, compress, ship one file.",
        epilog="examples:\n  vidlet train clips/ --out runs/a\n  vidlet predict runs/a/model.int8.onnx clip.mp4\n\n"
        "vidlet COMMAND --help says what a command takes." + ("" if set(words) - _HELP else _added()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    wanted = next((w for w in words if not w.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name != wanted:
            continue
        command = importlib.import_module(f"{__name__}.{module}")
        command.add_arguments(sub)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.epilog = (sub.epilog or command.EXAMPLE) + (_added() if set(words) & _HELP else "")
        sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
        sub.set_defaults(run=command.run)
    return parser


_HELP = {"-h", "--help"}


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of one command, with all of its options."""
    group = next(action for action in _parser([command])._actions if isinstance(action.choices, dict))
    return cast(argparse.ArgumentParser, cast(dict[str, Any], group.choices)[command])


def _added() -> str:
    """What registered code and installed packages add, for the end of a help text."""
    from .. import plugins

    lines = [f"  {kind}: {', '.join(found)}" for kind in plugins.KINDS if (found := plugins.names(kind))]
    return "\n".join(["\n\nadded from outside:", *lines]) if lines else ""


class _OneLineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; its commands' parsers are of the same class."""

    def error(self, message: str) -> NoReturn:
        let_the_first_speak()
        self.exit(2, f"{self.prog}: {shown(' '.join(message.split()))} (see {self.prog} --help)\n")


def _with_rate(args: argparse.Namespace) -> None:
    """Let DATA carry its --fps."""
    if getattr(args, "fps", None) is not None and getattr(args, "data", None):
        from ..datasets import AtRate

        args.data = AtRate(args.data, args.fps)


def _version() -> str:
    from importlib.metadata import version

    return f"vidlet {version('vidlet')}"


def _say(line: str, status: int) -> int:
    let_the_first_speak()
    print(shown(" ".join(line.split())), file=sys.stderr)
    return status


def _how_to_go_on(args: argparse.Namespace) -> str:
    if args.command == "sweep":
        return "; the same command goes on"
    return "; go on with --resume" if hasattr(args, "resume") else ""


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Libraries' warnings, which tell developers of their own source, are left out; what fails is raised as ever.

    What is about this package is told all the same. ``without_remarks`` holds back what is said past Python.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of processes that work for this one, too
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # of one that was ended on purpose
    last = logging.lastResort
    level = last.level if last else logging.WARNING
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(?!vidlet\b)")
        if last:
            last.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if last:
                last.setLevel(level)


@contextlib.contextmanager
def _stopped_politely() -> Iterator[None]:
    """What is stopped by SIGTERM ends as by Ctrl-C: what is finished is kept, and how to go on is said."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: who called us decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Escaping:
    """Standard output whose texts can neither move a terminal's cursor nor fail for a name that is not UTF-8."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        encoding = getattr(self._to, "encoding", None) or "utf-8"
        self._to.write(shown_lines(text).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)


@contextlib.contextmanager
def _escaped_output() -> Iterator[None]:
    """Inside of this, what is printed cannot command the terminal, whatever labels and names hold."""
    before = sys.stdout
    sys.stdout = cast(TextIO, _Escaping(before))
    try:
        yield
    finally:
        sys.stdout = before
