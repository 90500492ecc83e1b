"""The runtime runs where the training framework is not installed, and models run where vidlet is not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import artifacts
from artifacts import SIZE, frames_of
from vidlet.cli import main
from vidlet.runtime import load
from vidlet.runtime.sources import sampled_frames
from vidlet.video import write_video

DOCS = Path(__file__).parents[2] / "docs" / "clients.md"

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Blocker())
"""


def run_blocked(code, folder, *blocked):
    """Run code in a fresh interpreter that cannot import some packages; return what it prints."""
    source = BLOCKER.format(blocked=set(blocked)) + code
    command = [sys.executable, "-I", "-W", "error", "-c", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def model_path(tmp_path):
    return artifacts.save(artifacts.classifier(), tmp_path / "model.onnx")


def python_client(which=0):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    return blocks[which]


def test_the_python_client_of_the_docs_runs_without_vidlet_and_says_the_same(model_path):
    frames = np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3), np.uint8)
    np.save(model_path.parent / "frames.npy", frames)
    given = "import numpy as np\nframes = np.load('frames.npy')\n"
    printed = run_blocked(given + python_client(), model_path.parent, "vidlet", "onnx", "torch", "av", "PIL")
    label, score = printed.split()
    name, expected, _ = load(model_path).name_scores(load(model_path)(frames)[0][0])
    assert label == name
    assert float(score) == pytest.approx(expected, abs=1e-5)


def test_the_client_of_a_tflite_file_runs_without_vidlet_and_says_the_same(model_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    from vidlet.artifact.litert import export_litert

    frames = np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3), np.uint8)
    np.save(model_path.parent / "frames.npy", frames)
    export_litert(model_path, model_path.with_suffix(".tflite"))
    given = "import numpy as np\nframes = np.load('frames.npy')\n"
    printed = run_blocked(given + python_client(2), model_path.parent, "vidlet", "onnx", "onnxruntime", "torch", "av")
    label, score = printed.split()
    name, expected, _ = load(model_path).name_scores(load(model_path)(frames)[0][0])
    assert (label, float(score)) == (name, pytest.approx(expected, abs=1e-5))


@pytest.mark.parametrize(
    ("seconds", "sampling", "changes"),
    [
        ([3, 2, 4, 0.4, 2.3], {"rule": "rate", "hz": 8, "median_s": 2.0}, {}),  # a flicker, and a last window cut off
        ([3, 2, 4, 0.3, 1.3], {"rule": "rate", "hz": 8, "median_s": 2.25}, {}),  # 18 / 4 = 4.5: halves round to even
        ([1, 1.2], {"rule": "rate", "hz": 8, "median_s": 2.0}, {}),  # one block
        (
            [3, 2, 4, 2],
            {"rule": "uniform", "frames": 10, "median_s": 2.0},
            {"none": {"threshold": 0.4, "label": "blue"}},
        ),
        ([3, 2, 4, 0.4, 2.3], {"rule": "rate", "hz": 8, "median_s": 2.0}, {"multi_label": True}),
    ],
)
def test_the_segments_of_the_docs_are_those_of_predict(tmp_path, capsys, seconds, sampling, changes):
    graph = artifacts.classifier(sigmoid="multi_label" in changes)
    path = artifacts.save(graph, tmp_path / "model.onnx", sampling=sampling, **changes)
    colors = [(250, 20, 60), (30, 240, 20), (240, 90, 0), (0, 0, 250), (120, 0, 130)]
    drawn = [
        np.full((24, 32, 3), color, np.uint8)
        for color, s in zip(colors, seconds, strict=False)
        for _ in range(int(25 * s))
    ]
    write_video(tmp_path / "drawn.mp4", drawn, 25)
    assert main(["predict", str(path), str(tmp_path / "drawn.mp4"), "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)["segments"]
    model = load(path, threads=1)
    sampled = list(sampled_frames(tmp_path / "drawn.mp4", model.rate_hz, model.input_size))
    np.savez(tmp_path / "given.npz", times=[time_s for time_s, _ in sampled], frames=[frame for _, frame in sampled])
    (tmp_path / "about.json").write_text(json.dumps(model.metadata))
    code = f"""
import json, onnxruntime
given, about = np.load("given.npz"), json.load(open("about.json"))
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
zeros = {{i.name: np.zeros([1, *i.shape[1:]], np.float32) for i in session.get_inputs() if i.name != "frames"}}
score = lambda frames: session.run(["scores"], {{"frames": frames, **zeros}})[0][0]
times = given["times"]
end_s = min(times[-1] + {1 / model.rate_hz}, {sum(int(25 * s) for s in seconds) / 25})
print(json.dumps(segments(score, given["frames"], times, end_s, about)))
"""
    found = json.loads(run_blocked(python_client(1) + code, tmp_path, "vidlet", "onnx", "torch", "av", "PIL"))
    assert wanted
    assert [label for _, _, label, _ in found] == [s["label"] for s in wanted]
    numbers = [[s["start_s"], s["end_s"], s["score"]] for s in wanted]
    np.testing.assert_allclose([[a, z, score] for a, z, _, score in found], numbers, atol=1e-4)


def test_the_python_client_of_the_docs_has_about_ten_lines():
    lines = [line for line in python_client().splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10


def test_the_runtime_works_where_nothing_of_training_is_installed(model_path):
    clip = model_path.parent / "clip"
    clip.mkdir()
    for number, frame in enumerate(frames_of([(0, 0, 255)] * 30)):
        Image.fromarray(frame).save(clip / f"{number}.png")
    code = """
import vidlet
model = vidlet.load("model.onnx", threads=1)
print(model.classify("clip").label)
from vidlet.runtime import predict_timeline, inspect_artifact, read_metadata
print(predict_timeline(model, "clip").segments[0].label, [m.label for m in model.stream("clip")][-1])
print(inspect_artifact("model.onnx")["bytes"]["total"] == model.bytes)
"""
    missing = (
        "torch",
        "onnx",
        "onnxscript",
        "pyarrow",
        "cv2",
        "sklearn",
        "scipy",
        "tensorboard",
        "tflite",
        "jsonschema",
    )
    assert run_blocked(code, model_path.parent, *missing).split() == ["blue", "blue", "blue", "True"]


def test_importing_vidlet_imports_nothing_heavy():
    code = "import vidlet; print(sorted({'numpy', 'onnxruntime', 'av', 'torch', 'PIL'} & set(sys.modules)))"
    assert run_blocked(code, ".").strip() == "[]"


def test_the_names_of_the_package_are_there_without_importing_them():
    code = """
import vidlet
print(vidlet.__version__, set(vidlet.__all__) == set(dir(vidlet)), callable(vidlet.load))
try:
    vidlet.nothing
except AttributeError as error:
    print(error)
"""
    lines = run_blocked(code, ".").splitlines()
    assert lines[0].split()[1:] == ["True", "True"]
    assert lines[1] == "module 'vidlet' has no attribute 'nothing'"
