"""Files for phones: `vidlet export --format litert` of a run's files: bytes, time beside the .onnx file, differences.

    OMP_NUM_THREADS=1 python benchmarks/speed/phones.py ../shared/data/egogestar [--recipe mobilenetv2-grid-gru auto]

Each file of a run (benchmarks/runs.py) is exported as the command does it, which holds it to the .onnx file on 1,000
drawn frames. Then both answer frame by frame in turn, on one thread each: medians of processor time of this machine,
and their ratio. No phone is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import vidlet
from vidlet.artifact.tflite_file import SIGNATURE, open_interpreter
from vidlet.reports import text_table
from vidlet.runtime import load

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import Row, add_option, figure, save
from runs import RECIPE, chain_of, stored, tested

FRAMES = 200
FILES = ("model.onnx", "model.int8.onnx")
KEYS = ("onnx_bytes", "bytes", "ratio", "score_difference", "state_difference", "same_label")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--recipe", nargs="+", default=[RECIPE])
    add_option(parser)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for data in args.data:
            for recipe in args.recipe:
                run = stored(Path(tested(data, Path("runs/models"))), recipe)
                for file in FILES:
                    told = vidlet.export(run / file, format="litert", out=Path(folder) / "model.tflite")["metrics"]
                    found = {key: figure(told[key]) for key in ("score_difference", "state_difference", "same_label")}
                    found["onnx_bytes"] = figure((run / file).stat().st_size)
                    found["bytes"] = figure((Path(folder) / "model.tflite").stat().st_size)
                    onnx_ms, litert_ms = in_turn(run / file, Path(folder) / "model.tflite")
                    found |= {"onnx_ms": figure(onnx_ms), "litert_ms": figure(litert_ms)}
                    found["ratio"] = figure(litert_ms / onnx_ms)
                    rows.append(Row(f"{data.name}, {recipe}, {chain_of(file)}", found, [0]))
                    (Path(folder) / "model.tflite").unlink()
    save(args, "phones", rows, ("artifact", "models", "compression", "onnx_graph", "runtime"))
    print(text_table([[row.name, *(row.figures[key]["value"] for key in KEYS)] for row in rows], ["file", *KEYS]))


def in_turn(path: Path, converted: Path) -> tuple[float, float]:
    """Milliseconds of a frame of an .onnx and of a .tflite file, the state handed on."""
    model = load(path, threads=1)
    runner = open_interpreter(converted.read_bytes()).get_signature_runner(SIGNATURE)
    state, rng, taken = model.zero_state(1), np.random.default_rng(0), []
    kept = {f"state.{name}": value for name, value in state.items()}
    for _ in range(FRAMES + 3):
        frame = rng.integers(0, 256, (1, *model.input_size, 3), np.uint8)
        began = time.thread_time()
        _, state = model(frame, state)
        between = time.thread_time()
        answered = runner(frames=frame, **kept)
        taken.append((between - began, time.thread_time() - between))
        kept = {name: answered[f"next_{name}"] for name in kept}
    onnx_s, litert_s = np.median(taken[3:], axis=0)
    return 1e3 * float(onnx_s), 1e3 * float(litert_s)


if __name__ == "__main__":
    main()
