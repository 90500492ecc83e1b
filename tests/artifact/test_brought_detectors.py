"""Detectors that others trained: toy files of each kind, whose box can be worked out, and the real ones."""

import itertools
import struct

import numpy as np
import onnx
import pytest
import torch

import vidlet
from shared_data import shared
from toy_detectors import CENTER, KINDS, SIZE, Toy, picture, yolox
from vidlet.errors import ExportError, WeightsError
from vidlet.jobs.export import export
from vidlet.metrics import overlaps
from vidlet.models import build_extractor
from vidlet.models.brought_detectors import COCO
from vidlet.models.darknet_network import load_darknet_network
from vidlet.recipe import Extractor
from vidlet.video import iter_frames


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "two.names"
    path.write_text("cat\ndog\n")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_box_of_a_file_is_where_its_kind_says(kind, tmp_path, names):
    build, size, score = KINDS[kind]
    onnx.save(build(), tmp_path / "theirs.onnx")
    made = export(tmp_path / "theirs.onnx", tmp_path / "ours.onnx", labels=names)
    assert made["metrics"] == {
        "kind": kind, "labels": 2, "input_size": [SIZE, SIZE], "bytes": (tmp_path / "ours.onnx").stat().st_size
    }  # fmt: skip
    model = vidlet.load(tmp_path / "ours.onnx")
    assert model.box_labels == ("cat", "dog")
    best = model.detect(picture())[0]
    low, high = CENTER - np.array(size) / 2, CENTER + np.array(size) / 2
    np.testing.assert_allclose(best[:4], np.clip(np.concatenate([low, high]) / SIZE, 0, 1), atol=1e-4)
    assert best[4] == pytest.approx(score, abs=1e-4)
    assert best[5] == 1


def test_a_brought_detector_is_the_extractor_of_a_head(tmp_path, names):
    onnx.save(yolox(), tmp_path / "theirs.onnx")
    export(tmp_path / "theirs.onnx", tmp_path / "ours.onnx")
    extractor = build_extractor(Extractor("detector", 1.0, (SIZE, SIZE), "", 0, str(tmp_path / "ours.onnx")))
    assert extractor.feature_shape == (7, 2, 2)
    frames = torch.from_numpy(np.stack([picture(), np.zeros_like(picture()), picture()[:, ::-1]]))
    maps = extractor(frames)
    assert maps[:, 4].flatten(1).max(1).values.tolist() == pytest.approx([0.125, 0, 0.125], abs=1e-5)
    assert maps[0, 4, 0, 1] == pytest.approx(0.125, abs=1e-5)
    assert maps[2, 4, 0, 0] == pytest.approx(0.125, abs=1e-5)


def test_what_is_no_detector_or_not_named_is_refused(tmp_path, names):
    onnx.save(yolox(), tmp_path / "theirs.onnx")
    with pytest.raises(ExportError, match=r"coco: names 80 classes, but .*theirs.onnx has 2"):
        export(tmp_path / "theirs.onnx", tmp_path / "out.onnx", labels="coco")
    names.rename(tmp_path / "two.txt")
    with pytest.raises(ExportError, match=r"what its 2 classes are called: name a file .* --labels FILE"):
        export(tmp_path / "theirs.onnx", tmp_path / "out.onnx")
    onnx.save(yolox(pixels=True), tmp_path / "pixels.onnx")
    with pytest.raises(WeightsError, match="has the shapes of YOLOX, but not its numbers"):
        export(tmp_path / "pixels.onnx", tmp_path / "out.onnx", labels=tmp_path / "two.txt")
    toy = Toy()
    onnx.save(toy.model({toy.rows(8, [0.0] * 9, {}, 0): [1, 64, 9]}), tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match=r"gives \[1, 64, 9\] for pictures of 64 x 64: of none of the detectors"):
        export(tmp_path / "other.onnx", tmp_path / "out.onnx", labels=tmp_path / "two.txt")
    assert not (tmp_path / "out.onnx").exists()


