"""Boxes as other tools export them, and what cannot be read of them: never taken for background, never a twin's."""

import json

import pytest
from PIL import Image

from vidlet.datasets import read_boxes
from vidlet.datasets.boxes import box_kind
from vidlet.errors import DataError


def image(path, size=(100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def xml(path, name, corners=(11, 11, 30, 40), label="cat"):
    path.parent.mkdir(parents=True, exist_ok=True)
    x1, y1, x2, y2 = corners
    path.write_text(
        f"<annotation><filename>{name}</filename><size><width>100</width><height>50</height></size><object><name>{label}"
        f"</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"
    )


def found(table):
    return {
        image.path.relative_to(table.root).as_posix(): (
            image.split,
            [(b.label, b.x1, b.y1, b.x2, b.y2) for b in image.boxes],
        )
        for image in table
    }


CAT = ("cat", 0.1, 0.2, 0.3, 0.8)


@pytest.mark.parametrize(
    ("annotation", "picture", "split"),
    [
        ("annotations/a.xml", "images/a.png", ""),
        ("ANNOTATIONS/a.xml", "Images/a.JPG", ""),
        ("annots/a.xml", "images/a.jpg", ""),
        ("Annotations/train/a.xml", "JPEGImages/train/a.jpg", "train"),
        ("archive/kangaroo/annots/a.xml", "archive/kangaroo/images/a.jpg", ""),
        ("valid/annotations/a.xml", "valid/images/a.jpg", "val"),
        ("Annotations/deep/er/a.xml", "pictures/a.jpg", ""),
    ],
)
def test_voc_is_read_in_any_case_and_place(tmp_path, annotation, picture, split):
    image(tmp_path / picture)
    xml(tmp_path / annotation, "elsewhere/other.jpg")
    assert found(read_boxes(tmp_path)) == {picture: (split, [CAT])}


def test_twins_of_voc_in_two_folders_keep_their_own_images(tmp_path):
    for folder, corners in (("train", (11, 11, 30, 40)), ("test", (1, 1, 100, 50))):
        image(tmp_path / "images" / folder / "0.jpg")
        xml(tmp_path / "annotations" / folder / "0.xml", "0.jpg", corners)
    assert found(read_boxes(tmp_path)) == {
        "images/train/0.jpg": ("train", [CAT]), "images/test/0.jpg": ("test", [("cat", 0.0, 0.0, 1.0, 1.0)])
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,50,cat,10,10,30,40\n",
        "sep=;\r\nfilename;width;height;class;xmin;ymin;xmax;ymax\r\na.jpg;100;50;cat;10;10;30;40\r\n",
        'image_id,width,height,label,bbox\na,100,50,cat,"[10, 10, 20, 30]"\n',
        "ImageID,LabelName,XMin,XMax,YMin,YMax\na,cat,0.1,0.3,0.2,0.8\n",
        "path,x1,y1,x2,y2,class_name\n/home/me/images/a.jpg,10,10,30,40,cat\n",
    ],
)
def test_a_table_of_boxes_is_read(tmp_path, text):
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "train_labels.csv").write_text(text, newline="")
    assert box_kind(tmp_path) == "csv"
    [(name, (split, [box]))] = found(read_boxes(tmp_path)).items()
    assert (name, split, box[0]) == ("images/a.jpg", "train", "cat")
    assert box[1:] == pytest.approx(CAT[1:])


def test_roboflows_export_is_read_with_its_splits_and_empty_rows_show_nothing(tmp_path):
    for folder in ("train", "valid", "test"):
        image(tmp_path / folder / "a.jpg")
        image(tmp_path / folder / "b.jpg")
        (tmp_path / folder / "_annotations.csv").write_text(
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,50,cat,10,10,30,40\nb.jpg,100,50,,,,,\n"
        )
    table = read_boxes(tmp_path)
    assert [(i.path.parent.name, i.split, len(i.boxes)) for i in table] == [
        (folder, split, n) for folder, split in (("test", "test"), ("train", "train"), ("valid", "val")) for n in (1, 0)
    ]


