"""Milliseconds a frame of the extractor: float32, int8, and the TFLite interpreter, one thread, side by side.

    python benchmarks/speed/extractor.py [FILE.tflite] [--rounds 60] [--openvino] [--json]
    python benchmarks/speed/extractor.py --cuts     # MobileNetV2 and EfficientNet-Lite0 in int8, cut by cut, with bytes

FILE is a quantized MobileNetV2 (default: the "imagenet" weights of the table). The runs are interleaved, so that
whatever else the machine does meets all alike; medians of processor time are printed, and ratios to the fastest on the
same cut.
The interpreter runs the whole network, classifier included (1.3 of its 301 million multiplications); it cannot be cut.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vidlet.artifact import extractor_graph
from vidlet.compression.graph_steps import int8
from vidlet.compression.tflite import quantize_imported
from vidlet.models import build_extractor
from vidlet.published import find_weights
from vidlet.recipe import Extractor

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

CUTS = (("whole", "head", 0), ("block12", "block12", 4))
ENDS = {"mobilenetv2": (2, 5, 6, 9, 12, 13, 15, 16), "efficientnet_lite0": (2, 4, 5, 7, 10, 11, 14, 15)}  # blocks


def onnx_runner(data: bytes, frame: np.ndarray) -> Callable[[], Any]:
    """One frame through ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"frames": frame})


def tflite_runner(path: str, frame: np.ndarray) -> Callable[[], Any]:
    """One frame through the TFLite interpreter with its fastest kernels (XNNPACK), one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run() -> np.ndarray:
        interpreter.set_tensor(source, frame)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


def openvino_runner(data: bytes, frame: np.ndarray) -> Callable[[], Any]:
    """One frame through OpenVINO, one thread, float32 where not int8."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(core.read_model(model=data), "CPU", settings)
    return lambda: model([frame])


def runners(path: str, openvino: bool) -> dict[str, Callable[[], Any]]:
    """Everything to be measured, by name."""
    found: dict[str, Callable[[], Any]] = {}
    for name, cut, grid in CUTS:
        extractor = build_extractor(Extractor(weights=path, cut=cut, grid=grid))
        graph = extractor_graph(extractor)
        frame = np.random.default_rng(0).integers(0, 256, (1, *extractor.input_size, 3), dtype=np.uint8)
        quantized = quantize_imported(graph, extractor).SerializeToString()
        found[f"{name} float32"] = onnx_runner(graph.SerializeToString(), frame)
        found[f"{name} int8"] = onnx_runner(quantized, frame)
        if openvino:
            found[f"{name} int8 openvino"] = openvino_runner(quantized, frame)
    found["whole tflite"] = tflite_runner(path, frame)
    return found


def cuts() -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Both networks with ImageNet's weights, cut behind each of ``ENDS`` and whole, in int8; and the bytes of each."""
    found, sizes = {}, {}
    rng = np.random.default_rng(0)
    for network, blocks in ENDS.items():
        for cut in (*(f"block{block}" for block in blocks), "head"):
            extractor = build_extractor(Extractor(network, weights="imagenet", cut=cut, grid=0 if cut == "head" else 4))
            clips = [rng.integers(0, 256, (2, *extractor.input_size, 3), dtype=np.uint8) for _ in range(2)]
            data = int8(extractor_graph(extractor), None, clips).SerializeToString()
            found[f"{network} {cut}"], sizes[f"{network} {cut}"] = onnx_runner(data, clips[0][:1]), len(data)
    return found, sizes


def measure(found: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and 5th percentile in ms, and the ratio of the medians to the fastest of the same cut."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for round_ in range(rounds + 5):
        for name, run in found.items():
            start = time.thread_time()
            run()
            if round_ >= 5:
                times[name].append(1000 * (time.thread_time() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        name: {
            "ms": round(medians[name], 3),
            "p05_ms": round(float(np.percentile(times[name], 5)), 3),
            "ratio": round(medians[name] / min(v for n, v in medians.items() if n.split()[0] == name.split()[0]), 3),
        }
        for name in found
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default=None)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--cuts", action="store_true", help="every stage of two networks in int8, with its bytes")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    options = parser.parse_args()
    if options.cuts:
        found, sizes = cuts()
        for name, row in measure(found, options.rounds).items():
            print(f"{name:28} {sizes[name]:10,} bytes {row['ms']:8.2f} ms {row['p05_ms']:8.2f} p05")
        return
    result = measure(runners(options.file or str(find_weights("imagenet")), options.openvino), options.rounds)
    save(options, "extractor", rows_of(result), ("models", "artifact", "compression", "onnx_graph"))
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'one thread':24} {'median ms':>10} {'p05 ms':>8} {'ratio':>7}")
    for name, row in result.items():
        print(f"{name:24} {row['ms']:10.2f} {row['p05_ms']:8.2f} {row['ratio']:7.2f}")


if __name__ == "__main__":
    main()
