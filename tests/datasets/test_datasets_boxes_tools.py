"""Boxes as labelling tools export them: each tool's own coordinates, names and gaps, by cases worked by hand."""

import base64
import json
import zlib

import pytest
from PIL import Image

from vidlet.datasets import read_boxes, read_table
from vidlet.datasets.boxes import box_kind
from vidlet.errors import DataError

CAT = ("cat", 0.1, 0.2, 0.3, 0.8)  # of an image 100 wide and 50 high: x 10 to 30, y 10 to 40


def image(path, size=(100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def found(table):
    return {
        image.path.relative_to(table.root).as_posix(): (
            image.split,
            [(b.label, *(round(c, 6) for c in (b.x1, b.y1, b.x2, b.y2))) for b in image.boxes],
        )
        for image in table
    }


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# VGG Image Annotator


def via(regions, name="a.jpg", size=-1):
    return {f"{name}{size}": {"filename": name, "size": size, "regions": regions, "file_attributes": {}}}


def rect(label="cat", **more):
    shape = {"name": "rect", "x": 10, "y": 10, "width": 20, "height": 30, **more}
    return {"shape_attributes": shape, "region_attributes": {"kind": label} if label is not None else {}}


@pytest.mark.parametrize(
    "shape",
    [
        {"name": "rect", "x": 10, "y": 10, "width": 20, "height": 30},
        {"name": "polygon", "all_points_x": [10, 30, 20], "all_points_y": [10, 20, 40]},
        {"name": "ellipse", "cx": 20, "cy": 25, "rx": 10, "ry": 15},
        {"name": "ellipse", "cx": 20, "cy": 25, "rx": 15, "ry": 10, "theta": 1.5707963267948966},
    ],
)
def test_via_has_pixels_of_many_shapes(tmp_path, shape):
    image(tmp_path / "images/a.jpg")
    region = {"shape_attributes": shape, "region_attributes": {"kind": "cat"}}
    written(tmp_path / "via.json", via([region]))
    table = read_boxes(tmp_path)
    assert found(table) == {"images/a.jpg": ("", [CAT])}
    assert "attribute 'kind'" in table.notes[0]
    written(tmp_path / "via.json", via({"0": region}))  # version 1
    assert found(read_boxes(tmp_path / "via.json")) == {"images/a.jpg": ("", [CAT])}
    project = {"_via_settings": {}, "_via_img_metadata": via([region]), "_via_attributes": {"region": {}}}
    written(tmp_path / "via.json", project)
    assert found(read_boxes(tmp_path)) == {"images/a.jpg": ("", [CAT])}


def test_vias_table_is_its_json(tmp_path):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    lines = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    shape = json.dumps(rect()["shape_attributes"]).replace('"', '""')
    lines.append(f'a.jpg,-1,"{{}}",1,0,"{shape}","{{""kind"":""cat""}}"')
    lines.append('b.jpg,-1,"{}",0,0,"{}","{}"')
    written(tmp_path / "via_region_data.csv", "\n".join(lines))
    table = read_boxes(tmp_path)
    assert found(table) == {"a.jpg": ("", [CAT]), "b.jpg": ("", [])}
    assert any("1 images have no boxes" in note for note in table.notes)


def test_the_attribute_that_is_vias_class_is_told_or_asked_for(tmp_path):
    image(tmp_path / "a.jpg")
    two = rect()
    two["region_attributes"] = {"quality": "good", "type": {"cat": True, "dog": False}}
    written(tmp_path / "via.json", via([two]))
    assert found(read_boxes(tmp_path)) == {"a.jpg": ("", [CAT])}
    two["region_attributes"] = {"quality": "good", "animal": "cat"}
    written(tmp_path / "via.json", via([two]))
    with pytest.raises(DataError, match=r"which attribute is the class.*animal, quality"):
        read_boxes(tmp_path)
    written(tmp_path / "via.json", via([rect(None)]))
    table = read_boxes(tmp_path)
    assert table.labels == ("object",) and "no attributes" in " ".join(table.notes)
    written(tmp_path / "via.json", via([rect(), rect(None)]))
    table = read_boxes(tmp_path)
    assert found(table) == {"a.jpg": ("", [CAT])} and "without a class" in table.dropped[0][1]


def test_points_are_no_boxes_and_never_make_an_image_empty(tmp_path):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    point = {"shape_attributes": {"name": "point", "cx": 1, "cy": 2}, "region_attributes": {"kind": "cat"}}
    written(tmp_path / "via.json", {**via([rect(), point]), **via([point], "b.jpg")})
    table = read_boxes(tmp_path)
    assert found(table) == {"a.jpg": ("", [CAT])}
    assert table.skipped == (("b.jpg", "none of its 1 shapes is a box"),)
    assert any("2 shapes are points" in note for note in table.notes)


def test_an_image_that_has_changed_since_is_told(tmp_path):
    size = image(tmp_path / "a.jpg").stat().st_size
    written(tmp_path / "via.json", via([rect()], size=size))
    assert not any("resized" in note for note in read_boxes(tmp_path).notes)
    written(tmp_path / "via.json", via([rect()], size=size + 1))
    assert any("1 images have other bytes" in note for note in read_boxes(tmp_path).notes)


def test_a_project_of_via_3_is_one_sentence(tmp_path):
    image(tmp_path / "a.jpg")
    written(tmp_path / "via.json", {"project": {"pid": "__VIA_PROJECT_ID__"}, "file": {}, "metadata": {}})
    with pytest.raises(DataError, match="a project of VIA 3, which is not read"):
        read_boxes(tmp_path)


# Create ML


@pytest.mark.parametrize("by", [1, 100])
def test_create_ml_has_centers_of_pixels_or_shares(tmp_path, by):
    wide, high = (1, 1) if by == 1 else (100, 50)
    place = {"x": 0.2 * wide, "y": 0.5 * high, "width": 0.2 * wide, "height": 0.6 * high}
    for split in ("train", "valid"):
        image(tmp_path / split / f"{split}.jpg")
        entry = {"image": f"{split}.jpg", "annotations": [{"label": "cat", "coordinates": place}]}
        written(tmp_path / split / "_annotations.createml.json", [entry])
    table = read_boxes(tmp_path)
    assert found(table) == {"train/train.jpg": ("train", [CAT]), "valid/valid.jpg": ("val", [CAT])}
    assert any("centers" in note for note in table.notes)


# Label Studio


def studio(value, kind="rectanglelabels", name="/data/upload/1/3fa9c0de-a.jpg", size=(50, 100), **task):
    result = {"type": kind, "id": "r1", "value": value}
    if size:
        result |= {"original_height": size[0], "original_width": size[1]}
    return {"id": 7, "data": {"image": name}, "annotations": [{"result": [result]}], **task}


PERCENT = {"x": 10, "y": 20, "width": 20, "height": 60}


@pytest.mark.parametrize(
    "value",
    [
        {**PERCENT, "rotation": 0, "rectanglelabels": ["cat"]},
        {"x": 20, "y": 50, "radiusX": 10, "radiusY": 30, "rotation": 0, "ellipselabels": ["cat"]},
        {"points": [[10, 20], [30, 40], [20, 80]], "polygonlabels": ["cat"]},
        {**PERCENT, "labels": ["cat"]},
        # turned by a quarter about its upper left corner, (30, 10) in pixels, 30 wide and 20 high before it
        {"x": 30, "y": 20, "width": 30, "height": 40, "rotation": 90, "rectanglelabels": ["cat"]},
    ],
)
def test_label_studio_has_percent(tmp_path, value):
    image(tmp_path / "pictures/a.jpg")
    written(tmp_path / "project.json", [studio(value)])
    assert found(read_boxes(tmp_path)) == {"pictures/a.jpg": ("", [CAT])}
    short = {"id": 7, "image": "/data/local-files/?d=pictures/a.jpg", "annotation_id": 1}
    sizes = {"original_height": 50, "original_width": 100}
    written(tmp_path / "project.json", [{**short, "label": [{**value, **sizes}]}])  # JSON-MIN
    assert found(read_boxes(tmp_path / "project.json")) == {"pictures/a.jpg": ("", [CAT])}


def test_label_studio_tells_who_is_taken_and_what_is_left_out(tmp_path):
    for name in "abcd":
        image(tmp_path / f"{name}.jpg")
    first, second = ({**PERCENT, "x": x, "rectanglelabels": ["cat"]} for x in (0, 10))
    tasks = [studio(first, name="a.jpg"), studio(first, name="b.jpg"), studio(first, name="c.jpg")]
    tasks[0]["annotations"].append(studio(second)["annotations"][0])
    tasks[1]["annotations"] = []
    tasks[2]["annotations"][0]["result"] = []
    tasks.append(studio({"rle": [1, 2], "format": "rle", "brushlabels": ["cat"]}, "brushlabels", "d.jpg"))
    table = read_boxes(written(tmp_path / "project.json", tasks))
    assert found(table) == {"a.jpg": ("", [CAT]), "c.jpg": ("", [])}
    assert table.skipped == (("d.jpg", "none of its 1 shapes is a box"),)
    said = " ".join(table.notes)
    assert "1 images have several annotations" in said and "1 tasks without an annotation" in said


def test_a_rectangle_that_nobody_labels_makes_no_background(tmp_path):
    for name in "ab":
        image(tmp_path / f"{name}.jpg")
    bare, named = studio(dict(PERCENT), "rectangle", "a.jpg"), studio(dict(PERCENT), "rectangle", "b.jpg")
    label = {**named["annotations"][0]["result"][0], "type": "labels", "value": {**PERCENT, "labels": ["cat"]}}
    named["annotations"][0]["result"].append(label)
    table = read_boxes(written(tmp_path / "project.json", [bare, named]))
    assert found(table) == {"b.jpg": ("", [CAT])}
    assert table.skipped[0][0] == "a.jpg"


def test_sizes_uploads_and_twins_of_label_studio(tmp_path):
    image(tmp_path / "a.jpg", (100, 100))
    value = {**PERCENT, "rectanglelabels": ["cat"]}
    path = written(tmp_path / "project.json", [studio(value)])
    with pytest.raises(DataError, match="annotated as 100x50, the image is 100x100"):
        read_boxes(path)
    image(tmp_path / "a.jpg")
    written(path, [studio(value), studio(value, name="/data/upload/1/00000000-a.jpg")])
    with pytest.raises(DataError, match=r"a\.jpg: 2 names of project\.json mean it"):
        read_boxes(path)
    written(path, [studio({**value, "rotation": 5}, size=None)])
    with pytest.raises(DataError, match="none of its 1 shapes is a box"):
        read_boxes(path)


# CVAT for images


def cvat(shapes, about='name="train/a.jpg" width="100" height="50" subset="Validation"'):
    return (
        f'<?xml version="1.0"?><annotations><version>1.1</version><image id="0" {about}>{shapes}</image></annotations>'
    )


@pytest.mark.parametrize(
    "shape",
    [
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="40" occluded="0"/>',
        '<box label="cat" xtl="5" ytl="15" xbr="35" ybr="35" rotation="90.0"/>',  # turned about (20, 25)
        '<polygon label="cat" points="10,10;30.0,20;20,40"/>',
        '<ellipse label="cat" cx="20" cy="25" rx="10" ry="15"/>',
        '<mask label="cat" rle="1, 2" left="10" top="10" width="20" height="30"/>',
    ],
)
def test_cvat_for_images_has_boxes(tmp_path, shape):
    image(tmp_path / "images/train/a.jpg")
    written(tmp_path / "annotations.xml", cvat(shape))
    assert found(read_boxes(tmp_path)) == {"images/train/a.jpg": ("val", [CAT])}
    assert found(read_boxes(tmp_path / "annotations.xml")) == {"images/train/a.jpg": ("val", [CAT])}


# Supervisely


def bitmap(width, height):
    import io

    picture = io.BytesIO()
    Image.new("1", (width, height), 1).save(picture, "PNG")
    return base64.b64encode(zlib.compress(picture.getvalue())).decode()


@pytest.mark.parametrize(
    "shape",
    [
        {"geometryType": "rectangle", "points": {"exterior": [[10, 10], [29, 39]], "interior": []}},
        {"geometryType": "polygon", "points": {"exterior": [[10, 10], [30, 20], [20, 40]], "interior": []}},
        {"geometryType": "bitmap", "bitmap": {"origin": [10, 10], "data": bitmap(20, 30)}},
    ],
)
def test_supervisely_has_a_file_an_image(tmp_path, shape):
    written(tmp_path / "meta.json", {"classes": [{"title": "cat"}], "tags": []})
    about = {
        "size": {"height": 50, "width": 100},
        "tags": [{"name": "val"}],
        "objects": [{"classTitle": "cat", **shape}],
    }
    for name in ("a", "b"):
        image(tmp_path / f"ds/img/{name}.jpg")
        written(tmp_path / f"ds/ann/{name}.jpg.json", about)
    (tmp_path / "ds/ann/b.jpg.json").write_text("{")
    table = read_boxes(tmp_path)
    assert found(table) == {"ds/img/a.jpg": ("val", [CAT])}
    assert "ds/ann/b.jpg.json" in table.skipped[0][0]
    assert box_kind(tmp_path / "ds") == "tools"


def test_missing_images_and_damaged_shapes_are_named_and_never_background(tmp_path):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    broken = {"shape_attributes": {"name": "rect", "x": 10}, "region_attributes": {"kind": "cat"}}
    entries = {**via([rect(), broken]), **via([broken], "b.jpg"), **via([rect()], "c.jpg")}
    table = read_boxes(written(tmp_path / "via.json", entries))
    assert found(table) == {"a.jpg": ("", [CAT])}
    assert dict(table.skipped) == {"b.jpg": "none of its 1 shapes is a box", "c.jpg": "no such image"}
    with pytest.raises(DataError, match="cannot be used"):
        read_boxes(tmp_path, strict=True)


def test_one_file_of_labelme_is_data_too(tmp_path):
    image(tmp_path / "a.jpg")
    shape = {"label": "cat", "points": [[30, 40], [10, 10]], "shape_type": "rectangle"}
    said = {"shapes": [shape], "imagePath": "..\\pictures\\a.jpg", "imageHeight": 50, "imageWidth": 100}
    assert found(read_boxes(written(tmp_path / "a.json", said))) == {"a.jpg": ("", [CAT])}


def test_exports_of_videos_stay_clips(tmp_path):
    value = {"ranges": [{"start": 1, "end": 3}], "timelinelabels": ["wave"]}
    task = studio(value, "timelinelabels")
    path = written(tmp_path / "project.json", [{**task, "data": {"video": "of_no_test.mp4"}}])
    assert box_kind(path) is None
    with pytest.raises(DataError, match=r"none of the 1 videos"):
        read_table(path)
