"""What integer kernels gain: tiny-YOLOv2 (float, calibrated int8, DEEPEYE's 8 bits) and a small 3-D CNN, one thread.

    python benchmarks/speed/integer_kernels.py [--networks 0.25:224 1:208 ...] [--rounds 30] [--json]

Weights are random: only time and bytes are measured. The runs of a group are interleaved, so that whatever else the
machine does meets all alike; medians and fastest runs in milliseconds of processor time are printed.
"""

import argparse
import collections
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from vidlet.artifact.exporter import to_onnx_graph
from vidlet.compression.calibrate import calibrate
from vidlet.compression.deepeye import deepeye_quantize
from vidlet.compression.deepeye_graph import deepeye_graph
from vidlet.compression.int8 import quantize_graph, quantized_tensors
from vidlet.compression.volumes import flatten_volumes
from vidlet.models.tiny_yolo import TinyYolo
from vidlet.onnx_graph.columns import join_columns

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save


class Bytes(nn.Module):
    """Bytes, channels last, to maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames.movedim(-1, 1).float()
        return self.network((x - 128) * (1 / 128))


def video_network(width: int = 16) -> nn.Sequential:
    """A 3-D CNN of the usual shape: 3x3x3 convolutions and poolings."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (width, 2 * width, 4 * width, 4 * width):
        layers += [nn.Conv3d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2) if inputs == 3 else 2)]
        inputs = outputs
    return nn.Sequential(*layers).eval()


def graphs(network: nn.Module, frames: np.ndarray) -> dict[str, onnx.ModelProto]:
    """Float and calibrated int8."""
    graph = to_onnx_graph(Bytes(network), {"frames": torch.from_numpy(frames)}, ["features"], {"frames": {0: "N"}})
    ranges = calibrate(graph, [{"frames": frames}], quantized_tensors(graph))
    return {"float": graph, "int8": join_columns(quantize_graph(graph, ranges))}


def session(graph: onnx.ModelProto) -> tuple[onnxruntime.InferenceSession, dict[str, int]]:
    """A session of one thread, and which operators its optimized graph has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        made = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    return made, dict(kinds.most_common(4))


def measure(models: dict[str, onnx.ModelProto], frames: np.ndarray, rounds: int) -> dict[str, dict]:
    """Milliseconds of each, interleaved."""
    sessions = {name: session(graph) for name, graph in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, (runner, _) in sessions.items():
            begin = time.thread_time()
            runner.run(["features"], {"frames": frames})
            times[name].append(1000 * (time.thread_time() - begin))
    return {
        name: {
            "p50_ms": statistics.median(values), "least_ms": min(values),
            "bytes": len(models[name].SerializeToString()), "operators": sessions[name][1],
        }
        for name, values in times.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = ["0.25:224", "0.25:416", "0.5:416", "1:208", "1:416", "1:608"]
    parser.add_argument("--networks", nargs="+", default=usual, metavar="WIDTH:SIZE", help="of tiny-YOLOv2")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    options = parser.parse_args()
    torch.manual_seed(0)
    draw = np.random.default_rng(0)

    results = {}
    for width, size in ((float(width), int(size)) for width, size in (text.split(":") for text in options.networks)):
        pictures = draw.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        yolo = TinyYolo(20, width=width).eval()
        models = graphs(yolo, pictures)
        x = torch.from_numpy(pictures).movedim(-1, 1).float() / 256
        models["deepeye"] = join_columns(deepeye_graph(deepeye_quantize(yolo, [x]), (size, size)))
        results[f"tiny-yolov2 {size}px width {width:g}"] = measure(models, pictures[:1], options.rounds)

    clips = draw.integers(0, 256, (2, 16, 56, 56, 3), dtype=np.uint8)
    models = graphs(video_network(), clips)
    models["as 2-D"] = flatten_volumes(models["int8"])  # what the step int8 writes
    results["3-D CNN 16x56x56"] = measure(models, clips[:1], max(3, options.rounds // 3))
    save(options, "integer_kernels", rows_of(results), ("compression", "artifact", "onnx_graph"))
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        for name, figures in rows.items():
            print(f"{title:32} {name:8} p50 {figures['p50_ms']:8.2f}  least {figures['least_ms']:8.2f} ms  "
                  f"{figures['bytes']:>10,} bytes  {figures['operators']}")  # fmt: skip


if __name__ == "__main__":
    main()
