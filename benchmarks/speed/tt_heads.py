"""Tensor-train heads against their dense forms, as files: bytes, milliseconds to load and a frame, on one thread.

    python benchmarks/speed/tt_heads.py [--only pixels|grid|whole|clip] [--rounds 7] [--json]
    python benchmarks/speed/tt_heads.py --plans      # all groupings and directions of a product: expected and measured

Pixels: whole models, frames of 160 x 120 in. Grid: heads on features 96 x 4 x 4, without what computes them. Whole:
heads behind MobileNetV2 up to block12 on frames of 224 x 224, as the files that ship. Clip: the papers' 3-D CNNs, whose
kernels are rebuilt when the file is loaded. One frame at a time, the state handed on, processor time; the files take
turns, so that what else the machine does meets all of them. The weights are random: they change no time.

Targets: a frame costs at most what the dense form's costs; loading at most 1.2 times the dense form's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from vidlet.artifact import ArtifactNetwork, artifact_graph
from vidlet.artifact.exporter import to_onnx_graph
from vidlet.models import build_extractor, build_head
from vidlet.models.head import Head
from vidlet.recipe import Extractor
from vidlet.recipe import Head as HeadRecipe
from vidlet.runtime.train_plan import TrainPlan, frame_bill, groupings, merge_shapes, plan_frame
from vidlet.tensor_train import PlannedProduct, TTLinear

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

CLASSES = 10
FRAMES: dict[str, Any] = {"in_modes": [8, 20, 20, 18]}
GRID: dict[str, Any] = {"in_modes": [6, 8, 8, 4]}
BOTH: dict[str, Any] = {"recurrent_ranks": [4]}
PLAIN: dict[str, Any] = {"hidden": 256, "units": 0}

# group: {what: (head, options)}; the first of each is the dense form of the others
CASES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "pixels lstm": {
        "dense": ("lstm", PLAIN),
        "input in TT": ("tt-lstm", FRAMES),
        "both in TT": ("tt-lstm", FRAMES | BOTH),
    },
    "grid lstm": {
        "dense": ("lstm", PLAIN),
        "input in TT": ("tt-lstm", GRID),
        "both in TT": ("tt-lstm", GRID | BOTH),
    },
    "grid gru": {
        "dense": ("gru", PLAIN),
        "input in TT": ("tt-gru", GRID),
        "both in TT": ("tt-gru", GRID | BOTH),
    },
    "grid default": {"dense": ("grid-gru", {}), "all in TT": ("tt-grid-gru", {})},
    "whole default": {"dense": ("grid-gru", {}), "all in TT": ("tt-grid-gru", {})},
    "whole gru": {"dense": ("gru", PLAIN), "both in TT": ("tt-gru", GRID | BOTH)},
}
CASES |= {
    f"clip {network}": {
        "dense": ("clip-network", {"network": network, "tt": "none"}),
        "both in TT": ("clip-network", {"network": network, "tt": "both"}),
    }
    for network in ("viva-1", "viva-2", "viva-4", "ucf")
}
LAYERS = [((8, 20, 20, 18), (16, 4, 4, 4)), ((6, 8, 8, 4), (16, 4, 4, 4)), ((17, 19, 19, 25), (16, 4, 4, 4))]


class OnFeatures(nn.Module):
    """A head as a graph of its own: features (T, ...) and states -> logits and next states."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, K) and the next state."""
        shared = features.unsqueeze(0)
        if not self.head.shares_frames:
            shared = shared.expand(state[0].shape[0], *features.shape)
        logits, after = self.head(shared, dict(zip(self.head.state_shapes, state, strict=True)))
        return (logits, *after.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=60, help="of a round")
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.plans:
        for in_modes, out_modes in LAYERS:
            rows += plans(in_modes, out_modes, args.rounds)
    else:
        for name, forms in CASES.items():
            if name.startswith(args.only):
                rows += compare(name, forms, args.rounds, args.frames)
    named = {", ".join(str(row[key]) for key in list(row)[: 3 if args.plans else 2]): row for row in rows}
    save(args, "tt_heads", rows_of(named), ("tensor_train", "models", "artifact", "runtime"))
    if args.json:
        print(json.dumps(rows))
        return
    widths = [max(len(key), *(len(show(row[key])) for row in rows)) for key in rows[0]]
    for cells in (list(rows[0]), *([show(value) for value in row.values()] for row in rows)):
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def compare(name: str, forms: dict[str, tuple[str, dict[str, Any]]], rounds: int, frames: int) -> list[dict[str, Any]]:
    """Export every form, measure them in turn."""
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {}
        counts: dict[str, int] = {}
        for form, (head, options) in forms.items():
            torch.manual_seed(0)
            files[form] = Path(folder) / f"{form}.onnx"
            counts[form] = export(name.split(maxsplit=1)[0], head, options, files[form])
        loads: dict[str, list[float]] = {form: [] for form in files}
        for _ in range(rounds if files[next(iter(files))].stat().st_size < 5e7 else 3):
            for form, path in files.items():
                loads[form].append(seconds(lambda p=path: session(p)))
        times: dict[str, list[float]] = {form: [] for form in files}
        sessions = {form: session(path) for form, path in files.items()}
        for _ in range(rounds):
            for form, loaded in sessions.items():
                times[form] += stream(loaded, frames)
        dense = next(iter(forms))
        return [
            {
                "case": name,
                "form": form,
                "parameters": counts[form],
                "bytes": files[form].stat().st_size,
                "load_ms": 1e3 * min(loads[form]),
                "load_share": min(loads[form]) / min(loads[dense]),
                "frame_ms": 1e3 * float(np.median(times[form])),
                "frame_ms_least": 1e3 * min(times[form]),
                "frame_share": float(np.median(times[form]) / np.median(times[dense])),
            }
            for form in forms
        ]


