"""What cannot be run here: hours and money for a million clips, and for YouTube-8M's records, by 1 to 1,000 workers.

Pieces are measured on one thread (seconds of processor: a clip to frames, frames to features, a key, a part of the
store, a row of the table, a key of the index, an epoch of the head); a model adds them up, in which what is not
measured here (disk, network, price, bytes of a clip) is an option. Its check: `vidlet extract --shard K/N` for 1, 2 and
4 shards of drawn clips, one process after the other, so that each has the processor for itself; measured is the slowest
of the N, as on N machines. The training of records is the row of gigabyte.py, with all that was around it.

    python benchmarks/studies/cost.py --figures                # two minutes of a core, and the weights of MobileNetV2
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import ROOT, Row, add_option, figure, read, save

RECIPE, SECONDS, FPS, SIZE = "mobilenetv2-grid-gru", 10, 25, (240, 320)
PARTS = ("video", "datasets", "features", "models", "recipes", "recipe.py", "runtime", "jobs/extract.py")
WORKERS = (1, 10, 100, 1000)
RECORDS, RECORD_BYTES, RECORD_EPOCHS, BATCH = 3_900_000, 250_000, 5, 160  # YouTube-8M's training set of 2018
GRADIENT_BYTES = 575e6  # of K32-H1024 in float32


@dataclass(frozen=True)
class Pieces:
    """Seconds of a processor, measured here."""

    start_s: float  # a process, until its first clip
    decode_s: float  # a clip of ten seconds, 320 x 240, sampled 8 times a second
    extract_s: float  # the features of those frames
    store_s: float  # the clip's key, and its row in a part of the store
    row_s: float  # a row of the table: read, named, and given to a shard
    look_s: float  # a key in the index of a store
    train_s: float  # a clip, for an epoch of the head
    record_s: float  # a record, for an epoch of K32-H1024
    feature_bytes: float  # of a clip in the store

    @property
    def clip_s(self) -> float:
        """All of a clip."""
        return self.decode_s + self.extract_s + self.store_s


@dataclass(frozen=True)
class Place:
    """What is assumed of the machines; a worker is one core."""

    core_hour: float = 0.04
    clip_bytes: float = 1e6
    worker_bytes_s: float = 1.25e8  # of a worker's network
    disk_bytes_s: float = 2e9  # of the storage that all share
    rows: int = 1_000_000
    epochs: int = 30


def extraction(pieces: Pieces, place: Place, workers: int) -> dict[str, float]:
    """Seconds of the stages of N workers on shards; each reads the whole table, then does its part.

    Shards are drawn by names, so the largest has about sqrt(2 n ln N) clips more than the mean of n.
    """
    mean = place.rows / workers
    largest = mean + math.sqrt(2 * mean * math.log(workers)) if workers > 1 else mean
    return {
        "start": pieces.start_s,
        "table": place.rows * pieces.row_s,
        "work": largest * pieces.clip_s,
        "network": place.rows * place.clip_bytes / min(workers * place.worker_bytes_s, place.disk_bytes_s),
        "disk": place.rows * pieces.feature_bytes / place.disk_bytes_s,
        "merge": place.rows * (pieces.look_s + pieces.row_s + place.clip_bytes / place.worker_bytes_s),
    }


def clip_rows(pieces: Pieces, place: Place) -> list[Row]:
    """A row for each number of workers; work, network and disk go on side by side, the others one after the other."""
    rows = []
    for workers in WORKERS:
        stages = extraction(pieces, place, workers)
        side = ("work", "network", "disk")
        features = stages["start"] + stages["table"] + max(stages[name] for name in side)
        training = place.epochs * place.rows * max(pieces.train_s, pieces.feature_bytes / place.worker_bytes_s)
        bound = max(stages, key=lambda name: stages[name])
        rows.append(
            Row(
                f"clips, {workers:,}",
                {
                    "features (h)": figure(features / 3600),
                    "merge (h)": figure(stages["merge"] / 3600),
                    "head, one worker (h)": figure(training / 3600),
                    "money": figure((workers * features + stages["merge"] + training) / 3600 * place.core_hour),
                    "limit": figure(bound),
                },
            )
        )
    return rows


def record_rows(pieces: Pieces, place: Place) -> list[Row]:
    """YouTube-8M's training records, workers as ranks of one training: gradients are added up after each batch."""
    rows = []
    updates = RECORDS * RECORD_EPOCHS / BATCH
    for workers in WORKERS:
        compute = math.ceil(BATCH / workers) * pieces.record_s
        reading = BATCH * RECORD_BYTES / min(workers * place.worker_bytes_s, place.disk_bytes_s)
        adding = 2 * GRADIENT_BYTES * (workers - 1) / workers / place.worker_bytes_s
        stages = {"work": compute, "disk": reading, "network": adding}
        seconds = updates * (max(compute, reading) + adding)
        useful = min(workers, BATCH)
        bound = max(stages, key=lambda name: stages[name]) if workers <= BATCH else "batch, and network"
        money = useful * seconds / 3600 * place.core_hour
        told = {"training (h)": figure(seconds / 3600), "money": figure(money), "limit": figure(bound)}
        rows.append(Row(f"records, {workers:,}", told))
    return rows


