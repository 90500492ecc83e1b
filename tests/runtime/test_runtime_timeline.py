"""A timeline names what happens when, whatever the length: by hand, against a slow count, and in constant memory."""

import itertools
import re

import av
import numpy as np
import pytest
from PIL import Image

import artifacts
from artifacts import SIZE, expected_scores, frames_of
from shared_data import shared
from vidlet.errors import DataError, ModelError
from vidlet.runtime import Segment, StaggeredWindows, load, predict_timeline, segments_from_scores, watch
from vidlet.video import LiveSource, write_video

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90)
AB = ("a", "b")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """8 frames a second, clips of 2 s: windows of 16 frames, strides of 4 (half a second)."""
    return load(artifacts.save(artifacts.classifier(), tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


@pytest.fixture
def folder_of(tmp_path):
    """Seconds of plain color as a folder of pictures, 25 a second."""

    def write(*parts, name="clip"):
        path = tmp_path / name
        path.mkdir()
        colors = [color for color, seconds in parts for _ in range(round(25 * seconds))]
        for number, color in enumerate(colors):
            Image.new("RGB", (SIZE[1], SIZE[0]), color).save(path / f"{number:05}.png")
        return path

    return write


# Segments out of scores, by hand.


def test_equal_neighbors_become_one_segment_with_their_mean_score():
    found = segments_from_scores([0, 1, 2], [[0.9, 0.1], [0.7, 0.3], [0.1, 0.9]], AB)
    assert found == [Segment(0, 2, "a", pytest.approx(0.8)), Segment(2, 3, "b", 0.9)]


def test_scores_below_the_threshold_name_nothing():
    found = segments_from_scores([0, 1, 2], [[0.9, 0.1], [0.55, 0.45], [0.1, 0.9]], AB, threshold=0.6)
    assert found == [Segment(0, 1, "a", 0.9), Segment(2, 3, "b", 0.9)]
    assert segments_from_scores([0, 1], [[0.5, 0.5], [0.4, 0.6]], AB, threshold=0.7) == []


def test_the_threshold_itself_is_enough():
    assert segments_from_scores([0, 1], [[0.5, 0.2], [0.1, 0.2]], AB, threshold=0.5) == [Segment(0, 1, "a", 0.5)]


def test_what_is_shorter_than_the_minimum_is_dropped_and_the_gap_bridged():
    scores = [[0.9, 0.1]] * 3 + [[0.1, 0.9]] + [[0.9, 0.1]] * 3
    found = segments_from_scores(np.arange(7), scores, AB, min_s=2)
    assert found == [Segment(0, 7, "a", pytest.approx(0.9))]
    assert [s.label for s in segments_from_scores(np.arange(7), scores, AB, min_s=1)] == ["a", "b", "a"]


def test_a_gap_as_long_as_the_minimum_stays():
    scores = [[0.9, 0.1]] * 3 + [[0.2, 0.2]] * 2 + [[0.9, 0.1]] * 3
    found = segments_from_scores(np.arange(8), scores, AB, min_s=2)
    assert [(s.start_s, s.end_s) for s in found] == [(0, 3), (5, 8)]


def test_the_last_segment_ends_where_it_is_told():
    assert segments_from_scores([0, 2], [[1, 0], [1, 0]], AB, end_s=2.5) == [Segment(0, 2.5, "a", 1.0)]
    assert segments_from_scores([0, 2], [[1, 0], [1, 0]], AB) == [Segment(0, 4, "a", 1.0)]
    assert segments_from_scores([], np.zeros((0, 2)), AB) == []


def test_many_labels_have_a_segment_each_and_overlap():
    scores = [[0.9, 0.1], [0.8, 0.7], [0.2, 0.7]]
    found = segments_from_scores([0, 1, 2], scores, AB, multi_label=True)
    assert found == [Segment(0, 2, "a", pytest.approx(0.85)), Segment(1, 3, "b", pytest.approx(0.7))]


def test_scores_are_weighted_by_how_long_they_hold():
    found = segments_from_scores([0, 3], [[1.0, 0], [0.6, 0]], AB, end_s=4)
    assert found == [Segment(0, 4, "a", pytest.approx(0.9))]


# Windows.


@pytest.mark.parametrize(("length", "windows"), [(16, 4), (16, 1), (15, 4), (3, 4), (1, 4), (7, 2)])
def test_every_window_has_seen_exactly_the_frames_since_its_start(model, length, windows):
    frames = np.random.default_rng(0).integers(0, 256, (50, *SIZE, 3), np.uint8)
    staggered = StaggeredWindows(model, length, windows, whole=True)
    for count, frame in enumerate(frames, 1):
        staggered.push(frame)
        np.testing.assert_allclose(staggered.scores[-1], expected_scores(frames[:count]), atol=1e-5)
        newest = (count - 1) // staggered.stride
        for window in range(max(newest - staggered.windows + 1, 0), newest + 1):
            seen = frames[window * staggered.stride : count]
            assert staggered.age(window) == len(seen)
            np.testing.assert_allclose(staggered.row(window), expected_scores(seen), atol=1e-5)
    assert staggered.age(staggered.oldest) > staggered.length - staggered.stride


# Timelines.


def slow_timeline(frames, length, windows, rate=8.0):
    """Scores (blocks, K) and starts of the blocks of a long video, by counting over all windows at once."""
    stride = max(1, round(length / windows))
    length = stride * windows
    spoken = {}
    for window in range(-(-len(frames) // stride)):
        seen = frames[window * stride : window * stride + length]
        if 2 * len(seen) >= length:
            spoken[window] = expected_scores(seen)
    rows, starts = [], []
    for block in range(-(-len(frames) // stride)):
        covering = [spoken[w] for w in range(block - windows + 1, block + 1) if w in spoken]
        rows.append(np.mean(covering or [spoken[max(spoken)]], axis=0))
        starts.append(block * stride / rate)
    return starts, rows


@pytest.mark.parametrize("windows", [1, 2, 4])
@pytest.mark.parametrize("seconds", [3.2, 4.0, 5.0, 6.4, 9.4])
def test_a_long_video_is_judged_by_the_windows_that_cover_each_moment(model, tmp_path, windows, seconds):
    frames = np.random.default_rng(3).integers(0, 256, (round(25 * seconds), *SIZE, 3), np.uint8)
    frames[:, :, :, 0] |= 128
    frames[len(frames) // 2 :, :, :, 2] |= 192
    folder = tmp_path / "clip"
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:05}.png")
    seen = frames[[int(k * 25 / 8 + 1e-6) for k in range(int(np.ceil(seconds * 8 - 1e-6)))]]
    starts, rows = slow_timeline(seen, 16, windows)
    found = predict_timeline(model, folder, threshold=0.3, min_s=0.5, windows=windows)
    expected = segments_from_scores(starts, rows, model.labels, 0.3, 0.5, end_s=seconds)
    assert [s.label for s in found.segments] == [s.label for s in expected]
    for got, wanted in zip(found.segments, expected, strict=True):
        assert (got.start_s, got.end_s) == pytest.approx((wanted.start_s, wanted.end_s))
        assert got.score == pytest.approx(wanted.score, abs=1e-5)
    weights = np.diff([*starts, seconds])
    mean = np.average(rows, axis=0, weights=weights)
    np.testing.assert_allclose(list(found.scores.values()), mean, atol=1e-5)
    assert found.duration_s == pytest.approx(seconds)
    assert found.frames == len(seen)


def test_three_things_one_after_the_other_are_found_at_their_times(model, folder_of):
    found = predict_timeline(model, folder_of((RED, 5), (GREEN, 4), (BLUE, 6)))
    assert [s.label for s in found.segments] == ["red", "green", "blue"]
    bounds = [s.start_s for s in found.segments] + [found.segments[-1].end_s]
    np.testing.assert_allclose(bounds, [0, 5, 9, 15], atol=0.51)  # a stride is 0.5 s
    assert found.label == "blue"


def test_finer_windows_find_borders_more_finely(model, folder_of):
    path = folder_of((RED, 5.2), (BLUE, 5.1))
    errors = []
    for windows in (2, 16):
        found = predict_timeline(model, path, windows=windows)
        errors.append(abs(found.segments[0].end_s - 5.2))
    assert errors[1] <= errors[0]
    assert errors[1] < 0.2


def test_none_of_these_is_an_answer(model, folder_of):
    found = predict_timeline(model, folder_of((RED, 4), (GREY, 6), (BLUE, 4)), threshold=0.6)
    assert [s.label for s in found.segments] == ["red", "blue"]
    assert found.segments[1].start_s - found.segments[0].end_s >= 4


@pytest.mark.parametrize("seconds", [0.04, 0.8, 2.0, 2.8])
def test_a_short_clip_has_one_segment_with_the_scores_of_classify(model, folder_of, seconds):
    path = folder_of((GREEN, seconds / 2), (GREEN, seconds / 2)) if seconds > 0.1 else folder_of((GREEN, seconds))
    found, whole = predict_timeline(model, path), model.classify(path)
    assert (found.label, found.score) == (whole.label, pytest.approx(whole.score, abs=1e-5))
    np.testing.assert_allclose(list(found.scores.values()), list(whole.scores.values()), atol=1e-5)
    assert [(s.start_s, s.end_s, s.label) for s in found.segments] == [(0.0, pytest.approx(seconds), "green")]


def test_a_short_clip_with_damage_inside_is_what_classify_says(model, tmp_path):
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "rgb24"
        for number in range(50):
            color = RED if number < 20 else GREEN
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((*SIZE, 3), color, np.uint8), format="rgb24")))
        out.mux(stream.encode())
    data = path.read_bytes()
    places = [found.start() for found in re.finditer(b"IDAT", data)]
    path.write_bytes(data[: places[20]] + b"XXXX\xff\xff" + data[places[20] + 6 :])
    whole = model.classify(path)
    found = predict_timeline(model, path)
    assert whole.damage and found.damage
    assert found.scores == pytest.approx(whole.scores, abs=1e-6)
    assert whole.label == "red"  # what follows the damage is not looked at


def test_a_short_clip_of_a_uniform_model_is_what_classify_says(tmp_path, folder_of):
    model = load(
        artifacts.save(
            artifacts.classifier(), tmp_path / "u.onnx", sampling={"rule": "uniform", "frames": 5, "median_s": 2.0}
        )
    )
    path = folder_of((RED, 0.3), (BLUE, 1.2))
    found, whole = predict_timeline(model, path), model.classify(path)
    np.testing.assert_allclose(list(found.scores.values()), list(whole.scores.values()), atol=1e-6)


def test_a_minimum_longer_than_the_clip_leaves_no_segment(model, folder_of):
    path = folder_of((RED, 1))
    assert predict_timeline(model, path, min_s=1.5).segments == ()
    assert predict_timeline(model, path, min_s=1.0).segments != ()


def test_progress_counts_frames(model, folder_of):
    counted = []
    found = predict_timeline(model, folder_of((RED, 4)), progress=counted.append)
    assert counted == list(range(1, found.frames + 1))


def test_many_labels_may_overlap_in_time(tmp_path, folder_of):
    path = artifacts.save(artifacts.classifier(sigmoid=True), tmp_path / "s.onnx", multi_label=True)
    found = predict_timeline(load(path), folder_of((RED, 4), ((255, 255, 0), 4), (GREEN, 4)), threshold=0.95)
    red, green = sorted(found.segments, key=lambda s: s.label, reverse=True)
    assert (red.label, green.label) == ("red", "green")
    assert red.end_s - green.start_s > 3


def test_a_detector_has_no_timeline(tmp_path, folder_of):
    model = load(artifacts.save(artifacts.detector(), tmp_path / "d.onnx", labels=[], box_labels=["all", "left"]))
    with pytest.raises(ModelError, match="names no clips"):
        predict_timeline(model, folder_of((RED, 1)))


def test_a_video_that_cannot_be_read_is_named(model, tmp_path):
    with pytest.raises(DataError, match=r"none\.mp4"):
        predict_timeline(model, tmp_path / "none.mp4")


def test_memory_does_not_grow_with_the_length(model, monkeypatch):
    """An hour of video: what is held at its end is what is held after a minute."""
    import gc
    import tracemalloc

    from vidlet.runtime import timeline

    picture, held = frames_of([RED])[0], []

    def endless(source, hz, size, on_damage=None, start_s=None, end_s=None, fps=None):
        for tick in range(3600 * 4):
            if tick in (600, 3600 * 4 - 1):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
            yield tick / hz, picture

    monkeypatch.setattr(timeline, "sampled_frames", endless)
    monkeypatch.setattr(timeline, "_end_of", lambda source, last_s, next_s, fps: next_s)
    monkeypatch.setattr(model, "run", _cheap_run(model.run))
    tracemalloc.start()
    found = predict_timeline(model, "hour.mp4")
    tracemalloc.stop()
    assert found.frames == 3600 * 4
    assert found.duration_s == 1800
    assert held[1] - held[0] < 20_000


def _cheap_run(run):
    """The model's first answers again and again: the state's shapes matter here, not its values."""
    answers = {}

    def again(frames, state):
        rows = len(state["sum"])
        if rows not in answers:
            answers[rows] = run(frames, state)
        return answers[rows]

    return again


def test_a_timeline_of_a_damaged_file_says_so(model):
    timeline = predict_timeline(model, shared("data", "hostile", "decord", "corrupted.mp4"))
    assert "of 50" in timeline.damage
    whole = predict_timeline(model, shared("data", "hostile", "torchcodec", "nasa_13013.mp4"))
    assert whole.damage == ""


# Live.


def test_watching_tells_only_changes(model, folder_of):
    told = list(watch(model, str(folder_of((RED, 5), (GREY, 5), (BLUE, 5))), threshold=0.6))
    assert [m.label for m in told] == ["red", "", "blue"]
    times = [m.time_s for m in told]
    assert times[0] == 0
    assert 5 < times[1] < 7
    assert 10 < times[2] < 12


def test_a_source_shorter_than_the_minimum_is_told_at_its_end(model, folder_of):
    assert [m.label for m in watch(model, str(folder_of((RED, 0.4))), threshold=0.6)] == ["red"]


def test_a_short_flicker_is_not_told(model, folder_of):
    path = str(folder_of((RED, 5), (BLUE, 0.8), (RED, 5)))
    assert [m.label for m in watch(model, path, threshold=0.4, min_s=2.0)] == ["red"]


def test_watching_a_detector_tells_when_its_boxes_change(tmp_path, folder_of):
    model = load(artifacts.save(artifacts.detector(), tmp_path / "d.onnx", labels=[], box_labels=["all", "left"]))
    told = list(watch(model, str(folder_of((BLUE, 2), (RED, 2), ((180, 0, 0), 2))), threshold=0.5, min_s=0.2))
    assert [m.boxes[:, 5].tolist() for m in told] == [[], [0.0, 1.0], [0.0]]
    assert [m.time_s for m in told] == [0, 2, 4]


def test_a_live_source_is_sampled_at_the_rate_of_training(model, tmp_path):
    frames = np.repeat(np.repeat(frames_of([RED] * 20), 8, axis=1), 8, axis=2)
    write_video(tmp_path / "clip.mp4", list(frames), 20)
    with LiveSource(str(tmp_path / "clip.mp4")) as source:  # one second, played at its own speed
        moments = list(model.stream(source))
    assert 5 <= len(moments) <= 9
    assert all(later.time_s - earlier.time_s > 0.09 for earlier, later in itertools.pairwise(moments))
    assert moments[-1].label == "red"


# None of these.


@pytest.fixture(scope="module")
def model_of_none(tmp_path_factory):
    """The same classifier, whose class "blue" means none of the others, with a threshold of its own."""
    path = tmp_path_factory.mktemp("none") / "model.onnx"
    none = {"label": "blue", "threshold": 0.35}
    return load(artifacts.save(artifacts.classifier(), path, none=none), threads=1)


def test_the_class_that_means_none_names_no_segment(model_of_none, folder_of):
    path = folder_of((RED, 5), (BLUE, 6), (GREEN, 4))
    found = predict_timeline(model_of_none, path)
    assert [s.label for s in found.segments] == ["red", "green"]
    assert set(found.scores) == set(artifacts.LABELS)  # it is told among the scores
    assert predict_timeline(model_of_none, path, start_s=6.0, end_s=10.0).segments == ()


def test_a_file_without_a_threshold_has_one_half_and_a_given_one_wins(model, model_of_none, folder_of):
    assert (model.threshold, model.none) == (0.5, "")
    assert (model_of_none.threshold, model_of_none.none) == (0.35, "blue")
    path = folder_of((RED, 4))
    score = predict_timeline(model_of_none, path).score
    assert predict_timeline(model_of_none, path, threshold=score + 1e-3).segments == ()


def test_a_part_of_a_video_has_the_times_of_the_video(model, folder_of):
    found = predict_timeline(model, folder_of((RED, 5), (GREEN, 5)), start_s=3.0, end_s=7.0)
    assert [s.label for s in found.segments] == ["red", "green"]
    assert found.segments[0].start_s == pytest.approx(3.0)
    assert found.segments[-1].end_s == pytest.approx(7.0)


def test_watching_tells_nothing_while_none_is_the_best(model_of_none, folder_of):
    told = [moment.label for moment in watch(model_of_none, folder_of((RED, 4), (BLUE, 8)), windows=2)]
    assert told[0] == "red"
    assert told[-1] == ""
    assert "blue" not in told