def export(where: str, name: str, options: dict[str, Any], path: Path) -> int:
    """Write the graph of a head, behind an extractor or alone ("grid"), and return the head's parameters."""
    recipe = {
        "pixels": Extractor("pixels", input_size=(120, 160), cut="rgb", grid=0, weights="none"),
        "clip": Extractor(
            "pixels", input_size=(60, 80) if options.get("network") == "ucf" else (28, 62), grid=0, weights="none",
            cut="rgb" if options.get("network") == "ucf" else "gray-sobel",
        ),
    }.get(where, Extractor(weights="none"))  # fmt: skip
    extractor = build_extractor(recipe)
    shape = extractor.feature_shape
    head = build_head(HeadRecipe(name, options), shape, CLASSES).eval()
    if where == "grid":
        examples = {"features": torch.randn(3, *shape)}
        examples |= {f"state.{key}": torch.zeros(2, *size) for key, size in head.state_shapes.items()}
        free = {key: {0: "T" if key == "features" else "N"} for key in examples}
        outputs = ["logits", *(f"next_state.{key}" for key in head.state_shapes)]
        graph = to_onnx_graph(OnFeatures(head), examples, outputs, free)
    else:
        graph = artifact_graph(ArtifactNetwork(extractor, head), recipe.input_size)
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return sum(p.numel() for p in head.parameters())


def session(path: Path) -> onnxruntime.InferenceSession:
    """The file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def stream(loaded: onnxruntime.InferenceSession, frames: int) -> list[float]:
    """Seconds of each of so many frames, one at a time; three to warm up are not counted."""
    outputs = [output.name for output in loaded.get_outputs()]
    first, *states = loaded.get_inputs()
    rng = np.random.default_rng(0)
    shape = (1, *first.shape[1:])
    picture = rng.integers(0, 256, shape, dtype=np.uint8) if first.type == "tensor(uint8)" else rng.normal(size=shape)
    feeds = {state.name: np.zeros((1, *state.shape[1:]), np.float32) for state in states}
    feeds[first.name] = picture if picture.dtype == np.uint8 else picture.astype(np.float32)
    times = []
    for _ in range(frames + 3):
        started = time.process_time()
        found = dict(zip(outputs, loaded.run(outputs, feeds), strict=True))
        times.append(time.process_time() - started)
        feeds |= {state.name: found[f"next_{state.name}"] for state in states}
    return times[3:]


def plans(in_modes: tuple[int, ...], out_modes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Every plan of one row's product, what the model expects of it and what ONNX Runtime takes."""
    layer = TTLinear(in_modes, out_modes, 4, bias=False)
    chosen = plan_frame(layer.shapes)
    rows = []
    for groups in groupings(len(layer.shapes)):
        for last in (True, False) if len(groups) > 1 else (True,):
            expected = frame_bill(merge_shapes(layer.shapes, groups), last).us
            if len(groups) == 1 and layer.in_features > 10_000:
                continue  # hundreds of megabytes
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "product.onnx"
                product = PlannedProduct(list(layer.cores), TrainPlan(groups, last))
                graph = to_onnx_graph(product, {"x": torch.randn(3, layer.in_features)}, ["y"], {"x": {0: "T"}})
                path.write_bytes(graph.SerializeToString())
                measured = [t for _ in range(rounds) for t in stream(session(path), 30)]
            rows.append(
                {
                    "inputs": layer.in_features,
                    "cores": " | ".join("-".join(str(k + 1) for k in sorted({g[0], g[-1]})) for g in groups),
                    "from": "last" if last else "first",
                    "expected_us": expected,
                    "measured_us": 1e6 * float(np.median(measured)),
                    "chosen": "<" if (groups, last) == (chosen.groups, chosen.last_first) else "",
                }
            )
    return rows


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def show(value: Any) -> str:
    """A cell of the table."""
    if isinstance(value, float):
        return f"{value:.3f}" if value < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
