"""A frame of a model beside a frame of MediaPipe's hands, one thread: milliseconds, bytes.

    OMP_NUM_THREADS=1 python benchmarks/speed/hands.py MODEL.onnx MEDIAPIPE.whl [--rounds 100]

MODEL is any file that names gestures, as `vidlet fit ... --max-size 256KB` gives it; the wheel of mediapipe (`pip
download --no-deps mediapipe==0.10.14`) holds the networks that find a palm and its landmarks. Each takes a drawn frame
of its own size, in turn; processor time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from extractor import measure, tflite_runner

from vidlet.runtime import load

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import Row, add_option, figure, save

NETWORKS = {
    "landmarks, full": "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
    "landmarks, lite": "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite",
    "palm, full": "mediapipe/modules/palm_detection/palm_detection_full.tflite",
    "palm, lite": "mediapipe/modules/palm_detection/palm_detection_lite.tflite",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    add_option(parser)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    model = load(args.model, threads=1)
    frame, state = rng.integers(0, 256, (1, *model.input_size, 3), dtype=np.uint8), model.zero_state()
    own = f"{args.model.parent.name}/{args.model.name}"
    found, sizes = {own: lambda: model(frame, state)}, {own: args.model.stat().st_size}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(args.wheel) as wheel:
        for name, path in NETWORKS.items():
            file = Path(wheel.extract(path, folder))
            side = 224 if "landmarks" in name else 192
            sizes[name] = file.stat().st_size
            found[name] = tflite_runner(str(file), rng.random((1, side, side, 3), dtype=np.float32))
        times = {name: own["ms"] for name, own in measure(found, args.rounds).items()}
    rows = [
        Row(name, {"ms": figure(ms), "bytes": figure(sizes[name]), "ratio": figure(ms / times[own])})
        for name, ms in times.items()
    ]
    save(args, "hands", rows, ("runtime",))
    for name, ms in times.items():
        print(f"{name:44} {sizes[name]:10,} bytes {ms:8.3f} ms {ms / times[own]:6.2f} times")


if __name__ == "__main__":
    main()
