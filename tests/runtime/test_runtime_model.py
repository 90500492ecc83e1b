"""One function: a clip at once or frame by frame, one window or many, arrays or files, gives the same scores."""

import numpy as np
import onnx
import pytest
from PIL import Image

import artifacts
from artifacts import LABELS, SIZE, expected_scores, frames_of
from vidlet.errors import DataError, DependencyError, ModelError
from vidlet.runtime import classify_together, load
from vidlet.runtime.sources import ahead
from vidlet.video import RESIZE, write_video

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(artifacts.save(artifacts.classifier(), tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


@pytest.fixture
def clip():
    return np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), np.uint8)


def write_folder(path, frames):
    """Frames as a folder of pictures: lossless, 25 frames a second."""
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number:05}.png")
    return path


def test_scores_are_those_worked_out_by_hand(model):
    scores, _ = model(frames_of([RED, RED]))
    e = np.exp(10.0)
    np.testing.assert_allclose(scores, [[e / (e + 3), 1 / (e + 3), 1 / (e + 3), 1 / (e + 3)]], rtol=1e-5)


def test_scores_are_those_of_a_slow_count(model, clip):
    np.testing.assert_allclose(model(clip)[0][0], expected_scores(clip), atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_streaming_in_pieces_equals_the_whole_clip(model, clip, chunk):
    whole, whole_state = model(clip)
    state = None
    for start in range(0, len(clip), chunk):
        scores, state = model(clip[start : start + chunk], state)
    np.testing.assert_allclose(scores, whole, atol=1e-5)
    for name, array in whole_state.items():
        np.testing.assert_allclose(state[name], array, atol=1e-5)


def test_windows_share_the_frames_and_keep_their_own_history(model, clip):
    _, first = model(clip[:4])
    state = {name: np.concatenate([array, np.zeros_like(array)]) for name, array in first.items()}
    scores, _ = model(clip[4:], state)
    np.testing.assert_allclose(scores[0], expected_scores(clip), atol=1e-6)
    np.testing.assert_allclose(scores[1], expected_scores(clip[4:]), atol=1e-6)


def test_zeroing_a_row_restarts_its_window_and_no_other(model, clip):
    _, state = model(clip[:4], model.zero_state(3))
    for array in state.values():
        array[1] = 0
    scores, _ = model(clip[4:], state)
    np.testing.assert_allclose(scores[[0, 2]], [expected_scores(clip)] * 2, atol=1e-6)
    np.testing.assert_allclose(scores[1], expected_scores(clip[4:]), atol=1e-6)


def test_the_state_that_was_given_is_not_changed(model, clip):
    state = model.zero_state()
    model(clip, state)
    assert all(not array.any() for array in state.values())


def test_a_model_says_what_it_is(model):
    assert model.labels == LABELS
    assert model.box_labels == ()
    assert model.input_size == SIZE
    assert (model.sampling.rule, model.sampling.hz, model.median_s, model.rate_hz) == ("rate", 8.0, 2.0, 8.0)
    assert model.bytes == model.path.stat().st_size
    assert {name: (spec.dtype.name, spec.shape) for name, spec in model.state_spec.items()} == {
        "sum": ("float32", (3,)),
        "count": ("float32", (1,)),
        "last": ("float32", (1,)),
        "moved": ("float32", (1,)),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 6, 8, 3), np.float32),
        np.zeros((3, 8, 6, 3), np.uint8),
        np.zeros((6, 8, 3), np.uint8),
        np.zeros((0, 6, 8, 3), np.uint8),
        np.zeros((2, 6, 8, 4), np.uint8),
        [[1, 2], [3, 4]],
    ],
    ids=["float", "turned", "one frame", "no frame", "alpha", "list"],
)
def test_frames_of_another_shape_or_type_are_named(model, wrong):
    with pytest.raises(DataError, match=r"frames must be .*uint8 \(T, 6, 8, 3\)"):
        model(wrong)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sum": np.zeros((1, 4), np.float32)}, r"state sum must be float32 \(N, 3\), got float32 \(1, 4\)"),
        ({"sum": np.zeros((1, 3), np.float64)}, "got float64"),
        ({"sum": np.zeros((2, 3), np.float32)}, "same number of rows"),
        ({"h": np.zeros((1, 3), np.float32)}, "the state must have sum, count, last, moved"),
    ],
)
def test_a_state_of_another_shape_or_type_is_named(model, clip, change, why):
    with pytest.raises(DataError, match=why):
        model(clip, model.zero_state() | change)


