"""Files for phones: `vidlet export --format litert` of a run's files: bytes, time beside the .onnx file, differences.

    OMP_NUM_THREADS=1 python benchmarks/speed/phones.py ../shared/data/egogestar [--recipe mobilenetv2-grid-gru auto]

Each file of a run (benchmarks/runs.py) is exported as the command does it: 1,000 drawn frames go through both files,
one frame of each in turn, on one thread. Milliseconds are medians of this machine; no phone is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import vidlet
from vidlet.reports import text_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import Row, add_option, figure, save
from runs import RECIPE, chain_of, stored, tested

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
                    found["ratio"] = figure(told["litert_ms"] / told["onnx_ms"])
                    rows.append(Row(f"{data.name}, {recipe}, {chain_of(file)}", found, [0]))
                    (Path(folder) / "model.tflite").unlink()
    save(args, "phones", rows, ("artifact", "models", "compression", "onnx_graph", "runtime"))
    print(text_table([[row.name, *(row.figures[key]["value"] for key in KEYS)] for row in rows], ["file", *KEYS]))


if __name__ == "__main__":
    main()
