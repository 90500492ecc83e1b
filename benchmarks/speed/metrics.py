"""GAP@20, Hit@1, PERR and MAP of a million videos of 3862 classes that come in chunks: seconds and peak memory.

Scores are drawn chunk by chunk (the 3.4 labels a video of YouTube-8M, rare classes rarer; a label's score is raised),
so that no matrix of all videos is ever made; the seconds of drawing are not counted. The memory is the highest of the
process beyond what it had before the first chunk: a chunk, the 20 highest scores of each video, and the sorting at the
end. ``--check`` compares the figures with those of one matrix, to 1e-12.

    python benchmarks/speed/metrics.py --videos 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.metrics import MultiLabelScores, multilabel_summary

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

LABELS = 3.4  # of a video, on average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=3862)
    parser.add_argument("--chunk", type=int, default=1000, help="videos at once (%(default)s)")
    parser.add_argument("--check", action="store_true", help="compare with one matrix, which must fit into memory")
    add_option(parser)
    args = parser.parse_args()
    found = measure(args.videos, args.classes, args.chunk, args.check)
    save(args, "metrics", rows_of({f"{args.videos:,} videos": found}), ("metrics",))
    print(json.dumps(found, indent=1))


def measure(videos: int, classes: int, chunk: int, check: bool) -> dict[str, Any]:
    """Seconds, bytes and the figures themselves."""
    before = peak_bytes()
    found, kept = MultiLabelScores(), []
    adding = cpu = 0.0
    for scores, labels in chunks(videos, classes, chunk):
        started, worked = time.perf_counter(), time.process_time()
        found.add(scores, labels)
        adding, cpu = adding + time.perf_counter() - started, cpu + time.process_time() - worked
        if check:
            kept.append((scores.astype(np.float64), labels))
    during = peak_bytes()
    started, worked = time.perf_counter(), time.process_time()
    figures = found.summary()
    ending, cpu = time.perf_counter() - started, cpu + time.process_time() - worked
    row = {
        "videos": videos,
        "classes": classes,
        "chunk": chunk,
        "chunks_s": round(adding, 2),
        "summary_s": round(ending, 2),
        "cpu_s": round(cpu, 2),
        "videos_per_s": round(videos / (adding + ending)),
        "peak_bytes": None if check else peak_bytes() - before,
        "peak_bytes_of_chunks": None if check else during - before,
        "one_matrix_bytes": videos * classes * 5,  # float32 scores and boolean labels
        "figures": figures,
    }
    if check:
        whole = multilabel_summary(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
        row["difference"] = max(abs(whole[key] - figures[key]) for key in whole)
        assert row["difference"] <= 1e-12, row
    return row


def chunks(videos: int, classes: int, chunk: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores float32 and labels bool, (n, K) each, of n videos at a time; hardly any score twice."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, classes + 1) ** 0.6
    share /= share.sum()
    for begin in range(0, videos, chunk):
        count = min(chunk, videos - begin)
        scores = rng.random((count, classes), np.float32)
        labels = np.zeros((count, classes), bool)
        own = rng.choice(classes, size=round(LABELS * count), p=share)
        labels[rng.integers(0, count, len(own)), own] = True
        scores[labels] = 1 - scores[labels] * rng.random(labels.sum(), np.float32) ** 4
        yield scores, labels


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