def test_frames_that_are_not_contiguous_are_taken(model, clip):
    mirrored = clip[:, :, ::-1]
    np.testing.assert_allclose(model(mirrored)[0], model(mirrored.copy())[0])


# Files.


def test_a_clip_is_classified_at_the_rate_of_training(model, tmp_path):
    frames = frames_of([RED] * 25 + [GREEN] * 25)  # 2 s at 25 frames/s, 16 samples at 8 Hz
    found = model.classify(write_folder(tmp_path / "clip", frames))
    seen = frames_of([RED] * 8 + [GREEN] * 8)
    np.testing.assert_allclose(list(found.scores.values()), expected_scores(seen), atol=1e-6)
    assert list(found.scores) == list(LABELS)
    assert found.frames == 16
    assert found.score == found.scores[found.label] == max(found.scores.values())


def test_models_that_see_a_clip_alike_are_asked_together_and_say_what_each_says_alone(tiny_run, model):
    models = [load(tiny_run.folder / name, threads=1) for name in ("model.onnx", "model.int8.onnx")]
    path = sorted(tiny_run.clips.rglob("*.mp4"))[0]
    assert classify_together(models, path, end_s=1.0) == [one.classify(path, end_s=1.0) for one in models]
    with pytest.raises(ModelError, match="not all of these models see clips alike"):
        classify_together([models[0], model], path)


def test_a_part_of_a_clip_is_classified(model, tmp_path):
    folder = write_folder(tmp_path / "clip", frames_of([RED] * 25 + [BLUE] * 25))
    assert model.classify(folder).label in ("red", "blue")
    assert model.classify(folder, start_s=1.0).label == "blue"
    assert model.classify(folder, end_s=1.0).label == "red"


def test_a_uniform_model_sees_its_number_of_frames_whatever_the_length(tmp_path):
    path = artifacts.save(
        artifacts.classifier(), tmp_path / "u.onnx", sampling={"rule": "uniform", "frames": 10, "median_s": 2.0}
    )
    model = load(path)
    for length in (10, 25, 4):
        found = model.classify(write_folder(tmp_path / str(length), frames_of([GREEN] * length)))
        assert (found.frames, found.label) == (10, "green")
    assert model.rate_hz == 5.0


def test_a_video_file_is_classified_as_its_frames_are(model, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (40, 6, 8, 3), np.uint8)
    frames = np.repeat(np.repeat(noise, 8, axis=1), 8, axis=2)
    write_video(tmp_path / "clip.mp4", list(frames), 20)
    found = model.classify(str(tmp_path / "clip.mp4"))
    at_8_hz = frames[[int(tick * 20 / 8) for tick in range(16)]]
    np.testing.assert_allclose(list(found.scores.values()), expected_scores(at_8_hz), atol=0.02)  # H.264 loses a little
    assert found.damage == ""


def test_the_last_moment_of_a_stream_is_the_classification(model, tmp_path):
    folder = write_folder(tmp_path / "clip", np.random.default_rng(2).integers(0, 256, (60, *SIZE, 3), np.uint8))
    moments = list(model.stream(folder))
    found = model.classify(folder)
    assert len(moments) == found.frames == 20
    np.testing.assert_allclose([m.time_s for m in moments], np.arange(20) / 8)
    np.testing.assert_allclose(list(moments[-1].scores.values()), list(found.scores.values()), atol=1e-5)
    assert (moments[-1].label, moments[-1].boxes) == (found.label, None)


