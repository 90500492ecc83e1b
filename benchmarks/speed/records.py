"""Reading records of frame features (YouTube-8M's TFRecords): records a second, framed with checksums, and parsed.

    OMP_NUM_THREADS=1 python benchmarks/speed/records.py [--records 2000] [--frames 240] [--rounds 5]

Drawn records of 1024 + 128 bytes a frame, in one shard in the page cache; one thread, processor time, medians of rounds
that take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vidlet.datasets.frame_record import Record
from vidlet.datasets.records import read_records, write_records
from vidlet.datasets.tfrecord import read_tfrecord

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

WIDTHS = {"rgb": 1024, "audio": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "drawn.tfrecord"
        write_records(shard, (drawn(number, args.frames) for number in range(args.records)))
        ways = {
            "framing and checksums": lambda: read_tfrecord(shard),
            "parsed and checked": lambda: read_records(shard),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, way in ways.items():
                taken[name].append(seconds(lambda way=way: sum(1 for _ in way())))
        size = shard.stat().st_size
    found = {
        f"{args.frames} frames, {name}": {
            "records_s": args.records / statistics.median(times),
            "bytes_s": size / statistics.median(times),
            "records": args.records,
        }
        for name, times in taken.items()
    }
    save(args, "records", rows_of(found), ("datasets",))
    for name, row in found.items():
        print(f"{name:40} {row['records_s']:10,.0f} records/s {row['bytes_s'] / 1e6:8,.0f} MB/s")


def drawn(number: int, frames: int) -> Record:
    """A record of random codes and three labels."""
    rng = np.random.default_rng(number)
    return Record(
        f"video {number}", tuple(rng.integers(0, 3862, 3).tolist()),
        {key: rng.integers(0, 256, (frames, width), np.uint8) for key, width in WIDTHS.items()},
    )  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    """Of the processor, of one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
