"""The page's JavaScript in node: resize rule, ticks, windows, segments, and the client's scores are ours."""

import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import artifacts
from vidlet.errors import DependencyError, ExportError
from vidlet.jobs.export import export
from vidlet.runtime import StaggeredWindows, load, predict_timeline
from vidlet.runtime.sources import sampled_frames
from vidlet.video import RESIZE, resize, write_video
from vidlet.web import PAGE_FILES, RUNTIME, find_runtime, has_integers, write_page
from vidlet.web.page_folder import FOLDER_VARIABLE

PAGE = Path(__file__).parents[2] / "src" / "vidlet" / "web" / "page"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_runtime = pytest.mark.skipif(
    not os.environ.get(FOLDER_VARIABLE),
    reason=f"{FOLDER_VARIABLE} does not name a folder with {RUNTIME.name} {RUNTIME.version} of npm",
)


def in_node(folder: Path, code: str, given: object = None):
    """Run a module beside the page's files; it prints one JSON value. ``given`` is the constant of that name."""
    (folder / "package.json").write_text('{"type": "module"}')
    for name in PAGE_FILES:
        if name.endswith(".js"):
            shutil.copy(PAGE / name, folder / name)
    script = folder / "script.js"
    script.write_text(f"const given = {json.dumps(given)};\n{code}")
    with (folder / "errors.txt").open("w") as errors:
        node = subprocess.Popen([NODE, script.name], cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
    watchdog = threading.Timer(60, node.kill)
    watchdog.start()
    try:
        line = node.stdout.readline()
    finally:  # the runtime's threads keep node alive, so it is ended once it has answered
        watchdog.cancel()
        node.kill()
        node.communicate()
    assert line, (folder / "errors.txt").read_text()[-2000:]
    return json.loads(line)


@needs_node
def test_the_resize_rule_of_the_page_gives_the_golden_vector_and_notices_another_one(tmp_path):
    other = {**RESIZE, "golden": {**RESIZE["golden"], "output": [[[0, 0, 0]] * 5] * 4}}
    code = """
    import { wrongResize } from "./frames.js";
    console.log(JSON.stringify(given.map(wrongResize)));
    """
    right, wrong_output, wrong_rule = in_node(tmp_path, code, [RESIZE, other, {**RESIZE, "rule": "nearest"}])
    assert right is None
    assert "golden vector" in wrong_output and "nearest" in wrong_rule


@needs_node
def test_the_resize_rule_of_the_page_equals_ours_on_pictures_of_many_sizes(tmp_path):
    rng = np.random.default_rng(0)
    sizes = [((7, 9), (7, 4)), ((7, 9), (3, 9)), ((5, 5), (5, 5)), ((61, 83), (17, 23)), ((13, 11), (64, 48))]
    sizes += [
        ((rng.integers(1, 70), rng.integers(1, 70)), (rng.integers(1, 40), rng.integers(1, 40))) for _ in range(20)
    ]
    pictures = [rng.choice(np.array([0, 1, 77, 254, 255], np.uint8), (int(h), int(w), 3)) for (h, w), _ in sizes]
    given = [
        {"rgb": picture.ravel().tolist(), "from": list(picture.shape[:2]), "to": [int(size[0]), int(size[1])]}
        for picture, (_, size) in zip(pictures, sizes, strict=True)
    ]
    code = """
    import { resize } from "./frames.js";
    const found = given.map(({ rgb, from, to }) => {
      const rgba = new Uint8ClampedArray((rgb.length / 3) * 4).fill(99); // what a canvas gives; alpha is left out
      rgb.forEach((value, i) => (rgba[Math.floor(i / 3) * 4 + (i % 3)] = value));
      return [resize(Uint8Array.from(rgb), ...from, 3, ...to), resize(rgba, ...from, 4, ...to)].map((a) => [...a]);
    });
    console.log(JSON.stringify(found));
    """
    for picture, (_, size), found in zip(pictures, sizes, in_node(tmp_path, code, given), strict=True):
        expected = resize(picture, (int(size[0]), int(size[1]))).ravel().tolist()
        assert found == [expected, expected], f"{picture.shape[:2]} to {size}"


@needs_node
def test_frames_are_taken_at_the_rate_of_the_model_like_those_of_a_live_source(tmp_path):
    code = """
    import { rateOf, Ticks } from "./frames.js";
    const ticks = new Ticks(8);
    const taken = given.filter((time) => ticks.due(time));
    const uniform = { rule: "uniform", frames: 25, median_s: 5 };
    console.log(JSON.stringify({ taken, rates: [rateOf({ rule: "rate", hz: 8 }), rateOf(uniform)] }));
    """
    times = [number / 25 for number in range(26)] + [2.0, 2.01, 2.1, 2.25]  # then a gap, and late frames
    found = in_node(tmp_path, code, times)
    assert found["rates"] == [8, 5]
    assert found["taken"] == [0, 0.12, 0.24, 0.36, 0.48, 0.6, 0.72, 0.88, 1.0, 2.0, 2.1, 2.25]


@needs_node
def test_segments_are_told_once_they_hold_and_gaps_end_them(tmp_path):
    code = """
    import { Segments } from "./windows.js";
    const segments = new Segments(["a", "b"], 0.5);
    const changes = given.filter(([time, ...scores]) => segments.push(time, scores, 0.5)).map(([time]) => time);
    const short = new Segments(["a", "b"], 0.5);
    short.push(0, [0.9, 0.1], 0.5);
    short.finish();
    console.log(JSON.stringify({ changes, told: segments.told, short: short.told }));
    """
    rows = [(t / 4, 0.9, 0.1) for t in range(5)] + [(1.25, 0.1, 0.9)]  # a flicker of b is not told
    rows += [(t / 4, 0.8, 0.2) for t in range(6, 9)] + [(t / 4, 0.4, 0.3) for t in range(9, 13)]
    found = in_node(tmp_path, code, rows)
    assert found["changes"] == [0.5, 2.75]
    assert found["told"] == [{"label": "a", "start": 0, "end": 2.25, "score": 0.9}]
    assert found["short"] == [{"label": "a", "start": 0, "end": 0, "score": 0.9}]


def client_of_the_docs() -> str:
    docs = Path(__file__).parents[2] / "docs" / "clients.md"
    (block,) = re.findall(r"```js\n(// A model of vidlet.*?)```", docs.read_text("utf-8"), re.DOTALL)
    return block


def test_the_client_of_the_docs_is_the_one_that_the_page_uses():
    assert client_of_the_docs() == (PAGE / "client.js").read_text("utf-8")
    assert "client.js" in (PAGE / "worker.js").read_text("utf-8")
    assert len([line for line in client_of_the_docs().splitlines() if line.strip()]) <= 32


RUN_CLIENT = """
import { readFileSync } from "node:fs";
import * as ort from "./runtime/ort.wasm.min.js";
import { openModel } from "./client.js";
import { StaggeredWindows } from "./windows.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { mjs: new URL("./runtime/ort-wasm-simd-threaded.js", import.meta.url).href };
ort.env.wasm.wasmBinary = readFileSync("./runtime/ort-wasm-simd-threaded.wasm");
const about = JSON.parse(readFileSync("model.json"));
const model = await openModel(ort, readFileSync("model.onnx"), about);
const frames = Uint8Array.from(given.frames);
const size = model.height * model.width * 3;
const whole = await model.run(frames, model.zeroState());
const found = { whole: whole.scores && [...whole.scores], boxes: whole.boxes && [...whole.boxes] };
let state = model.zeroState();
const windows = new StaggeredWindows(model, given.length);
found.windows = [];
for (let at = 0; at < frames.length; at += size) {
  const step = await model.run(frames.slice(at, at + size), state);
  state = step.state;
  found.streamed = step.scores && [...step.scores];
  const { scores } = await windows.push(frames.slice(at, at + size));
  if (scores) found.windows.push([...scores]);
}
found.refused = await openModel(ort, readFileSync("model.onnx"), { ...about, format: "2.0" }).catch(String);
console.log(JSON.stringify(found));
"""


@needs_node
@needs_runtime
@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_the_client_gives_our_scores_and_boxes_on_the_same_bytes(kind, tmp_path):
    changes = {} if kind == "classifier" else {"labels": [], "box_labels": ["all", "left"]}
    path = artifacts.save(getattr(artifacts, kind)(), tmp_path / "a.onnx", **changes)
    write_page(path, tmp_path / "page")
    frames = np.random.default_rng(0).integers(0, 256, (40, *artifacts.SIZE, 3), np.uint8)
    frames[:, :, :, 1] //= np.arange(1, 41, dtype=np.uint8)[:, None, None]  # windows of other frames, other scores
    found = in_node(tmp_path / "page", RUN_CLIENT, {"frames": frames.ravel().tolist(), "length": 16})
    model = load(path, threads=1)
    step = model.run(frames)
    assert "2.0" in found["refused"]
    if kind == "detector":
        np.testing.assert_allclose(np.reshape(found["boxes"], (-1, 6)), step.boxes, atol=1e-4)
        return
    np.testing.assert_allclose(found["whole"], step.scores[0], atol=1e-4)
    np.testing.assert_allclose(found["streamed"], step.scores[0], atol=1e-4)
    staggered = StaggeredWindows(model, 16, 4)
    for frame, scores in zip(frames, found["windows"], strict=True):
        staggered.push(frame)
        np.testing.assert_allclose(scores, staggered.row(staggered.oldest), atol=1e-4)


RUN_FILE = """
import { segmentsOf, Timeline } from "./windows.js";
const about = given.about;
// The classifier of the tests without its movement: means over time of red, green and blue, softmax of ten times those.
const zeroState = (n) => ({ sum: { data: new Float32Array(n * 4), dims: [n, 4] } });
const run = async (rgb, { sum: { data, dims } }) => {
  const next = data.slice();
  const scores = [];
  for (let row = 0; row < dims[0]; row++) {
    for (let c = 0; c < 3; c++) {
      let total = 0;
      for (let i = c; i < rgb.length; i += 3) total += rgb[i];
      next[row * 4 + c] += total / (rgb.length / 3) / 255;
    }
    next[row * 4 + 3] += 1;
    const powers = [0, 1, 2].map((c) => Math.exp((10 * next[row * 4 + c]) / next[row * 4 + 3]));
    const all = powers.reduce((a, b) => a + b, given.still);
    scores.push(...[...powers, given.still].map((power) => power / all));
  }
  return { scores: Float32Array.from(scores), state: { sum: { data: next, dims } } };
};
const hz = about.sampling.hz;
const timeline = new Timeline({ zeroState, run }, about.sampling.median_s * hz);
const blocks = [];
for (const [i, time] of given.times.entries()) blocks.push(...(await timeline.push(time, given.frames[i])).blocks);
blocks.push(...timeline.finish(given.end));
const least = Math.min(about.sampling.median_s / 4, given.end - given.times[0]);
const { threshold = 0.5, label } = about.none ?? {};
console.log(JSON.stringify(segmentsOf(blocks, about.labels, threshold, least, label, about.multi_label)));
"""


@needs_node
@pytest.mark.parametrize(
    ("seconds", "median_s", "changes"),
    [
        ([3, 2, 4, 0.4, 2.3], 2.0, {}),
        ([3, 2, 4, 0.3, 1.3], 2.25, {}),  # 18 frames: strides of 4, not 5
        ([1, 1.2], 2.0, {}),  # one block
        ([3, 2, 4, 2], 2.0, {"none": {"threshold": 0.4, "label": "blue"}}),
        ([3, 2, 4, 2], 2.0, {"multi_label": True, "none": {"threshold": 0.3}}),
    ],
)
def test_a_dropped_file_has_the_segments_of_predict(tmp_path, seconds, median_s, changes):
    sampling = {"rule": "rate", "hz": 8, "median_s": median_s}
    graph = artifacts.classifier()
    weight = next(w for w in graph.graph.initializer if w.name == "head.weight")
    weight.CopyFrom(artifacts.constant("head.weight", artifacts.SHARPNESS * np.diag([1, 1, 1, 0])))  # no movement
    model = load(artifacts.save(graph, tmp_path / "a.onnx", sampling=sampling, **changes), threads=1)
    colors = [(250, 20, 60), (30, 240, 20), (240, 90, 0), (0, 0, 250), (120, 0, 130)]
    drawn = [
        np.full((24, 32, 3), c, np.uint8) for c, s in zip(colors, seconds, strict=False) for _ in range(int(25 * s))
    ]
    write_video(tmp_path / "drawn.mp4", drawn, 25)
    timeline = predict_timeline(model, tmp_path / "drawn.mp4")
    times, frames = zip(*sampled_frames(tmp_path / "drawn.mp4", 8, artifacts.SIZE), strict=True)
    given = {"about": model.metadata, "times": times, "end": timeline.duration_s, "still": 1.0}
    found = in_node(tmp_path, RUN_FILE, {**given, "frames": [frame.ravel().tolist() for frame in frames]})
    assert timeline.segments
    assert [s["label"] for s in found] == [s.label for s in timeline.segments]
    numbers = [[s.start_s, s.end_s, s.score] for s in timeline.segments]
    np.testing.assert_allclose([[s["start"], s["end"], s["score"]] for s in found], numbers, atol=1e-4)


@needs_runtime
def test_the_page_holds_the_model_as_it_is_and_its_metadata_beside_it(tmp_path):
    path = artifacts.save(artifacts.classifier(), tmp_path / "a.onnx")
    found = export(path, tmp_path / "page", "web")
    assert set(found["files"]) == {*PAGE_FILES, "model.onnx", "model.json", "README.txt"} | {
        f"runtime/{name}" for name, _ in RUNTIME.files.values()
    }
    assert all((tmp_path / "page" / name).stat().st_size == size for name, size in found["files"].items())
    assert (tmp_path / "page" / "model.onnx").read_bytes() == path.read_bytes()
    assert json.loads((tmp_path / "page" / "model.json").read_text("utf-8")) == load(path).metadata
    export(path, tmp_path / "page", "web")  # a page of ours may be written again


@pytest.mark.slow
@needs_node
@needs_runtime
def test_the_client_gives_the_scores_of_a_trained_model(tiny_run, tmp_path):
    export(tiny_run.folder, tmp_path / "page", "web")
    model = load(tiny_run.model, threads=1)
    frames = np.random.default_rng(1).integers(0, 256, (5, *model.input_size, 3), np.uint8)
    scores = in_node(tmp_path / "page", RUN_CLIENT, {"frames": frames.ravel().tolist(), "length": 16})
    for key in ("whole", "streamed"):
        np.testing.assert_allclose(scores[key], model(frames)[0][0], atol=1e-4)


def test_a_folder_of_the_runtime_must_hold_the_files_of_the_table(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(ExportError, match=r"no folder of onnxruntime-web; ort.wasm.min.mjs, "):
        find_runtime(tmp_path)
    dist = tmp_path / "node_modules" / RUNTIME.name / "dist"
    dist.mkdir(parents=True)
    for name in RUNTIME.files:
        (dist / name).write_text("another version")
    with pytest.raises(ExportError, match=rf"not the file of onnxruntime-web {RUNTIME.version}"):
        find_runtime(tmp_path)


def test_without_npm_the_sentence_names_the_package_and_the_option(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=rf"onnxruntime-web@{RUNTIME.version}.*--runtime FOLDER"):
        find_runtime()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network is unreachable' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(DependencyError, match="network is unreachable"):
        find_runtime()
    npm.write_text("#!/bin/sh\n: > a.tgz\n")
    with pytest.raises(DependencyError, match="nothing was used"):
        find_runtime()


def test_a_folder_with_other_files_and_a_model_without_frames_are_refused(tmp_path):
    model = artifacts.save(artifacts.classifier(), tmp_path / "a.onnx")
    with pytest.raises(ExportError, match="holds other files"):
        export(model, tmp_path, "web")
    with pytest.raises(ExportError, match="is a file"):
        export(model, model, "web")
    with pytest.raises(ExportError, match="known are onnx, darknet, litert, and web"):
        export(model, tmp_path / "b.onnx", "onnx", runtime=tmp_path)
    changes = {"labels": ["a", "b", "c"], "inputs": ["rgb", "audio"]}
    stored = artifacts.save(artifacts.features_model(), tmp_path / "b.onnx", **changes)
    with pytest.raises(Exception, match="no video"):
        export(stored, tmp_path / "page", "web")
    assert not (tmp_path / "page").exists()


def test_graphs_in_8_bits_are_recognized():
    assert has_integers({"ConvInteger": 1}) and has_integers({"QLinearConv": 1}) and has_integers({"QuantizeLinear": 2})
    assert not has_integers({"Conv": 3, "DequantizeLinear": 1})  # weights stored in 8 bits, float32 arithmetic


@needs_node
def test_the_page_names_nothing_where_none_of_these_is_the_best(tmp_path):
    code = """
    import { Segments } from "./windows.js";
    const segments = new Segments(["a", "b"], 0.5, "b");
    const changes = given.filter(([time, ...scores]) => segments.push(time, scores, 0.3)).map(([time]) => time);
    console.log(JSON.stringify({ changes, told: segments.told.map(({ label }) => label), last: segments.label }));
    """
    rows = [(t / 4, 0.9, 0.1) for t in range(5)] + [(t / 4, 0.4, 0.6) for t in range(5, 12)]
    assert in_node(tmp_path, code, rows) == {"changes": [0.5, 1.75], "told": ["a"], "last": ""}
