"""Boxes as other tools export them, and what cannot be read of them: never taken for background, never a twin's."""

import json
import unicodedata

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
        "path,x1,y1,x2,y2,class_name\n/mnt/data/images/a.jpg,10,10,30,40,cat\n",
        'id,image_id,geometry,class\n1,a.jpg,"[(10, 10), (30, 10), (30, 40), (10, 40), (10, 10)]",cat\n',
        "image_id,box,class\na,10 10 20 30,cat\n",
        "image_name,width,height,x0,y0,x1,y1,class\na.jpg,100,50,10,10,30,40,cat\n",
        "filename,xmin,ymin,width,height,class\na.jpg,10,10,20,30,cat\n",
        "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,Label,Path\n100,50,10,10,30,40,cat,images/a.jpg\n",
        "filename,label,name,xmin,ymin,xmax,ymax\na.jpg,7,cat,10,10,30,40\n",
        "filename,class_id,label_id,class,name,xmin,ymin,xmax,ymax\na.jpg,1,2,3,cat,10,10,30,40\n",
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
    assert table.skipped == (("a.jpg", "line 2: no box of four numbers and a class"),)


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0 0.1 0.2 0.3 0.2 0.3 0.8 0.1 0.8", CAT),
        ("0 0.1 0.5 0.2 0.2 0.3 0.8", CAT),
        ("0.0\t0.2\t0.5\t0.2\t0.6", CAT),
        ("0 0.2 0.5 0.2 0.6 0.93", CAT),
        ("0 0.2 0.5 0.2 0.6 0.3 0.4 2 0.2 0.3 1", CAT),  # key points, two and one
        ("0 0.2 0.5 0.2 0.6 0.3 0.4 0", CAT),
        ("0 0.1 0.2 0.3 0.2 0.3 0.8 0.1 0.8 0 0", ("cat", 0.0, 0.0, 0.3, 0.8)),
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


@pytest.mark.parametrize("prefix", ["", "./", "/mnt/data/", "data/obj/"])
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


LINE = "0 0.2 0.5 0.2 0.6\n"
CAFE = "caf\u00e9"
CAFE_APART = unicodedata.normalize("NFD", CAFE)


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        ("Images/train/a.jpg", "Labels/train/a.txt"),
        ("JPEGImages/a.jpg", "labels/a.txt"),
        ("train/img/a.jpg", "train/label/a.txt"),
        ("images/a.jpg", "labels/a.TXT"),
        ("images/a.jpg", "labels/a.jpg.txt"),
        (f"images/{CAFE}.jpg", f"labels/{CAFE_APART}.txt"),
        (f"{CAFE_APART}.JPG", f"{CAFE}.txt"),
    ],
)
def test_the_text_of_a_picture_is_found_however_both_are_spelled(tmp_path, picture, text):
    image(tmp_path / picture)
    (tmp_path / text).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / text).write_text(LINE)
    ((box,),) = [image.boxes for image in read_boxes(tmp_path)]
    assert (box.label, box.x1, box.y1, box.x2, box.y2) == ("0", *map(pytest.approx, CAT[1:]))


def test_texts_without_an_image_and_splits_without_a_text_are_told_and_are_no_background(tmp_path):
    for name in ("train/images/a", "train/images/b", "test/images/c", "test/images/d"):
        image(tmp_path / f"{name}.jpg")
    (tmp_path / "train" / "labels").mkdir()
    for name in ("a", "lost"):
        (tmp_path / "train" / "labels" / f"{name}.txt").write_text(LINE)
    table = read_boxes(tmp_path)
    assert {path: len(boxes) for path, (_, boxes) in found(table).items()} == {
        "train/images/a.jpg": 1,
        "train/images/b.jpg": 0,
    }
    notes = " ".join(table.notes)
    assert "None of the 2 images of test has a text file" in notes
    assert "1 text files belong to no image (first: train/labels/lost.txt)" in notes


def test_names_and_lists_are_found_one_folder_below(tmp_path):
    image(tmp_path / "data" / "obj" / "a.jpg").with_suffix(".txt").write_text(LINE)
    (tmp_path / "data" / "obj.names").write_text("cat\n")
    (tmp_path / "data" / "test.txt").write_text("data/obj/a.jpg\n")
    (only,) = read_boxes(tmp_path)
    assert (only.path, only.split) == (tmp_path / "data" / "obj" / "a.jpg", "test")
    assert [(box.label, box.x1) for box in only.boxes] == [("cat", pytest.approx(0.1))]


