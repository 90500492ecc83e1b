"""Measured figures as data: a line of `benchmarks/figures/NAME.jsonl` a row; pages are filled from them.

A line says what was measured (``name``), its figures ({key: {"value", "interval"}}, a text where it is no number), the
seeds and scored clips, by which command, when, on which machine and by which code: ``code`` has a hash of each part of
src/vidlet that the benchmark says it depends on. Rows that a person carried over from a page have ``carried``: where
they stood; such a row goes when the one that is named in ``until`` is there.

A benchmark calls `add_option(parser)` and, when all is measured, `save(args, NAME, rows, PARTS)`: with `--figures` it
then writes its rows, in the place of those of the same names.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import functools
import hashlib
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "figures"
PACKAGE = ROOT / "src" / "vidlet"
TRAINED = ("video", "datasets", "features", "models", "training", "selection", "tasks", "artifact", "compression",
           "recipes", "recipe.py", "runtime", "metrics")  # fmt: skip
"""What decides the accuracy of the files of a training."""

Figure = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What was measured of one thing."""

    name: str
    figures: Mapping[str, Figure]
    seeds: Sequence[int] = ()
    clips: int = 0  # that were scored; 0: nothing was
    command: str = ""
    machine: str = ""
    date: str = ""
    commit: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    carried: str = ""
    until: str = ""

    def changed(self) -> list[str]:
        """Parts of the package that are not those any more by which this was measured."""
        return [part for part, found in self.code.items() if found != part_hash(part)]


def figure(value: float | str, low: float | None = None, high: float | None = None) -> Figure:
    """One figure, with its 95 % interval where it has one. Floats are kept to six digits."""
    found: Figure = {"value": _short(value)}
    return found if low is None or high is None else {**found, "interval": [_short(low), _short(high)]}


def rows_of(results: Mapping[str, Any], name: str = "") -> list[Row]:
    """Rows of what a benchmark prints as JSON: one for each object that holds numbers, named by the keys to it.

    What is neither a number nor a text, a list of samples or None, is left out.
    """
    kept = {key: figure(value) for key, value in results.items() if isinstance(value, (int, float, str))}
    rows = [Row(name or "all", kept)] if kept else []
    for key, value in results.items():
        if isinstance(value, Mapping):
            rows += rows_of(value, f"{name}, {key}" if name else key)
    return rows


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--figures`: keep what is measured."""
    parser.add_argument("--figures", action="store_true", help="write the rows to benchmarks/figures/ (make results)")


def save(args: argparse.Namespace, benchmark: str, rows: Iterable[Row], parts: Sequence[str]) -> None:
    """Write rows of a benchmark if `--figures` was given; a row without a command gets the one that runs."""
    if not args.figures:
        return
    code = {part: part_hash(part) for part in parts}
    about = {"machine": machine(), "date": now(), "commit": commit(), "code": code}
    made = [Row(**{**_plain(row), **about, "command": row.command or running()}) for row in rows]
    write(benchmark, made)
    print(f"{len(made)} rows written to {_path(benchmark).relative_to(ROOT)}", file=sys.stderr)


def write(benchmark: str, rows: Iterable[Row]) -> None:
    """Put rows into the file of a benchmark: in the place of those of their names, new ones at its end."""
    kept = {row.name: row for row in read(benchmark)} | {row.name: row for row in rows}
    kept = {name: row for name, row in kept.items() if row.until not in kept}
    path = _path(benchmark)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(f"{json.dumps(_plain(row), ensure_ascii=False)}\n" for row in kept.values()), "utf-8")
    part.replace(path)


def read(benchmark: str) -> list[Row]:
    """Rows of a benchmark; none where it never ran."""
    path = _path(benchmark)
    known = {entry.name for entry in fields(Row)}
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.exists() else [], 1):
        found = json.loads(line)
        if unknown := set(found) - known:
            raise SystemExit(f"{path}:{number}: unknown {', '.join(sorted(unknown))}")
        rows.append(Row(**found))
    return rows


def benchmarks() -> list[str]:
    """Names of the benchmarks that have rows."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


@functools.cache
def part_hash(part: str) -> str:
    """Hash of a file or folder below src/vidlet: of what runs, so without comments, docstrings and blank lines."""
    path = PACKAGE / part
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    hashed = hashlib.sha256()
    for file in files:
        if file.suffix == ".pyc" or not file.exists():
            continue
        content = _running_lines(file.read_text("utf-8")).encode() if file.suffix == ".py" else file.read_bytes()
        hashed.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + content)
    return hashed.hexdigest()[:8]


def _running_lines(source: str) -> str:
    """The lines of a module that do something. The rule is the same in every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def machine() -> str:
    """The processor, its cores, whether it multiplies 8-bit integers in one instruction, what else ran, and whether
    this process went before it or behind it.
    """
    name, flags = platform.processor() or platform.machine(), ""
    told = Path("/proc/cpuinfo")
    for line in told.read_text("utf-8", "replace").splitlines() if told.exists() else []:
        key, _, value = line.partition(":")
        name = value.strip() if key.strip() == "model name" else name
        flags = value if key.strip() in ("flags", "Features") else flags
    integers = [word for word in ("avx512_vnni", "avx_vnni", "asimddp") if word in flags.split()][:1]
    load = f"load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    nice = os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0
    rank = f"nice {nice}" if nice else ""
    return ", ".join(filter(None, [name, f"{os.cpu_count()} cores", *integers, rank, load]))


def now() -> str:
    """The minute, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M")


def commit() -> str:
    """Short hash of the last commit of the package, with a plus where it differs from that; empty without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("log", "-1", "--abbrev=7", "--format=%h", "--", "src") + (
            "+" if git("status", "--porcelain", "src") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def running() -> str:
    """The command that runs, as a person types it in the root of the repository; of absolute paths the last name."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    given = [word for word in sys.argv[1:] if word not in ("--figures", "--json")]
    words = [Path(word).name if Path(word).is_absolute() else word for word in given]
    threads = [f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"] if "OMP_NUM_THREADS" in os.environ else []
    return " ".join([*threads, "python", name, shlex.join(words)]).strip()


def _plain(row: Row) -> dict[str, Any]:
    """A row as JSON has it, without what it does not have."""
    return {key: value for key, value in asdict(row).items() if value or key in ("name", "figures")}


def _short(value: float | str) -> float | str:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _path(benchmark: str) -> Path:
    return FOLDER / f"{benchmark}.jsonl"
