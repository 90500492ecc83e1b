"""What the runtime costs around the network: a clip file to a label, peak memory, start-up, size of an installation.

    python benchmarks/speed/runtime.py ../shared/data/egogestar [--threads 1] [--repeat 5] [--json]
    python benchmarks/speed/runtime.py MODEL CLIP

Of a set of clips it is the int8 file of the default recipe, trained on it (benchmarks/runs.py), and a test clip.

Times are of the processor, the least of some calls. Targets: a whole clip costs at most 1.1 times its decoding and its
frames; `vidlet --help` 0.3 s; 300 MB installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidlet.datasets import read_table
from vidlet.runtime import load
from vidlet.runtime.model import CHUNK
from vidlet.video import stream_clip

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save
from runs import RECIPE, stored

STARTS = {
    "help_s": ("-m", "vidlet.cli", "--help"),
    "import_runtime_s": ("-c", "import vidlet.runtime"),
    "bare_python_s": ("-c", ""),
}
PREDICT = """
import sys
from vidlet.runtime import load, predict_timeline
from vidlet.runtime.benchmark import peak_rss_bytes
model = load(sys.argv[1], threads=int(sys.argv[3]))
found = predict_timeline(model, sys.argv[2])
print(peak_rss_bytes(), found.frames)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DATA|MODEL")
    parser.add_argument("clip", metavar="CLIP", nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5, help="the fastest of so many is told")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    name = Path(args.model).name
    if args.clip is None:
        data = Path(args.model)
        args.model = str(stored(data, RECIPE) / "model.int8.onnx")
        args.clip = str(read_table(data).of_split("test").clips[0].path)
        name = f"{name}, {RECIPE}, int8"
    rows = clip_to_label(args.model, args.clip, args.threads, args.repeat)
    rows["predict_peak_rss_bytes"], rows["predict_frames"] = predict_peak(args.model, args.clip, args.threads)
    for start, words in STARTS.items():
        rows[start] = fastest(lambda words=words: run([sys.executable, *words]), args.repeat, children_s)
    rows["installed_bytes"] = installed_bytes("vidlet")
    save(args, "runtime", rows_of(rows, name), ("runtime", "video", "cli"))
    if args.json:
        print(json.dumps(rows))
        return
    for name, value in rows.items():
        print(f"{name:24s} {value:>16,.3f}" if isinstance(value, float) else f"{name:24s} {value:>16,}")


def clip_to_label(model_path: str, clip: str, threads: int, repeat: int) -> dict[str, Any]:
    """Milliseconds of decoding alone, of its frames alone, and of both as ``classify`` does it."""
    model = load(model_path, threads=threads)
    sampled = list(stream_clip(clip, model.sampling, model.input_size, chunk=CHUNK))

    def decode() -> None:
        for _ in stream_clip(clip, model.sampling, model.input_size, chunk=CHUNK):
            pass

    def infer() -> None:
        state = None
        for part in sampled:
            _, state = model(part.frames, state)

    decode_ms, frames_ms = 1e3 * fastest(decode, repeat), 1e3 * fastest(infer, repeat)
    classify_ms = 1e3 * fastest(lambda: model.classify(clip), repeat)
    return {
        "frames": sum(len(part.frames) for part in sampled),
        "decode_ms": decode_ms,
        "frames_ms": frames_ms,
        "classify_ms": classify_ms,
        "ratio": classify_ms / (decode_ms + frames_ms),
    }


def predict_peak(model_path: str, clip: str, threads: int) -> tuple[int, int]:
    """Peak resident bytes of a fresh process that makes one timeline, and the frames that it saw."""
    printed = run([sys.executable, "-c", PREDICT, model_path, clip, str(threads)])
    peak, frames = printed.split()
    return int(peak), int(frames)


def installed_bytes(package: str) -> int:
    """Bytes of a package's files and of all that it requires without extras, as installed here."""
    seen: set[str] = set()
    todo = [package]
    total = 0
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not needed on this system
        paths = [Path(str(file.locate())) for file in found.files or ()]
        total += sum(path.stat().st_size for path in paths if path.is_file())
        todo += [re.split(r"[^\w.-]", need)[0] for need in found.requires or () if "extra ==" not in need]
    own = Path(__file__).parents[2] / "src" / "vidlet"
    return total + sum(path.stat().st_size for path in own.rglob("*.py"))


def fastest(call: Callable[[], object], repeat: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the processor of the fastest of so many calls."""
    times = []
    for _ in range(repeat):
        started = clock()
        call()
        times.append(clock() - started)
    return min(times)


def children_s() -> float:
    """Seconds of the processor that processes took which this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str]) -> str:
    """Standard output of a command that must succeed; what it imports is kept compiled, as an installation has it."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=kept).stdout


if __name__ == "__main__":
    main()