CFG = """
[net]
width=64
height=64

[convolutional]
filters=3
size=1
activation=linear

[shortcut]
from=-1
activation=linear

[convolutional]
filters=7
size=16
stride=16
pad=0
activation=linear

[yolo]
mask=1
anchors=5,5, 20,12
classes=2
"""


def darknet(folder, cfg=CFG, change=lambda values: values):
    """Colors doubled by a sum, then a cell of 16 pixels whose objectness is how red it is."""
    weight = np.zeros((7, 3, 16, 16), np.float32)
    weight[4, 0] = 10 / 256
    values = [np.zeros(3), np.eye(3), [0, 0, 0, 0, -9, -2, 9], weight]
    flat = np.concatenate([np.ravel(value) for value in values]).astype("<f4")
    (folder / "toy.cfg").write_text(cfg)
    (folder / "toy.weights").write_bytes(struct.pack("<3iQ", 0, 2, 0, 0) + change(flat).tobytes())
    return folder / "toy.weights"


def test_a_detector_of_darknets_is_read_by_its_description(tmp_path, names):
    export(darknet(tmp_path), tmp_path / "ours.onnx")
    best = vidlet.load(tmp_path / "ours.onnx").detect(picture())[0]
    half = np.array([10, 6])
    corners = np.array([CENTER - half, CENTER + half])
    np.testing.assert_allclose(best[:4], corners.ravel() / SIZE, atol=1e-4)
    assert best[4] == pytest.approx(1 / (1 + np.exp(-11)) / (1 + np.exp(-9)), abs=1e-4)
    assert best[5] == 1


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (CFG.replace("[shortcut]", "[crop]"), r"line 11: \[crop\] is not read; known are convolutional, shortcut"),
        (CFG.replace("from=-1", "from=7"), r"line 11: \[shortcut\] reads the layers '7', which are not before it"),
        (CFG.replace("classes=2", "classes=3"), r"line 22: \[yolo\] gets 7 channels, not 1 times 5 \+ 3 classes"),
        (CFG.replace("=linear", "=hardtan"), "activation 'hardtan'; known are linear, leaky"),
        (CFG[: CFG.index("[yolo]")], r"has no layer \[yolo\]"),
    ],
)
def test_a_description_that_is_not_read_is_named_by_its_line(tmp_path, cfg, said):
    weights = darknet(tmp_path, cfg)
    with pytest.raises(WeightsError, match=said):
        load_darknet_network(tmp_path / "toy.cfg", weights)


def test_weights_that_do_not_fit_a_description_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"ends in layer 2, line 15 of toy\.cfg"):
        load_darknet_network(tmp_path / "toy.cfg", darknet(tmp_path, change=lambda values: values[:-1]))
    longer = darknet(tmp_path, change=lambda values: np.append(values, 0).astype("<f4"))
    with pytest.raises(WeightsError, match="1 values are left behind the last layer"):
        load_darknet_network(tmp_path / "toy.cfg", longer)
    (tmp_path / "toy.cfg").unlink()
    with pytest.raises(WeightsError, match=r"described by toy\.cfg, which must lie beside it"):
        load_darknet_network(tmp_path / "toy.cfg", tmp_path / "toy.weights")


REAL = {
    "yolox": "yolox_nano.onnx", "nanodet": "nanodet_m.onnx", "fastestdet": "FastestDet.onnx",
    "yolo_fastest": "yolo-fastest-1.1.weights",
}  # fmt: skip


@pytest.mark.slow
def test_the_published_files_see_the_same_people(tmp_path):
    frames = iter_frames(shared("data", "samples", "mmaction2_demo.mp4"))
    frame = next(itertools.islice(frames, 30, None)).rgb()
    boxes = {}
    for folder, name in REAL.items():
        export(shared("weights", folder, name), tmp_path / f"{folder}.onnx", labels="coco")
        found = vidlet.load(tmp_path / f"{folder}.onnx").detect(frame)
        boxes[folder] = found[(found[:, 5] == COCO.index("person")) & (found[:, 4] > 0.45)]
    for folder, found in boxes.items():
        assert len(found) >= 2, folder
        shares = overlaps(found[:, :4], boxes["yolox"][:, :4]).max(1)
        assert np.median(shares) > 0.5, (folder, shares)