def processor_s() -> float:
    """Seconds of processor of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> float:
    """Seconds of processor of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def draw_clips(folder: Path, count: int) -> None:
    """Clips of ten seconds: a texture that drifts, with a disc that moves in it."""
    from vidlet.video import write_video

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for number in range(count):
        coarse = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        texture = coarse.repeat(16, 0).repeat(16, 1)

        def frames(texture: np.ndarray = texture, speed: float = 1 + number % 3) -> Iterator[np.ndarray]:
            for at in range(SECONDS * FPS):
                shift = int(at * speed / 2)
                frame = texture[shift % 200 : shift % 200 + SIZE[0], shift % 300 : shift % 300 + SIZE[1]].copy()
                frame[(y - 120) ** 2 + (x - 40 - at) ** 2 < 900] = (240, 30, 90)
                yield frame

        write_video(folder / f"{number}.mp4", frames(), FPS)
    rows = (f"{number}.mp4,{'ab'[number % 2]},g{number}" for number in range(count))
    (folder / "clips.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")


def run_shard(data: Path, out: Path, shard: str) -> float:
    """Seconds of processor of a shard's command."""
    before = processor_s()
    words = [sys.executable, "-m", "vidlet", "extract", str(data), "--recipe", RECIPE, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--shard", shard], check=False, env=environment, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return processor_s() - before


def measure(folder: Path, data: Path) -> Pieces:
    """Each piece by itself, on the first of the drawn clips and on a drawn table and store."""
    from vidlet.datasets import read_table
    from vidlet.features import ClipFeatures, FeatureStore, Shard, clip_key
    from vidlet.models import build_extractor, build_head
    from vidlet.recipe import load_recipe
    from vidlet.runtime import open_session
    from vidlet.tasks.prepare import graph_bytes, moments
    from vidlet.training import ClipNetwork, FeatureClips, train_network
    from vidlet.video import read_clip

    plan = load_recipe(RECIPE)
    clips = read_table(data).clips
    size = plan.extractor.input_size
    sampled = [read_clip(clip.path, plan.sampling, size).frames for clip in clips[:2]]
    decode_s = timed(lambda: [read_clip(clip.path, plan.sampling, size) for clip in clips[:4]]) / 4
    session = open_session(graph_bytes(build_extractor(plan.extractor)), "the extractor", 1)
    values = [_features(session, frames) for frames in sampled]
    extract_s = timed(lambda: [_features(session, frames) for frames in sampled]) / len(sampled)
    shape = values[0].shape[1:]
    many = FeatureStore(folder / "store", {"shape": list(shape), "storage": "float16"})
    times = np.arange(len(values[0])) / 8.0

    def store() -> None:
        for clip in clips[:4]:
            many.write([(ClipFeatures(clip_key(clip), values[0], times), str(clip.path))])

    store_s = timed(store) / 4
    feature_bytes = sum(path.stat().st_size for path in many.folder.glob("part-*")) / 4
    table = folder / "table"
    table.mkdir()
    (table / "0.mp4").write_bytes(b"")
    lines = (f"0.mp4,{'ab'[n % 2]},g{n // 100},{n},{n + 1}" for n in range(50_000))
    (table / "clips.csv").write_text("path,label,group,start_s,end_s\n" + "\n".join(lines) + "\n")
    row_s = timed(lambda: Shard(1, 64).of(read_table(table))) / 50_000
    index = FeatureStore(folder / "index", {"shape": [1], "storage": "float16"})
    for part in range(64):
        keys = [hashlib.sha256(b"%d" % (64 * part + n)).hexdigest() for n in range(64)]
        index.write((ClipFeatures(key, np.zeros((1, 1)), np.zeros(1)), "") for key in keys)
    FeatureStore(folder / "index", index.setting)
    again = FeatureStore(folder / "index", index.setting)
    look_s = timed(lambda: [key in again for key in keys * 50]) / (50 * len(keys))
    network = ClipNetwork(build_head(plan.head, shape, 10))
    one_hot = np.eye(10, dtype=np.float32)[np.arange(64) % 10]
    names = [str(number) for number in range(64)]
    learned = FeatureClips(lambda i: values[i % 2].astype(np.float32), one_hot, names, moments(values)[1], 256)
    config = replace(plan.training, epochs=2, least_updates=0)
    train_s = timed(lambda: train_network(network, learned, learned, config)) / (2 * 64)
    known = {row.name: row for row in read("gigabyte")}["train K32-H1024"]
    record_s = known.figures["cpu_seconds"]["value"] / (10 * BATCH)
    return Pieces(0.0, decode_s, extract_s, store_s, row_s, look_s, train_s, record_s, feature_bytes)


def _features(session, frames: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    pairs = (frames[i : i + 2] for i in range(0, len(frames), 2))
    return np.concatenate([session.run(["features"], {"frames": pair})[0] for pair in pairs])


def study(folder: Path, clips: int, shards: tuple[int, ...], place: Place) -> list[Row]:
    """The pieces, the check, and the two tables."""
    data = folder / "clips"
    draw_clips(data, clips)
    run_shard(data, folder / "done", "1/1")
    start_s = run_shard(data, folder / "done", "1/1")  # nothing is left to do
    pieces = replace(measure(folder, data), start_s=start_s)
    rows = [Row("pieces", {key: figure(value) for key, value in asdict(pieces).items()})]
    for count in shards:
        sizes = [_size(data, number, count) for number in range(1, count + 1)]
        took = [run_shard(data, folder / f"of{count}", f"{number}/{count}") for number in range(1, count + 1)]
        slowest = max(range(count), key=lambda i: took[i])
        expected = pieces.start_s + max(sizes) * pieces.clip_s
        told = {"measured (s)": took[slowest], "model (s)": expected, "model / measured": expected / took[slowest]}
        rows.append(Row(f"check, {count}", {key: figure(value) for key, value in told.items()}, clips=clips))
    return [*rows, *clip_rows(pieces, place), *record_rows(pieces, place)]


def _size(data: Path, number: int, count: int) -> int:
    from vidlet.datasets import read_table
    from vidlet.features import Shard

    return len(Shard(number, count).of(read_table(data)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24, help="drawn ones, for the check (%(default)s)")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    for name, value in asdict(Place()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"of_{name}", type=type(value), default=value)
    add_option(parser)
    args = parser.parse_args()
    place = Place(**{name: getattr(args, f"of_{name}") for name in asdict(Place())})
    with tempfile.TemporaryDirectory() as folder:
        rows = study(Path(folder), args.clips, tuple(args.shards), place)
    for row in rows:
        print(row.name, json.dumps({key: found["value"] for key, found in row.figures.items()}))
    save(args, "cost", [replace(row, command=COMMAND) for row in rows], PARTS)


COMMAND = "python benchmarks/studies/cost.py"

if __name__ == "__main__":
    main()
