"""Pictures with boxes as training sees them: windows move boxes as they move pixels, draws can be repeated."""

import numpy as np
import pytest
from PIL import Image

from vidlet.datasets import read_boxes
from vidlet.errors import DataError, RecipeError
from vidlet.training import Draw
from vidlet.training.box_batches import (
    EMPTY,
    BoxClips,
    check_box_amounts,
    draw_window,
    look_through,
    move_boxes,
    recolor,
)

AMOUNTS = {"jitter": 0.2, "flip": 0.5, "hue": 0.1, "saturation": 1.5, "exposure": 1.5}


@pytest.fixture
def squares(tmp_path):
    """Six gray pictures with one bright rectangle each, and YOLO's text files that say where."""
    rng = np.random.default_rng(0)
    for i in range(6):
        picture = np.full((80, 120, 3), 60, np.uint8)
        x, y = rng.integers(10, 60), rng.integers(10, 30)
        picture[y : y + 30, x : x + 40] = (250, 30, 30)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"0 {(x + 20) / 120} {(y + 15) / 80} {40 / 120} {30 / 80}\n")
    (tmp_path / "classes.txt").write_text("square\n")
    return tmp_path


def bright(picture):
    """x1 y1 x2 y2 of the reddish pixels, relative."""
    rows, columns = np.nonzero((picture[..., 0].astype(int) - picture[..., 1]) > 80)
    height, width = picture.shape[:2]
    return [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]


@pytest.mark.parametrize("seed", range(12))
def test_a_box_stays_on_its_object_through_windows_and_mirrors(seed):
    rng = np.random.default_rng(seed)
    picture = np.full((96, 128, 3), 60, np.uint8)
    picture[40:70, 50:90] = (250, 30, 30)
    box = np.array([[50 / 128, 40 / 96, 90 / 128, 70 / 96]], np.float32)
    window, flip = draw_window(0.25, rng), bool(seed % 2)
    seen = look_through(picture, window, (64, 96), flip)
    moved, kept = move_boxes(box, window, flip)
    assert kept.all() and seen.shape == (64, 96, 3)
    np.testing.assert_allclose(moved[0], bright(seen), atol=0.025)


def test_what_lies_outside_of_the_picture_is_gray_and_its_boxes_are_cut_or_gone():
    picture = np.zeros((50, 50, 3), np.uint8)
    seen = look_through(picture, (-0.5, 0.0, 0.5, 1.0), (40, 40), False)
    assert (seen[:, :20] == EMPTY).all() and (seen[:, 20:] == 0).all()
    boxes = np.array([[0.4, 0.2, 0.8, 0.4], [0.6, 0, 1, 1], [0, 0, 0.2, 0.2]], np.float32)
    moved, kept = move_boxes(boxes, (-0.5, 0.0, 0.5, 1.0), False)
    assert kept.tolist() == [True, False, True]
    np.testing.assert_allclose(moved[[0, 2]], [[0.9, 0.2, 1, 0.4], [0.5, 0, 0.7, 0.2]], atol=1e-6)


def test_recoloring_changes_what_it_says_and_nothing_by_nothing():
    picture = np.array([[[200, 100, 50], [10, 20, 200]]], np.uint8)
    assert recolor(picture, 0, 1, 1) is picture
    np.testing.assert_allclose(recolor(picture, 0, 1, 0.5), picture // 2, atol=2)
    gray = recolor(picture, 0, 0, 1)
    assert (gray == picture.max(2, keepdims=True)).all()
    np.testing.assert_allclose(recolor(picture, 1 / 3, 1, 1)[0, 0], [50, 200, 100], atol=6)


def test_batches_can_be_repeated_and_differ_between_epochs(squares):
    clips = BoxClips(read_boxes(squares), (64, 96), larger=True)
    first, again, other = (
        [*clips.batches(Draw(4, [3, 1, 0, 5, 2], AMOUNTS | {"scales": 1}, (7, epoch)))] for epoch in (0, 0, 1)
    )
    assert [len(batch.names) for batch in first] == [4, 1] and first[0].names == ("3.png", "1.png", "0.png", "5.png")
    for a, b in zip(first, again, strict=True):
        assert (a.pictures == b.pictures).all() and all(
            (x == y).all() for x, y in zip(a.targets, b.targets, strict=True)
        )
    assert not np.array_equal(first[0].targets.boxes.numpy(), other[0].targets.boxes.numpy())


def test_pictures_as_they_are_have_the_boxes_as_they_are(squares):
    table = read_boxes(squares)
    clips = BoxClips(table, (64, 96))
    (batch,) = clips.batches(Draw(8, range(6)))
    assert batch.pictures.shape == (6, 3, 64, 96)
    for i in range(6):
        x, y, width, height = batch.targets.boxes[i, 0].tolist()
        corners = table.truth(table.images[i])[0][0]
        np.testing.assert_allclose([x - width / 2, y - height / 2, x + width / 2, y + height / 2], corners, atol=1e-6)
        picture = batch.pictures[i].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(bright(picture), corners, atol=0.02)


def test_scales_give_sizes_of_whole_cells(squares):
    clips = BoxClips(read_boxes(squares), (96, 128))
    sizes = {
        tuple(b.pictures.shape[2:]) for e in range(12) for b in clips.batches(Draw(6, range(6), {"scales": 1}, (e,)))
    }
    assert sizes == {(64, 96), (96, 128), (128, 160)}


def test_a_picture_that_does_not_decode_is_named_and_nothing_else_lost(squares):
    whole = (squares / "2.png").read_bytes()
    (squares / "2.png").write_bytes(whole[:60])  # its head can be read
    clips = BoxClips(read_boxes(squares), (64, 96))
    assert len(clips) == 5 and [path.rpartition("/")[2] for path, _ in clips.failures] == ["2.png"]
    assert "not a readable image" in clips.failures[0][1]
    for i in range(6):
        (squares / f"{i}.png").write_bytes(whole[:60])
    with pytest.raises(DataError, match="no image of this split can be decoded"):
        BoxClips(read_boxes(squares), (64, 96))


@pytest.mark.parametrize(
    ("amounts", "why"),
    [({"jiter": 0.2}, "did you mean jitter"), ({"hue": -1}, "must be a number >= 0"), ({"jitter": 0.5}, "below 0.5"),
     ({"exposure": 0.5}, "a factor of at least 1"), ({"flip": True}, "must be a number")],
)  # fmt: skip
def test_wrong_augmentations_are_named(amounts, why):
    with pytest.raises(RecipeError, match=why):
        check_box_amounts(amounts)
    check_box_amounts(AMOUNTS)
