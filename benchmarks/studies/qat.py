"""Features of the int8 extractor against the float one: calibrated (PTQ) and trained for it (QAT), on held-out frames.

    python benchmarks/studies/qat.py ../shared/data/egogestar/clips.csv [--clips 30] [--held-out 30] [--passes 6]

Learns from frames of training clips (no labels) and measures on frames of test clips, through ONNX Runtime. The error
is the squared distance over the variance of each channel; the cosine is of whole feature vectors, centered.
"""

import argparse
import json
import time

import numpy as np
import onnxruntime

from vidlet.artifact import extractor_graph
from vidlet.compression.calibrate import calibrate
from vidlet.compression.int8 import quantize_graph, quantized_tensors
from vidlet.compression.material import with_part
from vidlet.compression.qat import ranges_by_layer
from vidlet.compression.qat_steps import distill_features, prepare_extractor, with_trained_weights
from vidlet.datasets import read_table
from vidlet.models import build_extractor
from vidlet.recipe import Extractor, Sampling
from vidlet.training import keep_memory
from vidlet.video import read_clip


def clips_of(path: str, split: str, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """8 frames each of up to ``count`` clips, spread over a split."""
    clips = [clip for clip in read_table(path).clips if clip.split == split]
    chosen = [clips[i * len(clips) // count] for i in range(min(count, len(clips)))]
    sampling = Sampling(rule="uniform", frames=8)
    return [read_clip(clip.path, sampling, size, clip.start_s, clip.end_s).frames for clip in chosen]


def run(model, frames: np.ndarray) -> np.ndarray:
    """Features of frames."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(["features"], {"frames": frames[i : i + 8]})[0] for i in range(0, len(frames), 8)]
    )


def compare(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Error over variance a channel, and the cosine of centered features."""
    axes = (0, *range(2, wanted.ndim))
    error = float((((found - wanted) ** 2).mean(axes) / wanted.var(axes).clip(1e-8)).mean())
    a, b = ((x - wanted.mean(0)).reshape(len(x), -1) for x in (found, wanted))
    return {
        "error": error,
        "cosine": float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--held-out", type=int, default=30)
    parser.add_argument("--passes", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--cut", default="block12")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_memory()
    extractor = build_extractor(Extractor(cut=options.cut, weights=options.weights))
    learned = clips_of(options.table, "train", options.clips, extractor.input_size)
    held = np.concatenate(clips_of(options.table, "test", options.held_out, extractor.input_size))
    graph = extractor_graph(extractor)
    wanted = run(graph, held)

    begin = time.perf_counter()
    ranges = calibrate(graph, ({"frames": clip[::3]} for clip in learned), quantized_tensors(graph))
    results = {"ptq": compare(run(quantize_graph(graph, ranges), held), wanted)}
    results["ptq"]["seconds"] = time.perf_counter() - begin

    begin = time.perf_counter()
    student = with_part(extractor, "backbone", prepare_extractor(extractor, learned))
    before, after = distill_features(student, extractor, learned, options.passes, rate=options.rate)
    trained = with_trained_weights(extractor, student.backbone)
    graph = extractor_graph(trained)
    file = quantize_graph(graph, ranges_by_layer(graph, trained.ranges))
    results["qat"] = compare(run(file, held), wanted)
    results["qat"] |= {"seconds": time.perf_counter() - begin, "learned_before": before, "learned_after": after}
    if options.json:
        print(json.dumps(results))
        return
    for name, figures in results.items():
        print(name, "  ".join(f"{key} {value:.5g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
