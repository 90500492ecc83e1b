"""Annotated videos: their own times, a file a source, square pixels."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import artifacts
from vidlet.errors import DataError, RecipeError
from vidlet.jobs.predict import predict
from vidlet.tasks.predictions import save_targets
from vidlet.video import VideoWriter, iter_frames, probe, write_video

RED, BLUE = (250, 0, 0), (0, 0, 250)


def plain(colors):
    return [np.broadcast_to(np.array(color, np.uint8), (48, 64, 3)) for color in colors]


@pytest.fixture
def model(tmp_path):
    sampling = {"rule": "rate", "hz": 8, "median_s": 0.5}
    return artifacts.save(artifacts.classifier(), tmp_path / "model.onnx", sampling=sampling)


def test_an_annotated_video_keeps_the_times_of_its_source(model, tmp_path):
    times = [0, 0.1, 0.15, 0.5, 0.9, 1.3, 1.4, 2.0]
    with VideoWriter(tmp_path / "vfr.mkv", fps=30) as video:
        for time_s, rgb in zip(times, plain([RED] * 8), strict=True):
            video.write(rgb, time_s)
    list(predict(model, tmp_path / "vfr.mkv", save=tmp_path / "out.mp4"))
    np.testing.assert_allclose([frame.time_s for frame in iter_frames(tmp_path / "out.mp4")], times, atol=0.002)


def test_sources_of_one_name_become_files_of_their_own(model, tmp_path):
    folder = tmp_path / "in"
    for name, color in (("a.mp4", RED), ("a.mov", BLUE), ("A.mkv", RED), ("b.mp4", RED)):
        write_video(folder / name, plain([color] * 10), 25)
    found = list(predict(model, folder, save=tmp_path / "out"))
    assert len(found) == 4 and not any("error" in row for row in found)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["A.mkv.mp4", "a.mov.mp4", "a.mp4.mp4", "b.mp4"]


def test_targets_never_fall_together(tmp_path):
    sources = [tmp_path / name for name in ("a.avi", "a.mp4", "a.avi.mp4", "a.avi.mkv", "B.mp4", "b.mov", "s/a.avi")]
    targets = save_targets(sources, tmp_path, tmp_path / "out")
    assert len({str(target).casefold() for target in targets.values()}) == len(sources)
    assert targets[tmp_path / "s" / "a.avi"] == tmp_path / "out" / "s" / "a.mp4"
    with pytest.raises(DataError, match="is a source"):
        save_targets([tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["there.txt", "new.mp4"])
def test_a_file_for_a_folder_of_videos_is_refused_before_the_work(model, tmp_path, name):
    (tmp_path / "there.txt").write_text("keep me")
    for clip in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / clip, plain([RED] * 10), 25)
    with pytest.raises(DataError, match=f"{name}: 2 videos need a folder"):
        next(predict(model, tmp_path / "in", save=tmp_path / name))
    assert (tmp_path / "there.txt").read_text() == "keep me"


def test_a_folder_that_is_there_takes_a_single_video(model, tmp_path):
    write_video(tmp_path / "in" / "a.mkv", plain([RED] * 10), 25)
    (tmp_path / "out").mkdir()
    list(predict(model, tmp_path / "in", save=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]


def test_a_name_that_is_no_video_is_refused_before_the_work(model, tmp_path):
    write_video(tmp_path / "a.mp4", plain([RED] * 10), 25)
    with pytest.raises(DataError, match="a video is written as"):
        next(predict(model, tmp_path / "a.mp4", save=tmp_path / "out.avi"))


@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64)), (Fraction(1), (48, 64))]
)
def test_pixels_that_are_not_square_become_square(model, tmp_path, aspect, shape):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for rgb in plain([RED] * 10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode(None))
    assert probe(tmp_path / "a.mp4").pixel_aspect == pytest.approx(float(aspect))
    list(predict(model, tmp_path / "a.mp4", save=tmp_path / "out.mp4"))
    height, width = next(iter_frames(tmp_path / "out.mp4")).rgb().shape[:2]
    assert height * shape[1] == width * shape[0]


def test_the_rate_of_a_folder_of_frames_is_told(model, tmp_path):
    (tmp_path / "frames").mkdir()
    for number, picture in enumerate(plain([RED] * 10 + [BLUE] * 10)):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{number}.png")
    (slow,) = predict(model, tmp_path / "frames", fps=5, save=tmp_path / "slow.mp4")
    (usual,) = predict(model, tmp_path / "frames")
    assert [segment["label"] for segment in slow["segments"]] == ["red", "blue"]
    assert slow["segments"][-1]["end_s"] == pytest.approx(4.0)
    assert usual["segments"][-1]["end_s"] == pytest.approx(0.8)
    assert probe(tmp_path / "slow.mp4").duration_s == pytest.approx(4.0, abs=0.01)
    with pytest.raises(RecipeError, match=r"fps must be from 0\.001 to 1000"):
        next(predict(model, tmp_path / "frames", fps=float("nan")))
