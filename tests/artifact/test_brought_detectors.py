"""Detectors that others trained: toy files of each kind, whose box can be worked out, and the real ones where they are.

A toy's objectness is how red a cell is, times a number of its stride, so that one cell of stride 16 is the best.
"""

import itertools
import struct

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import vidlet
from shared_data import shared
from vidlet.errors import ExportError, WeightsError
from vidlet.jobs.export import export
from vidlet.metrics import overlaps
from vidlet.models import build_extractor
from vidlet.models.brought_detectors import COCO
from vidlet.models.darknet_network import load_darknet_network
from vidlet.recipe import Extractor
from vidlet.video import iter_frames

SIZE, STRIDES, BEST = 64, (8, 16, 32), {8: 0.5, 16: 0.9, 32: 0.5}
RED_ROW, RED_COLUMN = 1, 2  # of the red cell, of 16 pixels
CENTER = np.array([(RED_COLUMN + 0.5) * 16, (RED_ROW + 0.5) * 16])


def picture() -> np.ndarray:
    """Black, with one red cell of 16 x 16."""
    found = np.zeros((SIZE, SIZE, 3), np.uint8)
    found[RED_ROW * 16 : RED_ROW * 16 + 16, RED_COLUMN * 16 : RED_COLUMN * 16 + 16, 0] = 255
    return found


class Toy:
    """Nodes and tensors of a graph on ``images`` (1, 3, 64, 64)."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def store(self, value: np.ndarray) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **options) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def rows(self, stride: int, bias: list[float], red: dict[int, float], channel: int, offset: float = 0.0) -> str:
        """(1, n, C): constants in each cell, and in the columns of ``red`` a factor times (red's mean + offset)."""
        flat = self.add("Reshape", self.maps(stride, bias, red, channel, offset), self.shape(1, len(bias), -1))
        return self.add("Transpose", flat, perm=[0, 2, 1])

    def maps(self, stride: int, bias: list[float], red: dict[int, float], channel: int, offset: float = 0.0) -> str:
        weight = np.zeros((len(bias), 3, stride, stride), np.float32)
        base = np.array(bias, np.float32)
        for column, factor in red.items():
            weight[column, channel] = factor / stride**2
            base[column] += factor * offset
        return self.add("Conv", "images", self.store(weight), self.store(base), strides=[stride, stride])

    def shape(self, *sizes: int) -> str:
        return self.store(np.array(sizes, np.int64))

    def model(self, outputs: dict[str, list[int]]) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()]
        given = [helper.make_tensor_value_info("images", 1, [1, 3, SIZE, SIZE])]
        graph = helper.make_graph(self.nodes, "toy", given, values, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def grid(stride: int) -> np.ndarray:
    """Centers of the cells in pixels, (n, 2)."""
    side = SIZE // stride
    y, x = np.mgrid[:side, :side]
    return (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride


def yolox(pixels: bool = False) -> onnx.ModelProto:
    toy = Toy()
    parts = []
    for stride in STRIDES:
        size = [20.0, 12.0] if pixels else [np.log(20 / stride), np.log(12 / stride)]
        bias = [*([300.0, 300.0] if pixels else [0.5, 0.5]), *size, 0.0, 0.2, 1.0]
        parts.append(toy.rows(stride, bias, {4: BEST[stride] / 255}, channel=2))
    return toy.model({toy.add("Concat", *parts, axis=1): [1, 84, 7]})


def decoded(stride: int, toy: Toy, classes: dict[int, float], width: int) -> str:
    """Rows x y w h in pixels, then the columns of ``classes``."""
    places = np.zeros((1, len(grid(stride)), width), np.float32)
    places[0, :, :4] = np.concatenate([grid(stride), np.full((len(grid(stride)), 2), [20.0, 12.0])], 1)
    rows = toy.rows(stride, [0.0] * width, classes, channel=0)
    return toy.add("Add", rows, toy.store(places))


def yolov5() -> onnx.ModelProto:
    toy = Toy()
    ones = np.zeros((1, 1, 7), np.float32)
    ones[..., 5:] = 0.2, 1.0
    parts = [decoded(stride, toy, {4: BEST[stride]}, 7) for stride in STRIDES for _ in range(3)]
    joined = toy.add("Concat", *parts, axis=1)
    return toy.model({toy.add("Add", joined, toy.store(ones)): [1, 252, 7]})


def yolov8() -> onnx.ModelProto:
    toy = Toy()
    parts = [decoded(stride, toy, {5: BEST[stride]}, 6) for stride in STRIDES]
    return toy.model({toy.add("Transpose", toy.add("Concat", *parts, axis=1), perm=[0, 2, 1]): [1, 6, 84]})


def nanodet() -> onnx.ModelProto:
    toy = Toy()
    logits = np.zeros((4, 8))
    logits[[0, 2], 1], logits[[1, 3], 2] = 30, 30  # left and right one stride away, top and bottom two
    classes, sides = {}, {}
    for stride in STRIDES:
        count = (SIZE // stride) ** 2
        red = {1: BEST[stride] / 255 * 58.395}
        name = toy.rows(stride, [0.0, 0.0], red, channel=2, offset=123.675 / 58.395)
        classes[name] = [1, count, 2]
        sides[toy.rows(stride, logits.ravel().tolist(), {}, channel=0)] = [1, count, 32]
    return toy.model(classes | sides)


def fastestdet() -> onnx.ModelProto:
    toy = Toy()
    size = [np.log(share / (1 - share)) for share in (20 / 64, 12 / 64)]
    bias = [0.0, np.arctanh(0.5), np.arctanh(0.5), *size, 0.0, 1.0]
    return toy.model({toy.maps(16, bias, {0: 0.9}, channel=2): [1, 7, 4, 4]})


KINDS = {
    "YOLOX": (yolox, (20, 12), 0.9), "YOLOv5": (yolov5, (20, 12), 0.9), "YOLOv8": (yolov8, (20, 12), 0.9),
    "NanoDet": (nanodet, (32, 64), 0.9), "FastestDet": (fastestdet, (20, 12), 0.9**0.6),
}  # fmt: skip


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
