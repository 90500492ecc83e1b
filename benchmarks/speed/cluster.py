"""Features of a folder of clips by two actors of a Ray cluster beside two plain processes: clips a second, their ratio.

Each round extracts the same clips into new stores, in turns: both ways have one thread a worker, and begin when all
workers are ready. ``cpu_ms`` is processor time a clip of all processes that take part, Ray's own included, which says
more where the machine has other work. ``bare`` is decoding and the extractor alone, nothing stored, in one process.

    python benchmarks/speed/cluster.py ../shared/data/egogestar [--clips 48] [--rounds 5] [--recipe NAME] [--json]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from extract import material, options, tell

from vidlet.features import FeatureStore, extract, on_cluster, store_setting
from vidlet.features.cluster import begin_workers, results
from vidlet.features.extract import BATCH_FRAMES
from vidlet.runtime import open_session
from vidlet.video import read_clip

WORKERS = 2
Way = Callable[..., tuple[float, float]]  # seconds from the readiness of all workers, and of processors


def main() -> None:
    """Measure and print."""
    tell(options(__doc__, clips=48, rounds=5).parse_args(), "cluster", measure)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Medians over rounds, and of ratios within a round: Ray's clips a second, and a processor's, by the processes'."""
    table, graph, plan, extractor = material(args)
    setting = store_setting(plan.sampling, extractor.input_size, graph, extractor.feature_shape, "float16")
    ways: dict[str, Way] = {"processes": by_processes, "ray": by_ray, "bare": bare}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(args.rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                taken[name].append(ways[name](table, graph, plan.sampling, extractor.input_size, root, setting))
                stored = len(FeatureStore(root, setting)) or len(table)
            row = ", ".join(f"{value:.2f}" for value in taken[name][-1])
            print(f"{name}: {stored} clips, {row} s (of processors)", file=sys.stderr)

    def ratio(place: int, first: str = "processes", second: str = "ray") -> float:
        return statistics.median(
            own[place] / other[place] for own, other in zip(taken[first], taken[second], strict=True)
        )

    def median(name: str, place: int) -> float:
        return statistics.median(row[place] for row in taken[name])

    return {
        "clips": len(table),
        **{f"{name}_clips_s": len(table) / median(name, 0) for name in ("processes", "ray")},
        **{f"{name}_cpu_ms": 1e3 * median(name, 1) / len(table) for name in ways},
        "ratio": ratio(0),
        "ratio_cpu": ratio(1),
        "ratio_bare_cpu": ratio(1, "bare", "processes"),
    }


def bare(table: Any, graph: bytes, sampling: Any, size: Any, root: Path, setting: Any) -> tuple[float, float]:
    """Decode and compute, one clip after the other."""
    session = open_session(graph, "the extractor", 1)
    ready, worked = time.perf_counter(), time.process_time()
    for clip in table:
        frames = read_clip(clip.path, sampling, size, start_s=clip.start_s, end_s=clip.end_s).frames
        for begin in range(0, len(frames), BATCH_FRAMES):
            session.run(["features"], {"frames": frames[begin : begin + BATCH_FRAMES]})
    return time.perf_counter() - ready, time.process_time() - worked


def by_ray(table: Any, graph: bytes, sampling: Any, size: Any, root: Path, setting: Any) -> tuple[float, float]:
    """Two actors of a cluster of this machine."""
    with on_cluster(None) as ray:
        actors = begin_workers(ray, WORKERS, 1, sampling, size, root, setting)
        ready, worked = time.perf_counter(), processors()
        for _ in results(ray, actors, graph, list(enumerate(table))):
            pass
        ended, worked = time.perf_counter(), processors() - worked
    return ended - ready, worked


def by_processes(table: Any, graph: bytes, sampling: Any, size: Any, root: Path, setting: Any) -> tuple[float, float]:
    """Two processes, each with every second clip."""
    context = get_context("spawn")
    barrier, done = context.Barrier(WORKERS + 1), context.Barrier(WORKERS + 1)
    parts = [table.with_clips(list(table)[number::WORKERS]) for number in range(WORKERS)]
    started = [context.Process(target=_part, args=(barrier, done, p, graph, sampling, size, root)) for p in parts]
    for process in started:
        process.start()
    barrier.wait()
    ready, worked = time.perf_counter(), processors()
    done.wait()
    ended, worked = time.perf_counter(), processors() - worked
    done.wait()
    for process in started:
        process.join()
    return ended - ready, worked


def _part(barrier: Any, done: Any, part: Any, graph: bytes, sampling: Any, size: Any, root: Path) -> None:
    barrier.wait()
    extract(part, graph, sampling, size, root, threads=1)
    done.wait()
    done.wait()  # until it was seen how long this one worked


def processors() -> float:
    """Seconds that this process and all that it has started have worked."""
    below, ticks = {os.getpid()}, 0
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(folder.name) in below or int(words[1]) in below:
            below.add(int(folder.name))
            ticks += sum(map(int, words[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
