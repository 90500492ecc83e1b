"""One file of two streams: frames and flow in, the weighted scores of both out, through every way into the runtime."""

import csv
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from artifacts import classifier
from vidlet.cli import main
from vidlet.compression.join import takes_flow
from vidlet.datasets import read_table
from vidlet.errors import DataError, ModelError, TrainingError
from vidlet.files import Lock
from vidlet.jobs.fuse import fuse
from vidlet.jobs.train import train
from vidlet.reports import python_client
from vidlet.runtime import load, predict_timeline, read_metadata, write_metadata
from vidlet.runtime.windows import FrameFeed
from vidlet.tasks.flow import FLOW_FILE, flow_clips
from vidlet.video import read_clip
from vidlet.video.flow import FLOW_RULE, MOST_PIXELS, flow_pictures, optical_flow

pytest.importorskip("cv2")
SIZE = (32, 40)
CHEAP = {
    "extractor.input_size": list(SIZE), "head.options": {"network": "small", "frames": 6, "dropout": 0.0},
    "training.epochs": 1, "training.batch": 4, "training.lr": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def two(motion_clips, tmp_path_factory):
    """A folder with clips/, flow/, a run on each, and both/: the file of the two, pictures three times motion."""
    root = tmp_path_factory.mktemp("two")
    (root / "clips").mkdir()
    table = read_table(motion_clips)
    chosen = [clip for split in ("train", "val", "test") for clip in list(table.of_split(split))[:3]]
    with (root / "clips" / "clips.csv").open("w", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(["path", "label", "group", "split"])
        for clip in chosen:
            shutil.copy(clip.path, root / "clips" / clip.path.name)
            rows.writerow([clip.path.name, clip.label, clip.group, clip.split])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDLET_CACHE", str(root / "cache"))
        flow_clips(root / "clips", root / "flow", overrides={"extractor.input_size": list(SIZE)})
        for name, data in (("rgb", "clips"), ("flow", "flow")):
            train(root / data, recipe=f"ucf-{name}-tt", overrides=CHEAP, out=root / name)
        streams = [(root / "rgb/model.onnx", root / "clips"), (root / "flow/model.onnx", root / "flow")]
        found = fuse(streams, [3, 1], join=root / "both")
    (root / "found.json").write_text(json.dumps(found, default=float))
    return root


def test_flow_becomes_the_same_picture_in_the_graph_as_in_training():
    graph = classifier()
    picture = onnx.helper.make_tensor_value_info("flow_pictures", onnx.TensorProto.UINT8, None)
    changed = takes_flow(graph, MOST_PIXELS)
    changed.graph.output.append(picture)
    height, width = (d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim[1:3])
    flow = np.random.default_rng(0).normal(0, 6, (4, height, width, 2)).astype(np.float32)
    flow[0, 0, 0] = (0, 0)
    session = onnxruntime.InferenceSession(changed.SerializeToString(), providers=["CPUExecutionProvider"])
    states = {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name != "flow"}
    made = session.run(["flow_pictures"], {"flow": flow, **states})[0]
    wanted = flow_pictures(flow)
    assert made.dtype == np.uint8 and (made[0, 0, 0] == 128).all()
    assert np.abs(made.astype(int) - wanted).max() <= 1 and (made != wanted).mean() < 1e-3  # a length's last bit


def test_a_folder_of_another_process_is_not_joined_into(two, tmp_path):
    streams = [(two / "rgb/model.onnx", two / "clips"), (two / "flow/model.onnx", two / "flow")]
    with Lock(tmp_path), pytest.raises(DataError, match="another process writes into it"):
        fuse(streams, join=tmp_path)


def test_the_file_takes_frames_and_flow_and_gives_the_weighted_scores(two):
    model = load(two / "both" / "model.onnx", threads=1)
    assert model.inputs == {"frames": (*SIZE, 3), "flow": (*SIZE, 2)}
    clip = read_table(two / "clips").clips[0].path
    frames = read_clip(clip, model.sampling, SIZE).frames
    flow = optical_flow(frames)
    rgb, motion = (load(two / name / "model.onnx", threads=1) for name in ("rgb", "flow"))
    wanted = 0.75 * rgb(frames)[0] + 0.25 * motion(flow_pictures(flow))[0]
    scores, _ = model({"frames": frames, "flow": flow})
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert np.abs(rgb(frames)[0] - motion(flow_pictures(flow))[0]).max() > 1e-2  # or the test would not see the weights


def test_classify_stream_and_timeline_compute_the_flow_themselves(two):
    model = load(two / "both" / "model.onnx", threads=1)
    clip = read_table(two / "clips").clips[0].path
    frames = read_clip(clip, model.sampling, SIZE).frames
    wanted, _ = model({"frames": frames, "flow": optical_flow(frames)})
    said = model.classify(clip)
    np.testing.assert_allclose([said.scores[name] for name in model.labels], wanted[0], atol=1e-5)
    last = list(model.stream(clip))[-1]
    np.testing.assert_allclose([last.scores[name] for name in model.labels], wanted[0], atol=1e-5)
    assert predict_timeline(model, clip, threshold=0.0).label == said.label
    assert list(model.stream(clip, windows=2))[-1].scores.keys() == said.scores.keys()


def test_a_feed_hands_the_last_frame_on():
    frames = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)
    feed = FrameFeed(("frames", "flow"))
    parts = [feed(frames[:2]), feed(frames[2:3]), feed(frames[3:])]
    np.testing.assert_array_equal(np.concatenate([part["flow"] for part in parts]), optical_flow(frames))
    assert FrameFeed(("frames",))(frames) is frames


def test_it_is_scored_as_it_ships_and_says_what_flow_it_wants(two):
    found = json.loads((two / "found.json").read_text())
    joined = found["joined"]["metrics"]["files"]["model.onnx"]
    assert joined["clips"] == found["clips"] == 3
    assert joined["accuracy"] == pytest.approx(found["accuracy"])
    assert joined["bytes"] == (two / "both" / "model.onnx").stat().st_size
    assert "2 files in one" in (two / "both" / "report.html").read_text()
    metadata = read_metadata(two / "both" / "model.onnx")
    assert metadata["inputs"] == ["frames", "flow"] and metadata["flow"] == FLOW_RULE
    assert all(isinstance(value, dict) for value in metadata["provenance"].values())  # of each member
    assert [member["weight"] for member in metadata["recipe"]["members"]] == [0.75, 0.25]
    assert metadata["evidence"][0]["value"] == joined["accuracy"]


def test_the_command_line_joins_evaluates_predicts_and_measures_it(two, capsys):
    streams = ["--stream", str(two / "rgb/model.int8.onnx"), str(two / "clips"), "--stream",
               str(two / "flow/model.int8.onnx"), str(two / "flow")]  # fmt: skip
    assert main(["fuse", *streams, "--join", str(two / "small"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["joined"]
    file = two / "small" / "model.onnx"
    assert found["files"]["model.onnx"] == file.stat().st_size
    assert main(["evaluate", str(file), str(two / "clips"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == found["metrics"]["files"]["model.onnx"]["accuracy"]
    clip = read_table(two / "clips").clips[0].path
    assert main(["predict", str(file), str(clip), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in load(file).labels
    assert main(["benchmark", str(file), "--seconds", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frame_ms"]["p50"] > 0


def test_what_cannot_be_one_file_is_refused_by_name(two, tmp_path):
    rgb, flow = (two / "rgb/model.onnx", two / "clips"), (two / "flow/model.onnx", two / "flow")
    with pytest.raises(DataError, match=r"clips/flow\.json: not there"):
        fuse([rgb, rgb], join=tmp_path / "a")
    with pytest.raises(DataError, match="not of 3"):
        fuse([rgb, flow, flow], join=tmp_path / "a")
    with pytest.raises(TrainingError, match="holds a finished run"):
        fuse([rgb, flow], join=two / "both")
    slower = tmp_path / "slower.onnx"
    shutil.copy(rgb[0], slower)
    write_metadata(slower, read_metadata(slower) | {"sampling": {"rule": "rate", "hz": 5.0, "median_s": 1.0}})
    with pytest.raises(ModelError, match="another size or rate"):
        fuse([(slower, rgb[1]), flow], join=tmp_path / "a")
    with pytest.raises(ModelError, match="takes frames and flow; a stream takes frames alone"):
        fuse([(two / "both/model.onnx", rgb[1]), flow], join=tmp_path / "a")
    other = tmp_path / "flow"
    shutil.copytree(two / "flow", other)
    rule = json.loads((other / FLOW_FILE).read_text())
    (other / FLOW_FILE).write_text(json.dumps(rule | {"levels": 9}))
    with pytest.raises(DataError, match="flow of other numbers"):
        fuse([rgb, (flow[0], other)], join=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_client_that_the_report_shows_runs(two, tmp_path, capsys):
    path = two / "both" / "model.onnx"
    exec(python_client(str(path), load(path).inputs), {})
    assert capsys.readouterr().out.split()[0] in load(path).labels


def test_the_browser_page_refuses_it(two, tmp_path, capsys):
    assert main(["export", str(two / "both/model.onnx"), "--format", "web", "--out", str(tmp_path / "web")]) == 2
    assert "optical flow" in capsys.readouterr().err


def test_frames_and_flow_of_different_sizes_are_no_model(two, tmp_path):
    graph = onnx.load(two / "both/model.onnx")
    flow = next(value for value in graph.graph.input if value.name == "flow")
    flow.type.tensor_type.shape.dim[1].dim_value = 16
    onnx.save(graph, tmp_path / "other.onnx")
    write_metadata(tmp_path / "other.onnx", read_metadata(two / "both/model.onnx"))
    with pytest.raises(ModelError, match="different sizes"):
        load(tmp_path / "other.onnx")
