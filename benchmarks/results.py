"""Figures that renew themselves: run benchmarks, fill the pages from their rows, say what is old.

    python benchmarks/results.py --check          # pages and data agree; which rows are old (make results-check)
    python benchmarks/results.py --pages          # write the tables of the pages anew
    python benchmarks/results.py                  # run what the present code has not measured (make results)
    python benchmarks/results.py --quick          # what of it fits into an hour (make results QUICK=1)
    python benchmarks/results.py suite --again    # only benchmarks of these names, measured or not

What was run longest ago is run first. Each run writes its rows when it ends, and trainings keep their folders: after an
interruption the same command goes on. What needs data that are not here is named and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from figures import ROOT, Row, benchmarks, read
from tables import TABLES

QUICK_MINUTES = 60
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"(<!-- figures: ([\w -]+) -->\n).*?(<!-- end of figures -->)", re.S)
DATA = "../shared/data"


@dataclass(frozen=True)
class Run:
    """A command that measures, as its rows name it; about how long it takes on one core; files that it needs."""

    benchmark: str
    command: str
    minutes: float
    needs: tuple[str, ...] = ()

    def last(self) -> str:
        """When it ran last; "" where a row of it is missing, so that it comes first."""
        return min((row.date for row in self._rows()), default="")

    def is_new(self) -> bool:
        """The code of today has measured it."""
        rows = self._rows()
        return bool(rows) and not any(row.changed() for row in rows)

    def missing(self) -> list[str]:
        """Files that it needs and that are not here."""
        return [path for path in self.needs if not (ROOT / path).exists()]

    def start(self) -> int:
        """Run it in the root of the repository; its exit status."""
        settings = dict(re.findall(r"([A-Z_]+)=(\S+) ", self.command))
        _, *words = shlex.split(plain(self.command))
        command = [sys.executable, *words, "--figures"]
        return subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=False).returncode

    def _rows(self) -> list[Row]:
        rows = read(self.benchmark)
        return [row for row in rows if plain(row.command) == plain(self.command) and not row.carried]


def plain(command: str) -> str:
    """A command without the settings of the environment before it."""
    return re.sub(r"[A-Z_]+=\S+ ", "", command)


def _speed(name: str, minutes: float, options: str = "", needs: tuple[str, ...] = ()) -> Run:
    return Run(name, f"OMP_NUM_THREADS=1 python benchmarks/speed/{name}.py {options}".strip(), minutes, needs)


def _study(name: str, minutes: float, options: str, *needs: str) -> Run:
    return Run(name, f"python benchmarks/studies/{name}.py {options}".strip(), minutes, needs)


def _labels(data: str) -> Run:
    return _study("labels", 4, f"{data} --seeds 0 1 2 --share 0.05", data)


def _suite(data: str, minutes: float, recipe: str = "auto", seeds: str = "0 1 2") -> Run:
    return _study("suite", minutes, f"{data} --recipe {recipe} --seeds {seeds}", data.partition(":")[0])


def _recipe(data: str, recipe: str, minutes: float, options: str = "--seeds 0") -> Run:
    return _study("real_clips", minutes, f"{data} --recipe {recipe} {options}", data)


def _few(data: str, clips: int, minutes: float) -> Run:
    return _study("few", minutes, f"{data} --clips {clips} --seeds 0", data.partition(":")[0])


def _fit(size: str, time: str = "10m", seed: int = 0) -> Run:
    options = f"budgets {SHREC} --sizes {size} --time {time} --workers 1 --seeds {seed}"
    return _study("fit", float(time.removesuffix("m")) + 4, options, SHREC)


def _boxes(network: str, minutes: float) -> Run:
    return _study("boxes", minutes, f"{BOXES} --only {network} --seeds 0", BOXES)


EGO, WEIZMANN, YOGA, SHREC = (
    f"{DATA}/{name}" for name in ("egogestar", "weizmann_actions", "yoga6", "shrec_depth_gestures")
)
LIPS, THETIS, BOXES = (
    f"{DATA}/{name}" for name in ("miracl_vc1_lips/words", "thetis_tennis_features", "detection/bccd")
)
LONG = f"{DATA}/samples/mmaction2_test.mp4"
WEB = "onnxruntime-web-1.30.0"  # the package of npm, unpacked in the root
FITTED = "runs/fit-benchmark/fit-256KB-seed0/model.onnx"  # of `fit.py budgets`
WHEEL = "mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
OTHERS = (
    "mobilenetv2-grid-statistics",
    "mean",
    "mobilenetv2-single",
    "tt-gru-grid",
    "tt-lstm-grid",
    "mobilenetv2-netvlad",
)
RUNS = (
    _speed("decode", 4, f"{EGO} {WEIZMANN} {YOGA} --long {LONG}", (EGO, WEIZMANN, YOGA, LONG)),
    _study("long_stream", 15, EGO, EGO),
    _speed("extractor", 1),
    _speed("extract", 2, f"{EGO} --clips 48", (EGO,)),
    _speed("models", 8, EGO, (EGO,)),
    _speed("models", 12, f"{EGO} --recipe auto", (EGO,)),
    _speed("runtime", 1, f"{EGO} --repeat 9", (EGO,)),
    _speed("phones", 2, EGO, (EGO,)),
    _speed("hands", 1, f"{FITTED} {WHEEL}", (FITTED, WHEEL)),
    _speed("live", 3, f"{EGO} --minutes 2 --kills 1", (EGO,)),
    _speed("live", 31, EGO, (EGO,)),
    _speed("browser", 3, f"--rounds 3 --frames 30 --runtime {WEB}", (WEB,)),
    _speed("records", 1),
    _speed("integer_kernels", 2, "--rounds 12"),
    _speed("recurrent_int8", 2),
    _speed("precision", 8, "--rounds 5"),
    _speed("tensor_train", 4, "linear lstm --rounds 21"),
    _speed("tensor_train", 4, "convolution --rounds 21"),
    _speed("tensor_train", 4, "network --rounds 21"),
    _speed("tt_heads", 10, "--rounds 11 --frames 60"),
    _speed("metrics", 2, "--videos 1000000"),
    _speed("netvlad_speed", 4, "--threads 1 --batches 32 --repeats 3"),
    *map(_labels, (EGO, WEIZMANN, YOGA)),
    _suite(EGO, 10),
    _suite(f"{WEIZMANN}:9", 50),
    _suite(f"{YOGA}:4", 20),
    _suite(f"{LIPS}:5", 20, seeds="0 1 2 --only-folds 0"),
    _suite(THETIS, 10),
    _suite(SHREC, 20, seeds="0"),
    *(_recipe(EGO, recipe, 3) for recipe in ("mobilenetv2-grid-gru", "mobilenetv2-grid-gru-large", *OTHERS)),
    *(_recipe(WEIZMANN, recipe, 2) for recipe in ("mobilenetv2-grid-gru", "mobilenetv2-grid-gru-large", *OTHERS)),
    *(_recipe(SHREC, recipe, 12) for recipe in ("mobilenetv2-grid-gru", *OTHERS)),
    *(_recipe(d, r, 5) for d in (EGO, WEIZMANN) for r in ("tiny-grid-gru", "mobilenetv2-gru", "mobilenetv2-lstm")),
    _recipe(SHREC, "mobilenetv2-grid-gru-large", 30, "--seeds 0 1 2"),
    _recipe(EGO, "mobilenetv2-grid-gru", 25, "--folds 5 --seeds 0 1 2"),
    *(
        _recipe(WEIZMANN, recipe, 15, "--folds 9 --seeds 0")
        for recipe in ("mobilenetv2-grid-statistics", "mobilenetv2-grid-gru")
    ),
    *(_few(EGO, clips, 3) for clips in (5, 10)),
    _few(WEIZMANN, 5, 3),
    *(_few(f"{LIPS}:5", clips, 3) for clips in (5, 10, 20, 50)),
    *(_few(SHREC, clips, 4) for clips in (5, 10, 20, 50)),
    _study("gigabyte", 8, "--updates 10 --clips 800 40 60"),
    _study("tour", 4, ""),
    Run("cost", "python benchmarks/studies/cost.py", 3),
    *(_fit(size) for size in ("64KB", "256KB", "1MB", "4MB")),
    *(_fit(size, seed=seed) for size in ("256KB", "1MB") for seed in (1, 2)),
    *(_fit("256KB", "5m", seed) for seed in (0, 1, 2)),
    *(_boxes(network, m) for network, m in (("tiny-yolov2-0.25", 6), ("mobilenetv2-boxes", 12), ("fit-1MB", 16))),
    _boxes("tiny-yolov2-0.5", 25),
    Run(
        "none",
        f"OMP_NUM_THREADS=1 python benchmarks/studies/none.py {EGO} {WEIZMANN}:3 {YOGA}:4 --unseen {SHREC} {LIPS}",
        60,
        (EGO, WEIZMANN, YOGA, SHREC, LIPS),
    ),
)
"""What `make results` runs: each command as its rows name it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", metavar="NAME", help="benchmarks to run; default: all")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--pages", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true", help="also what the present code has measured")
    args = parser.parse_args()
    if args.check:
        return check()
    if not args.pages:
        failed = run(due(RUNS, args.only, args.again, args.quick))
        fill()
        return failed
    fill()
    return 0