def test_a_row_of_a_table_that_cannot_be_read_is_no_background(tmp_path):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    (tmp_path / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,x,3,4\nb.jpg,cat,1,1,30,40\n")
    table = read_boxes(tmp_path)
    assert [i.path.name for i in table] == ["b.jpg"]
    assert table.skipped == (("a.jpg", "line 2: no box of four numbers"),)


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.1 0.2 0.3 0.2 0.3 0.8 0.1 0.8", CAT),
        ("0 0.1 0.5 0.2 0.2 0.3 0.8", CAT),
        ("0.0\t0.2\t0.5\t0.2\t0.6", CAT),
        ("0 0.2 0.5 0.2 0.6 0.93", CAT),
        ("\ufeff0 0.2 0.5 0.2 0.6\r", CAT),
        ("0 0.2 0.5", None),
        ("1 0.2 0.5 0.2 0.6", None),
        ("cat 0.2 0.5 0.2 0.6", None),
        ("0 120 25 20 30", None),
    ],
)
def test_a_line_of_yolo_is_its_box_or_its_image_is_skipped(tmp_path, line, box):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    (tmp_path / "a.txt").write_text(line, newline="")
    (tmp_path / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "obj.names").write_text("cat\n")
    table = read_boxes(tmp_path)
    if box is None:
        assert [i.path.name for i in table] == ["b.jpg"]
        assert [name for name, _ in table.skipped] == ["a.jpg"]
        return
    [own] = found(table)["a.jpg"][1]
    assert own[0] == "cat"
    assert own[1:] == pytest.approx(box[1:])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [red,\n  white, # bright\n  platelet]\n", ["red", "white", "platelet"]),
        ("names: ['cell, red', \"cell: white\", no]\n", ["cell, red", "cell: white", "no"]),
        ("nc: 3\nnames:\n  \"0\": red\n  1: 08\n  '2': 1e3\n", ["red", "08", "1e3"]),
        ("names: &a\n- yes\n- 2020-01-01\n- null\ntrain: images\n", ["yes", "2020-01-01", "null"]),
    ],
)
def test_names_of_yaml_are_what_they_say(tmp_path, names, expected):
    for number in range(3):
        image(tmp_path / "images" / f"{number}.jpg")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{number}.txt").write_text(f"{number} 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(names)
    table = read_boxes(tmp_path)
    assert list(table.labels) == expected
    assert [i.boxes[0].label for i in table] == expected


@pytest.mark.parametrize(
    "text",
    ["names: [a, [b]]\n", "names: {0: a, 2: b}\n", "names: {99999999999: a}\n", "names: [" * 50_000, "names: *x\n"],
)
def test_a_yaml_that_makes_no_sense_is_one_line(tmp_path, text):
    image(tmp_path / "0.jpg")
    (tmp_path / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml"):
        read_boxes(tmp_path)


def test_a_blank_line_among_the_names_moves_no_class(tmp_path):
    for number in range(3):
        image(tmp_path / f"{number}.jpg")
        (tmp_path / f"{number}.txt").write_text(f"{number} 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("red\n\nwhite\n\n")
    table = read_boxes(tmp_path)
    assert [i.boxes[0].label for i in table] == ["red", "1", "white"]
    assert "line 2 is empty" in table.notes[0]


@pytest.mark.parametrize("prefix", ["", "./", "/home/me/data/", "data/obj/"])
def test_twins_in_a_list_are_told_apart_by_their_folders(tmp_path, prefix):
    for camera in ("cam1", "cam2", "cam3"):
        image(tmp_path / camera / "0.jpg")
        (tmp_path / camera / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "train.txt").write_text(f"{prefix}cam1/0.jpg\n")
    (tmp_path / "valid.txt").write_text(f"{prefix}cam2/0.jpg\r\n")
    table = read_boxes(tmp_path)
    assert [(i.path.parent.name, i.split) for i in table] == [("cam1", "train"), ("cam2", "val")]
    assert any("1 images are in none of the lists" in note for note in table.notes)


def test_a_line_that_means_two_images_is_refused(tmp_path):
    for camera in ("cam1", "cam2"):
        image(tmp_path / camera / "0.jpg")
        (tmp_path / camera / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "train.txt").write_text("0.jpg\n")
    with pytest.raises(DataError, match="write more of the path"):
        read_boxes(tmp_path)


def test_ids_of_coco_are_compared_as_texts_and_nonsense_is_named(tmp_path):
    for name in ("a", "b", "c"):
        image(tmp_path / "train" / f"{name}.jpg")
    about = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "height": 50, "width": 100},
            {"id": "2", "file_name": "b.jpg", "height": 50, "width": 100},
            {"id": 3.0, "file_name": "c.jpg", "height": 50, "width": 100},
            {"id": [4], "file_name": "a.jpg"},
            {"id": 5, "file_name": "a.jpg", "height": 10**400},
        ],
        "categories": [{"id": "10", "name": "dog"}, {"id": 2, "name": "cat\x1b[2J"}],
        "annotations": [
            {"image_id": "1", "category_id": "2", "bbox": [10, 10, 20, 30]},
            {"image_id": 2, "category_id": 10, "bbox": ["10", 10, 20, 30]},
            {"image_id": 3, "category_id": [10], "bbox": [10, 10, 20, 30]},
            {"image_id": 1, "category_id": 2, "bbox": [10**400, 0, 1, 1]},
        ],
    }
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(about))
    table = read_boxes(tmp_path)
    assert table.labels == ("cat\\x1b[2J", "dog")
    assert {name: [b[0] for b in own[1]] for name, own in found(table).items()} == {
        "train/a.jpg": ["cat\\x1b[2J"], "train/b.jpg": ["dog"]
    }  # fmt: skip
    assert len(table.skipped) == 3
    assert len(table.dropped) == 2
