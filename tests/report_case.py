"""A made-up run with every part that a report can have, for the tests of the report and for looking at it."""

import numpy as np

from vidlet.metrics import classification_summary, fit_temperature, paired_bootstrap, reliability
from vidlet.reports import Command, DataSummary, FileRow, Mistake, PartRow, Report, python_client

GESTURES = (
    "circle", "cross", "letter C", "letter M", "letter S", "letter Z",
    "swipe left", "swipe right", "tick", "unclassified", "wave <both> hands & more",
)  # fmt: skip


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of logits (N, K) as probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def drawn_gesture(seed: int, frames: int = 20) -> np.ndarray:
    """A bright dot that draws a curve over a dim, noisy room: uint8 (T, 120, 160, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :160]
    room = np.stack([60 + 40 * np.sin(x / 40 + c) + 25 * np.cos(y / 30 + seed) for c in range(3)], -1)
    clip = []
    for t in np.linspace(0, 2 * np.pi, frames):
        cx, cy = 80 + 50 * np.cos(t * (1 + seed % 3)), 60 + 35 * np.sin(t * (1 + seed % 2))
        hand = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 120)[..., None] * [190, 150, 120]
        clip.append(room + hand + rng.normal(0, 4, room.shape))
    return np.clip(clip, 0, 255).astype(np.uint8)


def made_up_report(names: tuple[str, ...] = GESTURES, clips: int = 237) -> Report:
    """A run like one on hand gestures: K classes, 36 scenes, a float32 and an int8 file and two baselines."""
    rng = np.random.default_rng(11)
    labels = np.arange(clips) % len(names)
    groups = [f"scene {g}" for g in rng.integers(36, size=clips)]
    alike = np.roll(np.eye(len(names)), 1, axis=1)[labels]
    exact = rng.normal(size=(clips, len(names))) * 1.6 + 5.2 * np.eye(len(names))[labels] + 1.5 * alike
    noise = rng.normal(size=exact.shape)
    logits = exact + 0.3 * noise  # of the int8 file, which the report is about
    scores = softmax(logits)
    right = scores.argmax(1) == labels

    def file(name: str, kind: str, logits: np.ndarray, size: int, times: tuple[float, float]) -> FileRow:
        summary = classification_summary(softmax(logits), labels, groups, names)
        gap = paired_bootstrap(logits.argmax(1) == labels, exact.argmax(1) == labels, groups)
        frame_ms = dict(zip(("p50", "p95"), times, strict=True))
        against = None if logits is exact else gap
        return FileRow(name, kind, summary["accuracy"], summary["accuracy_interval"], against, size, frame_ms)

    files = (
        file("model.onnx", "float32", exact, 2_893_112, (4.81, 5.6)),
        file("model.int8.onnx", "int8", logits, 812_416, (2.07, 2.31)),
        file("mean.onnx", "baseline: mean of frames", 0.15 * exact + noise, 2_240_118, (4.6, 5.2)),
        file("single.onnx", "baseline: one frame", 0.1 * exact + noise, 2_239_964, (4.6, 5.3)),
    )
    summary = classification_summary(scores, labels, groups, names)
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-scores[wrong].max(1))][:8]
    epochs = range(1, 41)
    log = [
        {
            "epoch": str(e), "train_loss": f"{2.3 * np.exp(-e / 9) + 0.03 + 0.01 * rng.random():.4f}",
            "val_loss": f"{2.1 * np.exp(-e / 8) + 0.33 + 0.004 * e + 0.03 * rng.random():.4f}",
            "train_accuracy": f"{0.995 - 0.9 * np.exp(-e / 6):.4f}",
            "val_accuracy": "" if e == 7 else f"{0.93 - 0.8 * np.exp(-e / 6) + 0.02 * rng.random():.4f}",
        }
        for e in epochs
    ]  # fmt: skip
    return Report(
        title="Hand gestures in eleven classes",
        summary="Names the gesture that a hand draws in front of a first-person camera, from clips of two to five "
        "seconds or from live video.",
        product="model.int8.onnx",
        split="test",
        groups=36,
        metrics=summary,
        bytes=812_416,
        frame_ms={"p50": 2.07, "p95": 2.31},
        machine="x86-64, 1 thread",
        files=files,
        log=log,
        reliability=reliability(scores, labels),
        temperature=fit_temperature(logits, labels),
        mistakes=[
            Mistake(
                drawn_gesture(int(i)),
                names[labels[i]],
                names[scores[i].argmax()],
                float(scores[i].max()),
                f"scene {i % 36:02d}/gesture_{i:04d}_first_person_view.mp4",
                float(scores[i, labels[i]]),
            )
            for i in worst
        ],
        parts=[
            PartRow("extractor, blocks 0 to 12", 561_204, 104, 540_448, "int8 per channel"),
            PartRow("head, GRU 128", 98_816, 6, 87_168, "8 bits"),
            PartRow("head, 1x1 and linear", 57_344, 6, 53_472, "8 bits"),
            PartRow("quantization scales", 61_010, 212, 15_204, "float32"),
            PartRow("graph and names", 30_022, 0, 0, "protobuf"),
            PartRow("metadata", 4_020, 0, 0, "json"),
        ],
        commands=[
            Command("Name the gestures of a video", "vidlet predict model.int8.onnx clip.mp4"),
            Command("Watch a camera", "vidlet predict model.int8.onnx 0 --threshold 0.6"),
            Command("Measure again", "vidlet evaluate model.int8.onnx clips/ --split test --json"),
        ],
        client=python_client("model.int8.onnx", {"frames": (224, 224, 3)}),
        data=DataSummary(
            {
                "train": {name: 11 + i for i, name in enumerate(names)},
                "val": dict.fromkeys(names, 2),
                "test": {name: 5 + i % 3 for i, name in enumerate(names)},
            },
            warnings=["scene 17 appears in train and test: this inflates the accuracy"],
            skipped=[{"path": "clips/wave/0017.mp4", "error": "no frame could be decoded (moov atom not found)"}],
        ),
        provenance={
            "command": "vidlet train clips/ --recipe mobilenetv2-grid-gru --out runs/gestures --seed 0",
            "weights": "mobilenetv2 imagenet 9c5e1bb6c5a1e2b1f3f0f4a1d7cfae40b3a1e8e4a2b7d0c1b5e6f7a8091b2c3d",
            "clip table": "sha256 5f1d7a84db00d2fce00b31a7fc73224991e6f5b8f4e9a3c2d1b0a99887766554",
            "versions": "vidlet 0.1.0, Python 3.11.9, torch 2.13.0, onnxruntime 1.31.1, numpy 2.4.6",
        },
        recipe_toml='name = "mobilenetv2-grid-gru"\n\n[sampling]\nrule = "rate"\nhz = 8.0\n\n'
        '[extractor]\ncut = "block12"\ngrid = 4\n\n[head]\nname = "grid-gru"\n',
    )
