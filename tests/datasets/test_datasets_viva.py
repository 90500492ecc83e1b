"""Depth beside intensity: twin folders as one table, and their clips as Wang et al.'s networks see them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidlet.datasets import read_table
from vidlet.datasets.viva import depth_of, twin_folders
from vidlet.errors import DataError
from vidlet.models.extractor import Pixels, sobel_magnitude
from vidlet.reproductions import tt3dcnn
from vidlet.reproductions.protocol import copies
from vidlet.tasks.joint_depth import small_clips
from vidlet.training.augment import transform_frames


def clip(folder: Path, values: list[int], size: tuple[int, int] = (250, 115)) -> None:
    folder.mkdir(parents=True)
    for number, value in enumerate(values):
        Image.new("L", size, value).save(folder / f"{number:03d}.png")


@pytest.fixture
def viva(tmp_path):
    """Four clips of two gestures and two subjects; intensity rises over 64 frames, depth falls."""
    tmp_path = tmp_path / "viva"
    for name in ("01_01_01", "01_02_01", "02_01_01", "02_02_01"):
        clip(tmp_path / "intensity" / name, list(range(64)))
        clip(tmp_path / "depth" / name, list(range(164, 100, -1)))
    return tmp_path


def test_twin_folders_are_clips_of_intensity_with_their_depth_beside_them(viva):
    table = read_table(viva)
    assert [(c.label, c.group) for c in table] == [
        (f"gesture {gesture:02d}", f"subject{subject:02d}") for gesture in (1, 2) for subject in (1, 2)
    ]
    assert table.clips[0].path == viva / "intensity" / "01_01_01"
    assert depth_of(table.clips[0].path, twin_folders(viva)) == viva / "depth" / "01_01_01"
    assert "classes.txt" in table.notes[0]
    assert len(list(copies(table))) == 4  # a number does not say whether a gesture has a direction
    (viva / "classes.txt").write_text("tap\nswipe left\n")
    named = read_table(viva)
    assert named.labels == ("swipe left", "tap")
    assert len(list(copies(named))) == 16
    (viva / "classes.txt").write_text("tap\n")
    with pytest.raises(DataError, match="has 1 names; 02_01_01 is of gesture 2"):
        read_table(viva)


def test_a_clip_without_its_depth_is_listed_and_other_folders_are_no_twins(viva):
    (viva / "depth" / "02_02_01").rename(viva / "depth" / "02_02_09")
    table = read_table(viva)
    assert len(table) == 3 and "no clip of its name in depth" in table.skipped[0][1]
    (viva / "third").mkdir()
    assert twin_folders(viva) is None
    assert twin_folders(viva / "depth") is None


def test_classes_that_are_called_so_are_no_twins(tmp_path):
    for label in ("color_guard", "depth_jump"):
        clip(tmp_path / label / "001", [1, 2])
    assert twin_folders(tmp_path) is None
    assert read_table(tmp_path).labels == ("color_guard", "depth_jump")


def test_classes_may_be_folders(tmp_path):
    for kind in ("rgb_videos", "depth_videos"):
        for label in ("tap", "wave"):
            clip(tmp_path / kind / label / "p1", [5, 6])
    table = read_table(tmp_path)
    assert [(c.label, c.path.name) for c in table] == [("tap", "p1"), ("wave", "p1")]
    assert depth_of(table.clips[1].path, twin_folders(tmp_path)) == tmp_path / "depth_videos" / "wave" / "p1"


def test_small_clips_have_the_nearest_of_their_frames_and_depth_in_green(viva, tmp_path):
    out = tmp_path / "small"
    assert small_clips(viva, out)["metrics"] == {"clips": 4, "computed": 4}
    assert small_clips(viva, out)["metrics"]["computed"] == 0  # what is there is kept
    table = read_table(out)
    assert {c.group for c in table} == {"subject01", "subject02"}
    frames = [np.array(Image.open(path)) for path in sorted(table.clips[0].path.glob("*.png"))]
    assert len(frames) == 32 and frames[0].shape == (28, 62, 3)
    assert [int(f[0, 0, 0]) for f in frames] == list(range(1, 64, 2))  # floor((k + .5) 64 / 32)
    assert [int(f[0, 0, 1]) for f in frames] == list(range(163, 100, -2))
    assert all((f[..., 0] == f[..., 2]).all() for f in frames)


def test_pictures_of_other_data_of_the_same_names_are_made_anew(viva, tmp_path):
    out = tmp_path / "small"
    small_clips(viva, out)
    changed = viva / "intensity" / "01_01_01"
    for path in changed.iterdir():
        path.unlink()
    changed.rmdir()
    clip(changed, [7] * 64)
    assert small_clips(viva, out)["metrics"] == {"clips": 4, "computed": 1}
    assert np.array(Image.open(out / "intensity" / "01_01_01" / "00000.png"))[0, 0, 0] == 7


def test_small_clips_are_bicubic(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (96, 96), np.uint8)
    folder = tmp_path / "set" / "wave" / "a"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(picture).save(folder / f"{number}.png")
    for label in ("tap", "push"):
        clip(tmp_path / "set" / label / "a", [1, 2])
    small_clips(tmp_path / "set", tmp_path / "small")
    found = np.array(Image.open(tmp_path / "small" / "wave" / "a" / "00000.png"))
    expected = np.array(Image.fromarray(picture).resize((62, 28), Image.Resampling.BICUBIC))
    assert (found == expected[..., None]).all()
    other = np.array(Image.fromarray(picture).resize((62, 28), Image.Resampling.BILINEAR))
    assert not (found == other[..., None]).all()


def test_the_networks_see_intensity_depth_and_the_gradient_of_intensity():
    pictures = torch.randn(2, 3, 6, 7)
    found = Pixels("intensity-depth-sobel")(pictures)
    assert torch.equal(found[:, :2], pictures[:, :2])
    assert torch.equal(found[:, 2:], sobel_magnitude(pictures[:, :1]))


def test_intensity_and_depth_change_apart():
    frames = torch.full((2, 3, 4, 4), 100.0)
    frames[:, ::2, :2] = 50.0
    rng = np.random.default_rng
    depth = transform_frames(frames, {"depth_brighten": 0.5}, rng(1))
    assert torch.equal(depth[:, ::2], frames[:, ::2])
    assert 100 < depth[0, 1, 0, 0] <= 150
    light = transform_frames(frames, {"intensity_contrast": 0.25}, rng(1))
    assert torch.equal(light[:, 1], frames[:, 1])
    assert torch.equal(light[:, 0], light[:, 2])
    assert (light[0, 0, 3, 3] - light[0, 0, 0, 0]).item() != 50.0
    assert light[:, 0].mean().item() == pytest.approx(75.0, abs=1e-3)


def test_the_papers_protocol_takes_depth_where_it_is_there(viva):
    with_depth, without = (tt3dcnn.cases(path)[0] for path in (viva, viva / "intensity"))
    assert with_depth.changes["extractor.cut"] == "intensity-depth-sobel"
    assert with_depth.changes["training.augment"]["depth_brighten"] == 0.5
    assert "extractor.cut" not in without.changes and with_depth.small and without.small
