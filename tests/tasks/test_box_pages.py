"""`vidlet data` of images with boxes: what there is, what is wrong, and a page with boxes drawn."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from boxes_case import write_squares
from shared_data import shared
from vidlet.cli import main
from vidlet.datasets import read_boxes
from vidlet.errors import DataError
from vidlet.tasks import DataSource
from vidlet.tasks.box_pages import draw_boxes, inspect_boxes, write_view
from vidlet.tasks.boxes import read_box_images
from vidlet.video.annotate import BOX


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    root = write_squares(tmp_path_factory.mktemp("data") / "squares")
    whole = (root / "train" / "02.png").read_bytes()
    (root / "train" / "02.png").write_bytes(whole[: len(whole) // 2])
    return root


def test_images_boxes_and_what_is_wrong_are_counted(squares):
    found = inspect_boxes(squares).to_dict()
    assert found["kind"] == "boxes (yolo)" and found["images"] == 24 and found["boxes"] == 24
    assert found["splits"] == {"train": 15, "val": 3, "test": 6}
    assert sum(sum(counts.values()) for counts in found["classes"].values()) == 24
    assert [row["path"] for row in found["broken"]] == ["train/02.png"]
    assert len(found["dropped"]) == 1 and found["dropped"][0]["error"].endswith("no area")
    assert any("1 of 24 images do not decode" in warning for warning in found["warnings"])
    assert any("boxes to train on" in warning for warning in found["warnings"])
    with pytest.raises(DataError):
        inspect_boxes(squares, strict=True)


def test_the_shares_that_training_takes_are_told_where_none_are_given(squares, tmp_path):
    assert not any("training takes" in note for note in inspect_boxes(squares).table.notes)  # all three are given
    (tmp_path / "flat").mkdir()
    for path in (*squares.glob("t*/*.png"), *squares.glob("t*/*.txt")):
        shutil.copy(path, tmp_path / "flat" / path.name)
    shutil.copy(squares / "classes.txt", tmp_path / "flat")
    dealt = Counter(image.split for image in read_box_images(DataSource(tmp_path / "flat")))
    (note,) = [note for note in inspect_boxes(tmp_path / "flat").to_dict()["notes"] if "training takes" in note]
    assert note.startswith("No split is given") and all(f"{name} {dealt[name]} (" in note for name in dealt)
    assert set(dealt) == {"train", "val", "test"}


def test_sides_are_quantiles_of_the_root_of_the_area(squares):
    report = inspect_boxes(squares)
    boxes = [b for image in report.table for b in image.boxes if b.label == "red"]
    areas = sorted(((b.x2 - b.x1) * (b.y2 - b.y1)) ** 0.5 for b in boxes)
    low, middle, high = report.sides()["red"]
    assert areas[0] <= low <= middle <= high <= areas[-1]
    assert middle == pytest.approx(np.median(areas))


def test_a_box_is_drawn_where_it_stands(squares):
    image = next(image for image in read_boxes(squares) if image.path.name == "04.png")
    drawn = draw_boxes(image).astype(int)
    height, width = drawn.shape[:2]
    (box,) = image.boxes
    row, column = int((box.y1 + box.y2) / 2 * height), int(box.x1 * (width - 1))
    assert np.abs(drawn[row, column : column + 2] - BOX).sum(1).min() < 20
    with Image.open(image.path) as small:
        assert small.size != (width, height)  # a small picture is enlarged


def test_the_command_prints_the_counts_and_writes_the_page(squares, tmp_path, capsys):
    page = tmp_path / "boxes.html"
    assert main(["data", str(squares), "--out", str(page)]) == 0
    out = capsys.readouterr().out
    assert "24 images with 24 boxes (yolo), 2 classes" in out and "02.png" in out
    text = page.read_text()
    assert text.count("data:image") >= 20 and "squares: images with boxes" in text and "no area" in text
    assert "train/02.png (" not in text, "an image that does not decode is not drawn"
    assert main(["data", str(squares), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["boxes"] == 24


def test_clips_are_not_taken_for_boxes(motion_clips, capsys, tmp_path):
    assert main(["data", str(motion_clips)]) == 0
    assert "clips" in capsys.readouterr().out
    assert main(["data", str(motion_clips), "--out", str(tmp_path / "a.html")]) == 2


def test_the_real_boxes_are_understood(tmp_path):
    report = inspect_boxes(shared("data", "detection", "bccd"))
    found = report.to_dict()
    assert found["images"] == 364 and set(found["classes"]) == {"RBC", "WBC", "Platelets"}
    assert len(found["dropped"]) == 2 and not found["broken"]  # two boxes are degenerate on purpose
    write_view(report, tmp_path / "bccd.html")
    assert 50_000 < (tmp_path / "bccd.html").stat().st_size < 2_000_000
