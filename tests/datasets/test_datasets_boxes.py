"""Boxes in three notations: the same table from each, and an account of whatever is wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from shared_data import shared
from vidlet.datasets.box_table import Box
from vidlet.datasets.boxes import box_kind, read_boxes, with_box_splits
from vidlet.datasets.boxes_voc import parse_xml
from vidlet.errors import DataError

PIXELS = {"a": [("cat", 10, 5, 30, 20)], "b": [("dog", 0, 0, 40, 40), ("cat", 4, 8, 12, 16)], "c": []}  # x1 y1 x2 y2
NAN = float("nan")
SIZE = (40, 80)  # height, width


def picture(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (90, 90, 90)).save(path)


def xml(boxes, size=SIZE):
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    size_text = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{size_text}{objects}</annotation>"


def write_voc(root, boxes=PIXELS):
    (root / "Annotations").mkdir(parents=True)
    for name, found in boxes.items():
        picture(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(xml(found))
    return root


def write_coco(root, boxes=PIXELS):
    ids = {"cat": 3, "dog": 7}
    images = [{"id": i, "file_name": f"{n}.jpg", "height": 40, "width": 80} for i, n in enumerate(boxes)]
    annotations = [
        {"image_id": i, "category_id": ids[name], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for i, found in enumerate(boxes.values())
        for name, x1, y1, x2, y2 in found
    ]
    for name in boxes:
        picture(root / "images" / f"{name}.jpg")
    (root / "annotations").mkdir()
    data = {"images": images, "annotations": annotations, "categories": [{"id": v, "name": k} for k, v in ids.items()]}
    (root / "annotations" / "instances.json").write_text(json.dumps(data))
    return root


def write_yolo(root, boxes=PIXELS):
    names = ["cat", "dog"]
    (root / "labels").mkdir(parents=True)
    for name, found in boxes.items():
        picture(root / "images" / f"{name}.jpg")
        lines = [
            f"{names.index(k)} {(x1 + x2) / 160} {(y1 + y2) / 80} {(x2 - x1) / 80} {(y2 - y1) / 40}"
            for k, x1, y1, x2, y2 in found
        ]
        (root / "labels" / f"{name}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images\nnames:\n  0: cat\n  1: 'dog'  # barks\nnc: 2\n")
    return root


@pytest.mark.parametrize(("kind", "write"), [("voc", write_voc), ("coco", write_coco), ("yolo", write_yolo)])
def test_the_same_boxes_in_each_notation_give_the_same_table(tmp_path, kind, write):
    root = write(tmp_path / "data")
    assert box_kind(root) == kind
    table = read_boxes(root)
    assert table.labels == ("cat", "dog") and table.kind == kind and not table.skipped and not table.dropped
    found = {image.path.stem: image for image in table}
    assert sorted(found) == ["a", "b", "c"] and not found["c"].boxes and found["a"].size == SIZE
    for name, written in PIXELS.items():
        corners, classes, difficult = table.truth(found[name])
        expected = [(x1 / 80, y1 / 40, x2 / 80, y2 / 40) for _, x1, y1, x2, y2 in written]
        np.testing.assert_allclose(corners, np.array(expected).reshape(-1, 4), atol=1e-6)
        assert [table.labels[c] for c in classes] == [k for k, *_ in written] and not difficult.any()


def test_boxes_that_make_no_sense_are_left_out_cut_or_named(tmp_path):
    boxes = {
        "a": [("cat", 10, 5, 30, 20), ("cat", 5, 5, 5, 9), ("cat", 9, 9, 3, 12), ("cat", 90, 5, 99, 9)],
        "b": [
            ("cat", -20, 5, 30, 20),
            ("cat", 60, 30, 80, 55),
            ("cat", -1, -1, 80, 40),
            ("cat", float("nan"), 1, 3, 4),
        ],
    }
    root = write_voc(tmp_path / "data", boxes)
    table = read_boxes(root)
    a, b = table.images
    assert a.boxes == (Box(10 / 80, 5 / 40, 30 / 80, 20 / 40, "cat"),)
    assert [why.rpartition(": ")[2] for path, why in table.dropped] == ["no area", "no area", "outside of the image",
                                                                        "not finite"]  # fmt: skip
    assert [path for path, _ in table.dropped] == ["JPEGImages/a.jpg"] * 3 + ["JPEGImages/b.jpg"]
    assert table.clipped == 2 and b.boxes[0].x1 == 0 and b.boxes[1].y2 == 1 and len(b.boxes) == 3
    assert any(note.startswith("2 boxes reach outside") for note in table.notes)
    assert any(note.startswith("4 boxes were left out") for note in table.notes)
    with pytest.raises(DataError, match=r"4 images or boxes cannot be used \(first: JPEGImages/a.jpg"):
        read_boxes(root, strict=True)


def test_images_that_cannot_be_used_are_named_and_nothing_else_is_lost(tmp_path):
    root = write_voc(tmp_path / "data")
    (root / "JPEGImages" / "a.jpg").write_bytes(b"no image")
    (root / "Annotations" / "gone.xml").write_text(xml(PIXELS["a"]))
    (root / "Annotations" / "half.xml").write_text(xml(PIXELS["a"])[:90])
    (root / "Annotations" / "word.xml").write_text(xml([("cat", 1, 2, "x", 4)]))
    picture(root / "JPEGImages" / "turned.jpg", (80, 40))
    (root / "Annotations" / "turned.xml").write_text(xml(PIXELS["a"]))
    table = read_boxes(root)
    assert [image.path.stem for image in table] == ["b", "c"]
    reasons = {path.rpartition("/")[2]: why for path, why in table.skipped}
    assert reasons["a.jpg"].startswith("not a readable image")
    assert reasons["gone.jpg" if "gone.jpg" in reasons else "x.jpg"] == "no such image"
    assert reasons["half.xml"].startswith("not a whole XML file")
    assert reasons["word.xml"].startswith("a box or the size is not a number")
    assert reasons["turned.jpg"] == "annotated as 80x40, the image is 40x80"
    assert len(table.skipped) == 5


@pytest.mark.parametrize(
    "content",
    [
        '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation><filename>&c;</filename></annotation>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>',
        '<!DOCTYPE annotation SYSTEM "http://127.0.0.1/a.dtd"><annotation/>',
    ],
)
def test_xml_with_entities_or_a_document_type_is_refused(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(DataError, match="refused, it declares"):
        parse_xml(path)


def test_xml_that_is_nested_too_deep_or_too_large_is_refused(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<a>" * 40 + "</a>" * 40)
    with pytest.raises(DataError, match="nested deeper"):
        parse_xml(path)
    with path.open("wb") as handle:
        handle.truncate(2**24 + 1)
    with pytest.raises(DataError, match="more than an annotation has"):
        parse_xml(path)


def test_the_lists_of_voc_give_the_splits(tmp_path):
    root = write_voc(tmp_path / "data", dict.fromkeys("abcde", PIXELS["a"]))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a 1\nb\n")
    (lists / "val.txt").write_text("c\n")
    (lists / "trainval.txt").write_text("a\nb\nc\nd\nmissing\n")
    (lists / "cat_train.txt").write_text("e\n")
    table = read_boxes(root)
    assert {image.path.stem: image.split for image in table} == {"a": "train", "b": "train", "c": "val", "d": "train"}
    assert table.skipped == (("JPEGImages/missing", "listed for a split, without an annotation"),)
    assert any("1 annotated images are in none of the lists" in note for note in table.notes)
    (lists / "test.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"train.txt: a 1 is in a list of test too"):
        read_boxes(root)


def test_class_names_that_the_list_lacks_are_named(tmp_path):
    root = write_voc(tmp_path / "voc")
    (root / "labels.txt").write_text("cat\nbird\n")
    table = read_boxes(root)
    assert table.labels == ("cat", "bird")
    assert table.dropped == (("JPEGImages/b.jpg", "box dog 0 0 40 40: class 'dog' is not in the list of classes"),)
    root = write_yolo(tmp_path / "yolo")
    (root / "labels" / "c.txt").write_text("2 .5 .5 .1 .1\n-1 .5 .5 .1 .1\n0 .5 .5 .1\n")
    table = read_boxes(root)
    assert [why.partition("': ")[2] for _, why in table.dropped] == [
        "class 2 is not in the list of classes (0 to 1)",
        "class -1 is not in the list of classes (0 to 1)",
        "not 'class x y width height'",
    ]
    root = write_coco(tmp_path / "coco")
    file = root / "annotations" / "instances.json"
    data = json.loads(file.read_text())
    data["annotations"] += [{"image_id": 0, "category_id": 9, "bbox": [1, 1, 2, 2]}, {"image_id": 0}, 5,
                            {"image_id": 99, "category_id": 3, "bbox": [1, 1, 2, 2]}]  # fmt: skip
    data["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(data))
    table = read_boxes(root)
    assert len(table.dropped) == 4 and table.dropped[0][1].endswith("the file lists no category 9")
    assert [box.difficult for image in table for box in image.boxes] == [True, False, False]


def test_yolo_names_may_be_written_in_any_of_the_usual_ways(tmp_path):
    root = write_yolo(tmp_path / "data")
    for text in ("names: ['cat', dog]\n", "names:\n- cat\n- dog\nnc: 2\n", "nc: 2\nnames: {0: cat, 1: dog}\n"):
        (root / "data.yaml").write_text(text)
        assert read_boxes(root).labels == ("cat", "dog")
    (root / "data.yaml").unlink()
    (root / "obj.names").write_text("cat\ndog\n\n")
    assert read_boxes(root).labels == ("cat", "dog")
    (root / "obj.names").unlink()
    table = read_boxes(root)
    assert table.labels == ("0", "1") and "No list of class names" in table.notes[0]


def test_yolo_splits_come_from_folders_or_lists(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / "a" / split / "images" / f"{split}.jpg")
        (tmp_path / "a" / split / "labels").mkdir()
        (tmp_path / "a" / split / "labels" / f"{split}.txt").write_text("0 .5 .5 .2 .2\n")
    assert {i.path.stem: (i.split, len(i.boxes)) for i in read_boxes(tmp_path / "a")} == {
        "train": ("train", 1),
        "valid": ("val", 1),
    }
    root = write_yolo(tmp_path / "b")
    (root / "train.txt").write_text("/elsewhere/images/a.jpg\n")
    (root / "test.txt").write_text("images/b.jpg\n")
    table = read_boxes(root)
    assert {i.path.stem: i.split for i in table} == {"a": "train", "b": "test"}
    assert any("1 images are in none of the lists" in note for note in table.notes)


def test_coco_splits_come_from_file_or_folder_names(tmp_path):
    whole = json.loads((write_coco(tmp_path / "x") / "annotations" / "instances.json").read_text())
    root = tmp_path / "y"
    for split in ("train", "valid"):
        picture(root / split / "a.jpg")
        (root / split / "_annotations.coco.json").write_text(json.dumps(whole | {"images": whole["images"][:1]}))
    table = read_boxes(root)
    assert [image.split for image in table] == ["train", "val"] and len(table.dropped) == 4  # of images not listed
    (root / "valid" / "_annotations.coco.json").write_text("{")
    with pytest.raises(DataError, match="not a COCO file"):
        read_boxes(root)


def test_a_path_in_coco_never_leaves_the_folder(tmp_path):
    picture(tmp_path / "secret.jpg")
    root = write_coco(tmp_path / "data")
    file = root / "annotations" / "instances.json"
    data = json.loads(file.read_text())
    data["images"][0]["file_name"] = "../../secret.jpg"
    file.write_text(json.dumps(data))
    table = read_boxes(root)
    assert [why for _, why in table.skipped] == ["no such image"] and len(table) == 2


def test_made_splits_are_disjoint_whole_and_the_same_each_time(tmp_path):
    root = write_voc(tmp_path / "data", {f"i{n}": PIXELS["a"] for n in range(20)})
    table = with_box_splits(read_boxes(root), seed=1)
    assert [len(table.of_split(name)) for name in ("train", "val", "test")] == [14, 2, 4]
    assert table == with_box_splits(read_boxes(root), seed=1) != with_box_splits(read_boxes(root), seed=2)
    given = table.with_images(image for image in table if image.split != "val")
    again = with_box_splits(given)
    assert again.of_split("test") == given.of_split("test") and len(again.of_split("val")) == 1
    with pytest.raises(DataError, match="2 images cannot be split"):
        with_box_splits(read_boxes(root).with_images(read_boxes(root).images[:2]))


def test_nothing_to_read_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, why in ((tmp_path / "no", "no such"), (tmp_path / "empty", "no boxes in it")):
        with pytest.raises(DataError, match=why):
            read_boxes(path)


def test_the_blood_cells_are_read_and_their_two_degenerate_boxes_named():
    table = read_boxes(shared("data", "detection", "bccd"))
    assert len(table) == 364 and table.labels == ("Platelets", "RBC", "WBC") and not table.skipped
    assert {s: len(table.of_split(s)) for s in ("train", "val", "test")} == {"train": 205, "val": 87, "test": 72}
    assert sorted(path for path, _ in table.dropped) == [f"JPEGImages/BloodImage_{n}.jpg" for n in ("00338", "00343")]
    assert sum(len(image.boxes) for image in table) == 4888 - 2 and table.clipped == 0


def test_the_hands_are_read_with_their_given_test_and_a_val_split_off_train():
    table = with_box_splits(read_boxes(shared("data", "detection", "hand_gesture")))
    assert {s: len(table.of_split(s)) for s in ("train", "val", "test")} == {"train": 601, "val": 67, "test": 126}
    assert len(table.labels) == 10 and sum(len(image.boxes) for image in table) == 881