def filled(text: str) -> str:
    """A page with its tables as the data have them."""
    return _BLOCK.sub(lambda found: found[1] + TABLES[found[2]].text() + found[3], text)


def fill() -> int:
    """Write the pages anew; how many changed."""
    changed = 0
    for page in PAGES:
        text = page.read_text("utf-8")
        if (new := filled(text)) != text:
            page.write_text(new, "utf-8")
            print(f"{page.relative_to(ROOT)} written anew")
            changed += 1
    return changed


def check() -> int:
    """1 where a page does not say what the data say, or a table is shown nowhere; what is old is only told."""
    texts = {page: page.read_text("utf-8") for page in PAGES}
    differing = [page.relative_to(ROOT).as_posix() for page, text in texts.items() if filled(text) != text]
    shown = {found[2] for text in texts.values() for found in _BLOCK.finditer(text)}
    for page in differing:
        print(f"{page} does not say what benchmarks/figures/ says: python benchmarks/results.py --pages writes it anew")
    for lost in (missing := sorted(set(TABLES) - shown)):
        print(f"the table {lost!r} of benchmarks/tables.py stands on no page")
    for line in stale():
        print(line)
    return int(bool(differing or missing))


def stale() -> list[str]:
    """A line a benchmark and reason for rows that were measured by other code than today's."""
    lines = []
    for benchmark in benchmarks():
        found: dict[str, list[str]] = {}
        for row in read(benchmark):
            if row.carried:
                found.setdefault("carried over from a page", []).append(row.name)
            elif changed := row.changed():
                found.setdefault(f"{', '.join(changed)} changed since {row.date[:10]}", []).append(row.name)
        for reason, names in found.items():
            some = "; ".join(names[:3]) + ("; ..." if len(names) > 3 else "")
            lines.append(f"old: {benchmark}, {len(names)} rows ({some}): {reason}")
    return lines


def due(runs: Iterable[Run], only: list[str], again: bool, quick: bool) -> list[Run]:
    """What is to be run, what ran longest ago first; ``quick``: as much of it as fits into an hour."""
    wanted = [found for found in runs if not only or found.benchmark in only]
    for found in wanted:
        if missing := found.missing():
            print(f"left out, {', '.join(missing)} is not here: {found.command}")
    wanted = [found for found in wanted if not found.missing() and (again or not found.is_new())]
    chosen, minutes = [], 0.0
    for found in sorted(wanted, key=Run.last):
        if not quick or minutes + found.minutes <= QUICK_MINUTES:
            chosen.append(found)
            minutes += found.minutes
    return chosen


def run(runs: list[Run]) -> int:
    """Run one after the other; 1 where one failed."""
    failed = 0
    for number, found in enumerate(runs, 1):
        print(f"{number} of {len(runs)}, about {found.minutes:g} minutes: {found.command}", flush=True)
        if status := found.start():
            print(f"it ended with {status}: {found.command}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
