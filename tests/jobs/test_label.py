"""A detector labels videos: YOLO's files that the reader takes, split by video, doubtful pictures left out."""

import json

import numpy as np
import onnx
import pytest

import vidlet
from toy_detectors import SIZE, yolox
from vidlet.datasets import read_boxes
from vidlet.errors import DataError, RecipeError
from vidlet.jobs.export import export
from vidlet.video import write_video


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """It finds a red cell of 16 x 16 pixels: "dog" of 20 x 12 around it, with .9 times how red it is."""
    folder = tmp_path_factory.mktemp("detector")
    onnx.save(yolox(), folder / "theirs.onnx")
    (folder / "two.names").write_text("cat\ndog\n")
    export(folder / "theirs.onnx", folder / "things.onnx")
    return folder / "things.onnx"


def film(path, reds, seconds=4):
    """A video of one frame a second, whose k-th shows a cell of column 1 + k % 2 that is so red."""
    frames = np.zeros((seconds, SIZE, SIZE, 3), np.uint8)
    for k, red in enumerate(reds):
        frames[k, 16:32, 16 * (1 + k % 2) : 16 * (2 + k % 2), 0] = red
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, fps=1)
    return path


def test_boxes_become_a_data_set_that_is_split_by_video(detector, tmp_path):
    for n in range(12):
        film(tmp_path / "street" / f"{n}.mp4", [250, 250, 250, 250])
    found = vidlet.label(detector, tmp_path / "street", tmp_path / "boxes", ["dog"])
    assert found["metrics"]["images"] == 48
    assert found["metrics"]["per_class"] == {"dog": 48}
    table = read_boxes(tmp_path / "boxes")
    assert table.labels == ("dog",)
    counts = {split: sum(image.split == split for image in table) for split in ("train", "val", "test")}
    assert sum(counts.values()) == 48
    assert min(counts.values()) >= 4
    videos = {}
    for image in table:
        videos.setdefault(image.path.name.split("-")[0], set()).add(image.split)
    assert all(len(splits) == 1 for splits in videos.values())
    first = sorted(image.path for image in table)[0]
    boxes, _, _ = table.truth(next(image for image in table if image.path == first))
    np.testing.assert_allclose(boxes[0], np.array([14, 18, 34, 30]) / SIZE, atol=0.02)
    told = json.loads((tmp_path / "boxes" / "labelled_by.json").read_text())
    assert (told["detector"], told["threshold"]) == ("things.onnx", 0.5)


def test_doubtful_pictures_are_left_out_and_of_empty_ones_a_tenth_is_kept(detector, tmp_path):
    video = film(tmp_path / "a.mp4", [250] * 10 + [100] * 5 + [0] * 25, seconds=40)
    metrics = vidlet.label(detector, video, tmp_path / "boxes")["metrics"]
    assert (metrics["boxes"], metrics["doubtful"]) == (10, 5)
    assert 1 <= metrics["empty"] <= 2
    assert metrics["images"] == 10 + metrics["empty"]


def test_one_video_is_split_by_time_and_most_pictures_are_spread_over_it(detector, tmp_path):
    video = film(tmp_path / "a.mp4", [250] * 40, seconds=40)
    found = vidlet.label(detector, video, tmp_path / "boxes", most=20)
    assert found["metrics"]["images"] == 20
    times = {
        split: [int(path.stem.rsplit("-", 1)[1]) for path in sorted((tmp_path / "boxes/images" / split).iterdir())]
        for split in ("train", "val", "test")
    }
    assert max(times["train"]) < min(times["val"]) <= max(times["val"]) < min(times["test"])
    assert max(times["test"]) == 39000


def test_what_cannot_be_labelled_is_said_and_leaves_nothing(detector, tmp_path):
    video = film(tmp_path / "videos" / "a.mp4", [250] * 4)
    (tmp_path / "videos" / "b.mp4").write_bytes(b"no video")
    found = vidlet.label(detector, tmp_path / "videos", tmp_path / "boxes")
    assert [item["path"] for item in found["skipped"]] == [str(tmp_path / "videos" / "b.mp4")]
    with pytest.raises(DataError, match="is there already"):
        vidlet.label(detector, video, tmp_path / "boxes")
    with pytest.raises(DataError, match="does not know cow; it knows cat, dog"):
        vidlet.label(detector, video, tmp_path / "new", ["cow"])
    with pytest.raises(DataError, match=r"no box of a score of 0\.95 in 4 pictures"):
        vidlet.label(detector, video, tmp_path / "new", threshold=0.95)
    with pytest.raises(RecipeError, match=r"threshold must be from 0\.001 to 1"):
        vidlet.label(detector, video, tmp_path / "new", threshold=2)
    assert not (tmp_path / "new").exists()