def test_a_stream_in_windows_forgets_what_is_longer_ago_than_a_clip(model, tmp_path):
    folder = write_folder(tmp_path / "clip", frames_of([RED] * 200 + [BLUE] * 75))  # 8 s and 3 s
    assert list(model.stream(folder))[-1].label == "red"
    assert list(model.stream(folder, windows=4))[-1].scores["blue"] > 0.99


def test_a_clip_that_cannot_be_read_is_named(model, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no\.mp4"):
        model.classify(tmp_path / "no.mp4")


def test_a_model_with_another_resize_rule_is_used_on_arrays_only(tmp_path, clip):
    for changes in ({"rule": "nearest"}, RESIZE | {"golden": {"input": [], "output": []}}):
        model = load(artifacts.save(artifacts.classifier(), tmp_path / "m.onnx", resize=changes))
        assert model(clip)[0].shape == (1, 4)
        with pytest.raises(ModelError, match="trained with another resize rule"):
            model.classify(tmp_path)


def test_an_error_while_reading_ahead_comes_after_what_was_read_before_it():
    def items():
        yield from (1, 2, 3)
        raise DataError("the fourth")

    reader = ahead(items())
    assert [next(reader) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(DataError, match="the fourth"):
        next(reader)


def test_reading_ahead_stops_where_nobody_reads_on():
    made, closed = [], []

    def items():
        try:
            for item in range(1000):
                made.append(item)
                yield item
        finally:
            closed.append(True)

    reader = ahead(items(), depth=2)
    assert [next(reader), next(reader)] == [0, 1]
    reader.close()
    assert len(made) <= 5
    assert closed == [True]


# Other kinds of models.


def test_a_detector_gives_boxes_and_no_scores(tmp_path):
    model = load(artifacts.save(artifacts.detector(), tmp_path / "d.onnx", labels=[], box_labels=["all", "left"]))
    step = model.run(frames_of([GREEN, (204, 0, 0)]))
    np.testing.assert_allclose(step.boxes, [[0, 0, 1, 1, 0.8, 0], [0, 0, 0.5, 1, 0.4, 1]], atol=1e-6)
    assert step.scores.shape == (1, 0)
    with pytest.raises(ModelError, match="a detector, it names no clips"):
        model.classify(tmp_path)
    moments = list(model.stream(write_folder(tmp_path / "clip", frames_of([RED] * 10))))
    assert [m.label for m in moments] == [""] * 4
    assert moments[0].boxes.shape == (2, 6)


def test_a_model_of_features_takes_arrays_by_name(tmp_path):
    path = artifacts.save(
        artifacts.features_model(), tmp_path / "f.onnx", labels=list("abc"), inputs=["rgb", "audio"], resize=None
    )
    model = load(path)
    rgb = np.arange(20, dtype=np.uint8).reshape(5, 4)
    audio = np.ones((5, 2), np.uint8)
    scores, _ = model({"rgb": rgb, "audio": audio})
    np.testing.assert_allclose(scores[0], 1 / (1 + np.exp(-rgb[:, :3].sum(0, dtype=float) / 1000)), rtol=1e-5)
    with pytest.raises(DataError, match="takes rgb and audio, got rgb"):
        model(rgb)
    with pytest.raises(DataError, match="must have one length"):
        model({"rgb": rgb, "audio": audio[:3]})
    with pytest.raises(ModelError, match="takes rgb and audio as arrays, no video"):
        model.classify("clip.mp4")
    with pytest.raises(ModelError, match="not frames"):
        _ = model.input_size


# Files that contradict the contract.


def broken(change):
    model = artifacts.classifier()
    change(model)
    return model


def rename_output(model, old, new):
    for values in (model.graph.node, []):
        for node in values:
            node.output[:] = [new if name == old else name for name in node.output]
            node.input[:] = [new if name == old else name for name in node.input]
    for value in model.graph.output:
        value.name = new if value.name == old else value.name


def fix(model, index, size):
    model.graph.input[index].type.tensor_type.shape.dim[0].dim_value = size


def enlarge(model):
    for value in (model.graph.input[1], model.graph.output[1]):
        value.type.tensor_type.shape.dim[1].dim_value = 2**27


CONTRADICTIONS = {
    "huge state": (enlarge, {}, "input state.sum has the absurd shape"),
    "fixed T": (lambda m: fix(m, 0, 25), {}, "input frames must have a free first dimension"),
    "fixed N": (lambda m: fix(m, 1, 1), {}, "input state.sum must have a free first dimension"),
    "no next": (lambda m: rename_output(m, "next_state.sum", "sum"), {}, "neither in metadata inputs nor a state"),
    "no scores": (lambda m: rename_output(m, "scores", "y"), {}, "scores and their labels must both be there"),
    "no boxes": (lambda m: None, {"box_labels": ["person"]}, "boxes and their labels must both be there"),
    "labels": (lambda m: None, {"labels": ["a", "b"]}, "4 scores, but 2 labels"),
    "inputs": (lambda m: None, {"inputs": ["rgb"], "resize": None}, "metadata name the input rgb, the graph has none"),
    "float": (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 1), {}, "input frames is float32"),
}


@pytest.mark.parametrize("name", list(CONTRADICTIONS))
def test_a_file_that_contradicts_the_contract_is_refused(tmp_path, name):
    change, metadata, why = CONTRADICTIONS[name]
    path = artifacts.save(broken(change), tmp_path / "m.onnx", **metadata)
    with pytest.raises(ModelError, match=why) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_operator_that_the_runtime_does_not_know_is_one_line(tmp_path):
    model = artifacts.classifier()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"NoSuchOperator .* is an operator that no model of ours has") as caught:
        load(artifacts.save(model, tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)


def test_an_unknown_provider_is_named(model):
    with pytest.raises(DependencyError, match="unknown provider 'tpu'; known: cpu"):
        load(model.path, provider="tpu")
    with pytest.raises(DependencyError, match="has no DmlExecutionProvider"):
        load(model.path, provider="directml")


def test_a_model_that_is_loaded_does_not_need_its_file(tmp_path, clip):
    path = artifacts.save(artifacts.classifier(), tmp_path / "m.onnx")
    model = load(path)
    path.unlink()
    assert model(clip)[0].shape == (1, 4)


def test_onnx_itself_finds_the_test_models_valid():
    for model in (artifacts.classifier(), artifacts.detector(), artifacts.features_model()):
        onnx.checker.check_model(model, full_check=True)


def test_a_model_tells_a_person_what_it_is(tiny_run):
    model, size = load(tiny_run.model), tiny_run.model.stat().st_size
    accuracy = tiny_run.result["metrics"]["accuracy"]
    text = repr(model)
    assert text.startswith(f"Model('{tiny_run.model}': 8 labels (")
    assert f", ...), bytes {size:,}, frames 64 x 64 x 3, rate 8 frames/s, accuracy {accuracy:.3f} (split test))" in text
    assert f"<tr><th>bytes</th><td>{size:,}</td></tr>" in model._repr_html_()


def test_a_page_of_a_notebook_is_no_place_for_a_label_that_is_markup(tiny_run):
    model = load(tiny_run.model)
    model.labels = ("<script>", *model.labels[1:])
    assert "<script>" not in model._repr_html_()
    assert "&lt;script&gt;" in model._repr_html_()


def test_a_list_of_clips_gives_the_list_of_their_answers(tiny_run, tmp_path):
    model, clips = load(tiny_run.model, threads=1), sorted(tiny_run.clips.rglob("*.mp4"))[:3]
    assert model.classify(clips) == [model.classify(clip) for clip in clips]
    assert model.classify([]) == []
    with pytest.raises(DataError, match="absent"):
        model.classify([clips[0], tmp_path / "absent.mp4"])
