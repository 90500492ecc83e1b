"""Toy files of the detectors that others train: one cell decides, so that their boxes can be worked out.

A toy's objectness is how red a cell is, times a number of its stride, so that one cell of stride 16 is the best.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

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