def test_names_that_contradict_each_other_are_refused_and_other_yaml_files_are_not_asked(tmp_path):
    image(tmp_path / "a.jpg").with_suffix(".txt").write_text(LINE)
    (tmp_path / "args.yaml").write_text("names: run 1\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    assert read_boxes(tmp_path).labels == ("cat",)
    (tmp_path / "other.yaml").write_text("names: [dog]\n")
    with pytest.raises(DataError, match=r"other.yaml|data.yaml: names other classes"):
        read_boxes(tmp_path)


def coco(name, categories=((1, "cat"),), number=1, **more):
    annotation = {"id": 1, "image_id": number, "category_id": categories[-1][0], "bbox": [10, 10, 20, 30]}
    return json.dumps(
        {
            "images": [{"id": number, "file_name": name, "width": 100, "height": 50}],
            "categories": [{"id": key, "name": label} for key, label in categories],
            "annotations": [annotation],
            **more,
        }
    )


def test_the_annotations_of_coco_are_read_as_they_are_published(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        image(tmp_path / split / f"{split}.jpg")
        boxes = json.loads(coco(f"{split}.jpg"))
        captions = {"images": boxes["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}
        points = {**boxes, "categories": [{"id": 1, "name": "person"}]}
        for kind, what in (("instances", boxes), ("captions", captions), ("person_keypoints", points)):
            (tmp_path / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(what))
    (tmp_path / "annotations" / "image_info_test2017.json").write_text(json.dumps({"images": [], "categories": []}))
    assert found(read_boxes(tmp_path)) == {
        "train2017/train2017.jpg": ("train", [CAT]), "val2017/val2017.jpg": ("val", [CAT])
    }  # fmt: skip


def test_files_of_coco_with_other_categories_are_joined_by_name(tmp_path):
    for split, categories in (("train", ((0, "pet"), (1, "dog"), (2, "cat"))), ("valid", ((0, "pet"), (1, "cat")))):
        image(tmp_path / split / "a.jpg")
        (tmp_path / split / "_annotations.coco.json").write_text(coco("a.jpg", categories))
    table = read_boxes(tmp_path)
    assert table.labels == ("pet", "dog", "cat") and "joined by name" in table.notes[0]
    assert found(table) == {"train/a.jpg": ("train", [CAT]), "valid/a.jpg": ("val", [CAT])}


def test_an_image_that_two_files_describe_is_one_image_and_never_in_two_splits(tmp_path):
    header = "filename,class,xmin,ymin,xmax,ymax\n"
    rows = {name: f"{name}.jpg,cat,10,10,30,40\n" for name in "ab"}
    for name in rows:
        image(tmp_path / f"{name}.jpg")
    (tmp_path / "all_labels.csv").write_text(header + rows["a"] + rows["b"])
    (tmp_path / "train_labels.csv").write_text(header + rows["a"])
    (tmp_path / "test_labels.csv").write_text(header + rows["b"])
    assert found(read_boxes(tmp_path)) == {"a.jpg": ("train", [CAT]), "b.jpg": ("test", [CAT])}
    (tmp_path / "test_labels.csv").write_text(header + rows["b"] + rows["a"])
    with pytest.raises(DataError, match=r"a.jpg stands in test and in train"):
        read_boxes(tmp_path)


def test_a_table_without_a_header_is_keras_retinanets(tmp_path):
    for name in "abc":
        image(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "train.csv").write_text("/mnt/data/images/a.jpg,10,10,30,40,cat\nimages/b.jpg,,,,,\n")
    (tmp_path / "val.csv").write_text("images/c.jpg,10,10,30,40,dog\n")
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\n")
    assert found(read_boxes(tmp_path)) == {
        "images/a.jpg": ("train", [CAT]), "images/b.jpg": ("train", []), "images/c.jpg": ("val", [("dog", *CAT[1:])])
    }  # fmt: skip


def test_cells_of_a_table_are_never_read_as_those_of_another_column(tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.jpg")
    header = "filename,xmin,ymin,xmax,ymax,class_id\n"
    rows = "a.jpg,10,10,30,40,7,\nb.jpg,1,0,10,30,40,7\nc.jpg,nan,nan,nan,nan,nan\n"
    (tmp_path / "boxes.csv").write_text(header + rows)
    table = read_boxes(tmp_path)
    assert found(table) == {"a.jpg": ("", [("7", *CAT[1:])]), "c.jpg": ("", [])}
    assert table.skipped == (("b.jpg", "line 3: 7 cells under 6 column names"),)
    (tmp_path / "boxes.csv").write_text("filename,xmin,ymin,xmax,ymax\na.jpg,10,10,30,40\n")
    assert "no column of classes" in read_boxes(tmp_path).notes[0]


def test_labelmes_files_are_read_and_what_is_wrong_in_one_is_no_background(tmp_path):
    shapes = [
        {"label": "cat", "points": [[30, 40], [10, 10]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[10, 10], [30, 20], [20, 40]], "shape_type": "polygon"},
        {"label": "cat", "points": [[20, 25], [20, 40]], "shape_type": "circle"},
        {"label": "nose", "points": [[20, 25]], "shape_type": "point"},
    ]
    whole = {"version": "5.0", "imagePath": "..\\a.jpg", "imageHeight": 50, "imageWidth": 100, "imageData": None}
    for name, said in (
        ("a", {**whole, "shapes": shapes}),
        ("b", {**whole, "shapes": []}),
        ("c", {**whole, "shapes": [{"label": "cat", "points": [1, 2]}]}),
        ("d", {**whole, "shapes": shapes[3:]}),
    ):
        image(tmp_path / "train" / f"{name}.jpg").with_suffix(".json").write_text(json.dumps(said))
    table = read_boxes(tmp_path)
    assert table.kind == "labelme"
    around = ("cat", 0.05, 0.2, 0.35, 0.8)
    ours = {path: (split, [pytest.approx(box[1:]) for box in boxes]) for path, (split, boxes) in found(table).items()}
    assert ours == {"train/a.jpg": ("train", [CAT[1:], CAT[1:], around[1:]]), "train/b.jpg": ("train", [])}
    assert [path for path, _ in table.skipped] == ["train/c.json", "train/d.jpg"]


@pytest.mark.parametrize("name", ["9" * 5000 + ".jpg", "a" * 300, "x\0y.jpg", "/" * 300])
def test_an_image_of_a_name_that_no_file_can_have_is_skipped(tmp_path, name):
    image(tmp_path / "a.jpg")
    header, row = "filename,class,xmin,ymin,xmax,ymax\n", "a.jpg,cat,10,10,30,40\n"
    if "\0" not in name:
        (tmp_path / "boxes.csv").write_text(f"{header}{row}{name},cat,1,1,20,20\n")
        table = read_boxes(tmp_path)
        assert list(found(table)) == ["a.jpg"] and len(table.skipped) == 1
        (tmp_path / "boxes.csv").unlink()
    (tmp_path / "instances.json").write_text(coco("a.jpg"))
    data = json.loads(coco("a.jpg"))
    data["images"].append({"id": 2, "file_name": name, "width": 100, "height": 50})
    (tmp_path / "instances.json").write_text(json.dumps(data))
    table = read_boxes(tmp_path)
    assert list(found(table)) == ["a.jpg"] and len(table.skipped) == 1
    (tmp_path / "instances.json").unlink()
    shape = {"label": "cat", "points": [[10, 10], [30, 40]], "shape_type": "rectangle"}
    for own, said in (("a", "a.jpg"), ("lost", name)):
        about = {"imagePath": said, "imageHeight": 50, "imageWidth": 100, "shapes": [shape]}
        (tmp_path / f"{own}.json").write_text(json.dumps(about))
    table = read_boxes(tmp_path)
    assert list(found(table)) == ["a.jpg"] and len(table.skipped) == 1


def yolo(root, *folders, names=("cat", "dog"), **more):
    """Folders of an image each with the class 0, and a data.yaml that says ``more``."""
    for folder in folders:
        picture = image(root / folder / "a.jpg")
        text = root / folder.replace("images", "labels") / "a.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("0 0.2 0.5 0.2 0.6\n")
        assert picture.parent == text.parent or "images" in folder
    said = {"names": list(names), **more}
    (root / "data.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in said.items()))
    return root


@pytest.mark.parametrize(
    ("folders", "said", "splits"),
    [
        (("ds/images/a", "ds/images/b"), {"path": "ds", "train": "images/a", "val": "images/b"}, ["train", "val"]),
        (("images/a", "images/b"), {"train": "/home/me/x/images/a", "val": "C:\\x\\images\\b"}, ["train", "val"]),
        (("images/train2017", "images/val2017"), {}, ["train", "val"]),
        (("images/a", "images/b"), {"path": "../x", "train": "a.txt", "test": "b.txt"}, ["train", "test"]),
        (("images/a", "images/b", "images/c"), {"train": ["images/a", "images/b"], "val": "images/c"},
         ["train", "train", "val"]),
        (("images/a", "images/b"), {"train": "images/a", "val": "images/b", "test": "images/b"}, ["train", "val"]),
        (("images",), {"train": "images", "val": "images"}, [""]),
    ],
)  # fmt: skip
def test_the_splits_that_a_yaml_names_are_found_wherever_its_paths_begin(tmp_path, folders, said, splits):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"./images/{name}/a.jpg\n")
    if "a.txt" not in said.values():
        (tmp_path / "a.txt").unlink()
        (tmp_path / "b.txt").unlink()
    table = read_boxes(yolo(tmp_path, *folders, **said))
    assert [image.split for image in table] == splits
    assert any("it is taken for" in note for note in table.notes) == (len(set(map(str, said.values()))) < len(said))


def test_what_a_yaml_names_and_is_not_there_is_told(tmp_path):
    table = read_boxes(yolo(tmp_path, "images/train", train="images/train", val="images/later", nc=3))
    assert table.notes == (
        "data.yaml: nc is 3, and 2 names are listed.",
        "data.yaml: what it names for val is not there (images/later).",
    )


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt"])
def test_a_list_of_names_that_contradicts_the_yaml_is_refused(tmp_path, place):
    yolo(tmp_path, "images")
    (tmp_path / place).write_text("cat\ndog\n")
    assert read_boxes(tmp_path).labels == ("cat", "dog")
    (tmp_path / place).write_text("dog\ncat\n")
    with pytest.raises(DataError, match="class 0 is 'dog' there, and 'cat' in"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("text", ["names: [a]\nnames: [b]\n", "names: {0: a, 0: b}\n"])
def test_a_key_that_stands_twice_in_a_yaml_is_refused(tmp_path, text):
    yolo(tmp_path, "images")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match="stands twice"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("folder", ["annotations", "labels_yolo", "Label"])
def test_texts_beside_a_folder_of_images_are_found_by_what_their_folder_is_called(tmp_path, folder):
    yolo(tmp_path, "images")
    (tmp_path / "labels").rename(tmp_path / folder)
    assert found(read_boxes(tmp_path)) == {"images/a.jpg": ("", [pytest.approx(CAT)])}


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"ImageSets/Main/train.txt": "a.jpg\n", "ImageSets/Main/val.txt": "b.jpg\n"}, ["train", "val"]),
        ({"train.txt": "JPEGImages/a.jpg Annotations/a.xml\n", "val.txt": "JPEGImages/b.jpg x\n"}, ["train", "val"]),
        ({"ImageSets/Main/cat_train.txt": "a  1\n", "ImageSets/Main/cat_val.txt": "b -1\n"}, ["train", "val"]),
        ({"ImageSets/Main/trainval.txt": "a\nb\n", "ImageSets/Main/test.txt": "b\n"}, ["test", "train"]),
        ({"train.txt": "some notes\n"}, ["", ""]),
    ],
)
def test_lists_of_voc_are_found_however_they_name_the_images(tmp_path, lists, splits):
    for name in "ab":
        image(tmp_path / "JPEGImages" / f"{name}.jpg")
        xml(tmp_path / "Annotations" / f"{name}.xml", f"{name}.jpg")
    for place, text in lists.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    table = read_boxes(tmp_path)
    assert [image.split for image in table] == splits and not table.skipped


def test_an_image_is_never_taken_for_another_of_its_name(tmp_path):
    """COCO's paths are followed whole before their last part is; where several may be meant none is."""
    for camera in ("cam1", "cam2"):
        image(tmp_path / "images" / camera / "a.jpg")
    image(tmp_path / "annotations" / "a.jpg")
    (tmp_path / "annotations" / "boxes.json").write_text(coco("cam2/a.jpg", images_of="x"))
    assert found(read_boxes(tmp_path)) == {"images/cam2/a.jpg": ("", [CAT])}
    (tmp_path / "annotations" / "a.jpg").unlink()
    (tmp_path / "annotations" / "boxes.json").write_text(coco("cam3/a.jpg"))
    with pytest.raises(DataError, match=r"images/cam1/a\.jpg and images/cam2/a\.jpg may be meant"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "voc"])
def test_a_name_that_several_images_have_is_said_to_be_so(tmp_path, kind):
    for place in ("images/cam1/a.jpg", "images/cam2/a.jpg", "images/cam1/b.jpg"):
        image(tmp_path / place)
    if kind == "csv":
        (tmp_path / "boxes.csv").write_text(
            "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,10,10,30,40\nb.jpg,cat,10,10,30,40\nc.jpg,cat,1,1,3,4\n"
        )
    else:
        for name in "abc":
            xml(tmp_path / "annotations" / f"{name}.xml", f"{name}.jpg")
    table = read_boxes(tmp_path)
    assert list(found(table)) == ["images/cam1/b.jpg"]
    assert [why for _, why in table.skipped] == [
        "images/cam1/a.jpg and images/cam2/a.jpg may be meant",
        "no such image",
    ]


@pytest.mark.parametrize("size", ["", ",100,50"])
@pytest.mark.parametrize(
    ("cells", "meant", "first"),
    [
        (["[10, 10, 30, 40]", "[60, 20, 90, 45]"], "x1, y1, x2, y2", (0.1, 0.2, 0.3, 0.8)),
        (["[10, 10, 30, 40]", "[20, 5, 40, 30]"], "x, y, width, height", (0.1, 0.2, 0.4, 1.0)),  # all stay inside
        (["[10, 10, 30, 30]", "[60, 20, 50, 25]"], "x, y, width, height", (0.1, 0.2, 0.4, 0.8)),  # no corners
        (["[10, 10, 30, 30]", "[60, 20, 120, 25]"], "x, y, width, height", (0.1, 0.2, 0.4, 0.8)),  # both leave it
    ],
)
def test_four_numbers_in_a_cell_are_corners_where_sides_would_leave_the_image(tmp_path, cells, meant, first, size):
    rows = []
    for number, cell in enumerate(cells):
        image(tmp_path / f"{number}.jpg")
        rows.append(f'{number}.jpg,"{cell}"{size}\n')
    (tmp_path / "train.csv").write_text(f"image_id,bbox{',width,height' if size else ''}\n{''.join(rows)}")
    table = read_boxes(tmp_path)
    assert found(table)["0.jpg"][1] == [("object", *(pytest.approx(number) for number in first))]
    assert any(f"column 'bbox' are {meant}" in note for note in table.notes)


def test_several_boxes_in_a_cell_are_read_and_none_is_background(tmp_path):
    for name in "ab":
        image(tmp_path / f"{name}.png")
    (tmp_path / "train.csv").write_text(
        "image_name,BoxesString,domain\na.png,10 10 30 40;50 0 100 25,x\nb.png,no_box,x\n"
    )
    assert found(read_boxes(tmp_path)) == {
        "a.png": ("train", [("object", 0.1, 0.2, 0.3, 0.8), ("object", 0.5, 0.0, 1.0, 0.5)]),
        "b.png": ("train", []),
    }


def test_images_of_coco_with_one_id_are_skipped_not_mixed_up(tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.jpg")
    said = json.loads(coco("a.jpg"))
    said["images"] += [
        {**said["images"][0], "file_name": "b.jpg"},
        {**said["images"][0], "id": 2, "file_name": "c.jpg"},
    ]
    (tmp_path / "coco.json").write_text(json.dumps(said))
    table = read_boxes(tmp_path)
    assert list(found(table)) == ["c.jpg"]
    assert [why for _, why in table.skipped] == [
        f"image {name}.jpg: its id 1 stands at several images" for name in "ab"
    ]


@pytest.mark.parametrize("place", ["images/a.jpg", "data/a.jpg", "train_images/a.png"])
def test_the_images_of_coco_are_found_by_name_in_any_folder(tmp_path, place):
    image(tmp_path / place)
    (tmp_path / "labels.json").write_text(coco("https://a.org/x/a.jpg?s=1"))
    assert found(read_boxes(tmp_path)) == {place: ("train" if "train" in place else "", [CAT])}


@pytest.mark.parametrize("kind", ["voc", "csv", "labelme"])
def test_a_box_without_a_class_is_left_out(tmp_path, kind):
    image(tmp_path / "a.jpg")
    if kind == "voc":
        xml(tmp_path / "a.xml", "a.jpg", label=" ")
    elif kind == "csv":
        (tmp_path / "a.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,\u200b,10,10,30,40\n")
    else:
        shape = {"label": "", "points": [[10, 10], [30, 40]], "shape_type": "rectangle"}
        (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.jpg", "shapes": [shape]}))
    with pytest.raises(DataError, match="none of its 1 boxes can be used"):
        read_boxes(tmp_path)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filename,label,x_center,y_center,width,height", "a.jpg,cat,0.2,0.5,0.2,0.6"),
        ("Image Name,class,xc,yc,w,h", "a.jpg,cat,20,25,20,30"),
        ("img_id,label,bbox", 'a.jpg,cat,"10,10,20,30"'),
    ],
)
def test_boxes_by_their_center_and_columns_of_other_names_are_read(tmp_path, header, row):
    image(tmp_path / "a.jpg")
    (tmp_path / "boxes.csv").write_text(f"{header}\n{row}\n")
    assert found(read_boxes(tmp_path)) == {"a.jpg": ("", [pytest.approx(CAT)])}


def test_the_classes_of_open_images_have_their_names_and_groups_are_not_counted(tmp_path):
    image(tmp_path / "a.jpg")
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01,cat\n/m/02,dog\n")
    (tmp_path / "train-annotations-bbox.csv").write_text(
        "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/01,0.1,0.3,0.2,0.8,0\na,/m/01,0.5,0.9,0.2,0.8,1\n"
    )
    (picture,) = read_boxes(tmp_path)
    assert [(box.label, box.difficult) for box in picture.boxes] == [("cat", False), ("cat", True)]
    assert picture.split == "train"


def test_classes_that_are_one_number_are_refused(tmp_path):
    image(tmp_path / "a.jpg")
    (tmp_path / "b.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,1,0,0,9,9\na.jpg,1.0,9,9,20,20\n")
    with pytest.raises(DataError, match=r"classes '1' and '1\.0' are the same number"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("encoding", ["gb2312", "Shift_JIS", "big5", "windows-1252", "utf-16"])
def test_the_xml_of_any_encoding_is_read(tmp_path, encoding):
    label = "k\u00e4se" if encoding == "windows-1252" else "\u4e2d"
    image(tmp_path / "a.jpg")
    xml(tmp_path / "a.xml", "a.jpg", label=label)
    text = (tmp_path / "a.xml").read_text("utf-8")
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    assert read_boxes(tmp_path).labels == (label,)


def test_blank_lines_before_the_xml_are_forgiven_and_an_encoding_that_lies_is_one_line(tmp_path):
    for name, begin in (("a", "\n\n<?xml version='1.0'?>"), ("b", "<?xml version='1.0' encoding='gbzz'?>")):
        image(tmp_path / f"{name}.jpg")
        xml(tmp_path / f"{name}.xml", f"{name}.jpg")
        (tmp_path / f"{name}.xml").write_text(begin + (tmp_path / f"{name}.xml").read_text())
    table = read_boxes(tmp_path)
    assert list(found(table)) == ["a.jpg"]
    assert table.skipped[0][0] == "b.xml"


def test_boxes_of_coco_in_shares_of_the_image_are_read_as_such_and_told(tmp_path):
    image(tmp_path / "a.jpg")
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.1, 0.2, 0.2, 0.6]}]
    data = {"images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}], "annotations": boxes}
    (tmp_path / "a.json").write_text(json.dumps({**data, "categories": [{"id": 1, "name": "cat"}]}))
    table = read_boxes(tmp_path)
    assert found(table)["a.jpg"][1][0] == pytest.approx(CAT)
    assert "in shares of their images" in table.notes[0]
