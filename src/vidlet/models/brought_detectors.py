"""Detectors that others trained, read from their files: YOLOX, YOLOv5, YOLOv8, NanoDet, FastestDet; darknet's YOLOv3.

Each kind says how pictures come in, by which shapes its file is known, and what its numbers mean. The network is read
by ``onnx_graph.interpreter`` and compared with ONNX Runtime before it is believed; what the numbers mean is here.

Sources: Ge et al. 2021, arXiv:2107.08430 (YOLOX); Redmon and Farhadi 2018, arXiv:1804.02767 (YOLOv3); Li et al. 2020,
arXiv:2006.04388 (the distributions of distances in NanoDet); the projects' own decoding for FastestDet, YOLOv5, YOLOv8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from ..errors import ModelError, WeightsError
from ..onnx_graph import Graph
from ..onnx_graph.interpreter import GraphNetwork
from ..onnx_graph.normal import one_picture, shapes_of
from .darknet_network import load_darknet_network
from .onnx_file import check_read, folded_graph, read_network
from .region import MAX_LOG, corners

STRIDES = (8, 16, 32)
ROWS = "vidlet.rows"
_COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
COCO = tuple(_COCO.split(", "))  # the 80 classes, in the order in which detectors are trained on them


@dataclass(frozen=True)
class Found:
    """What a file's outputs say of it: shapes without the batch, by name, and the operators between."""

    outputs: dict[str, tuple[int, ...]]
    operators: frozenset[str]
    size: tuple[int, int]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the outputs, in their order."""
        return list(self.outputs.values())

    def cells(self, stride: int) -> tuple[int, int]:
        """Rows and columns of the map at a stride."""
        return -(-self.size[0] // stride), -(-self.size[1] // stride)

    @property
    def count(self) -> int:
        """Cells of all maps."""
        return sum(rows * columns for rows, columns in map(self.cells, STRIDES))


@dataclass(frozen=True)
class Kind:
    """One kind of detector: pictures are ``(x - zero_point) * scale`` of 0..255, with blue first where ``bgr``.

    ``classes`` gives the number of classes of a file of this kind, 0 for another file. ``rows`` are of shape (B, N, C)
    or a map (B, C, h, w); ``decode`` makes of them x y w h (B, N, 4), relative to the picture, and scores (B, N, K).
    """

    name: str
    classes: Callable[[Found], int]
    decode: Callable[[Tensor, Found], tuple[Tensor, Tensor]]
    bgr: bool = False
    zero_point: tuple[float, ...] = (0.0, 0.0, 0.0)
    scale: tuple[float, ...] = (1.0, 1.0, 1.0)


class BroughtDetector(nn.Module):
    """The last of frames uint8 (T, H, W, 3) -> map (1, C, h, w), corners (1, N, 4) in [0, 1], scores (1, K, N).

    Corners are x1 y1 x2 y2. The map is what the network says of its coarsest cells: a head can read the action from it.
    """

    def __init__(self, network: nn.Module, kind: Kind, found: Found, classes: int) -> None:
        super().__init__()
        self.network, self.kind, self.found, self.classes, self.input_size = network, kind, found, classes, found.size
        self.register_buffer("order", torch.tensor([2, 1, 0] if kind.bgr else [0, 1, 2]), persistent=False)
        self.order: Tensor
        for name in ("zero_point", "scale"):
            self.register_buffer(name, torch.tensor(getattr(kind, name)).reshape(3, 1, 1))
        self.zero_point: Tensor
        self.scale: Tensor

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        pictures = frames[-1:].permute(0, 3, 1, 2).float()
        pictures = pictures.index_select(1, self.order)
        rows = self.network((pictures - self.zero_point) * self.scale)
        boxes, scores = self.kind.decode(rows, self.found)
        return self._map(rows), corners(boxes), scores.transpose(1, 2)

    def _map(self, rows: Tensor) -> Tensor:
        if rows.ndim == 4:
            return rows
        height, width = self.found.cells(STRIDES[-1])
        return rows[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))


def load_brought(path: Path) -> BroughtDetector:
    """A detector that others trained, in eval mode: an ONNX file, or darknet's .weights with its .cfg beside it.

    Raises:
        WeightsError: not such a file, of none of the kinds that are known, or read otherwise than ONNX Runtime does.
    """
    if path.suffix == ".weights":
        theirs = load_darknet_network(path.with_suffix(".cfg"), path)
        found = Found({}, frozenset(), theirs.input_size)
        return _believed(BroughtDetector(theirs, _YOLOV3, found, theirs.classes).eval())
    model = read_network(path)
    try:
        graph = Graph(one_picture(model))
        shapes = shapes_of(graph.model)
        size = shapes[graph.inputs[0]][2:]
        outputs = {value.name: shapes.get(value.name, ())[1:] for value in graph.proto.output}
        found = Found(outputs, frozenset(node.op_type for node in graph.nodes), (size[0], size[1]))
        kind, classes = _kind_of(found)
        folded = folded_graph(_joined(model, list(outputs)), ROWS if len(outputs) > 1 else next(iter(outputs)), size)
        network = GraphNetwork(folded, Graph(folded).inputs[0], folded.graph.output[0].name)
        check_read(network, folded, str(path), size)
        return _believed(BroughtDetector(network, kind, found, classes).eval())
    except ModelError as error:
        raise WeightsError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def _kind_of(found: Found) -> tuple[Kind, int]:
    for kind in KINDS:
        if classes := kind.classes(found):
            return kind, classes
    known = ", ".join(kind.name for kind in (*KINDS, _YOLOV3))
    shapes = ", ".join(str([1, *shape]) for shape in found.shapes)
    raise ModelError(
        f"gives {shapes} for pictures of {found.size[0]} x {found.size[1]}: of none of the detectors that are read "
        f"({known})"
    )


@torch.no_grad()
def _believed(detector: BroughtDetector) -> BroughtDetector:
    """The detector, if what it says of a gray and of a noisy picture are boxes about there and scores in [0, 1].

    Raises:
        ModelError: the file has the shapes of its kind, but other numbers stand in them.
    """
    gray = torch.full((1, *detector.input_size, 3), 114, dtype=torch.uint8)
    noise = torch.randint(0, 256, gray.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = torch.cat([gray, noise]).permute(0, 3, 1, 2).float()
    rows = detector.network((pictures - detector.zero_point) * detector.scale)
    boxes, scores = detector.kind.decode(rows, detector.found)
    outside = float(((boxes[..., :2] < -0.5) | (boxes[..., :2] > 1.5)).float().mean())
    low, high, size = float(scores.min()), float(scores.max()), float(boxes[..., 2:].median())
    if not (outside < 0.05 and low >= -1e-4 and high <= 1 + 1e-4 and 1e-3 < size < 2):
        raise ModelError(
            f"has the shapes of {detector.kind.name}, but not its numbers: scores {low:.3g} to {high:.3g}, "
            f"{outside:.0%} of the boxes outside of the picture, of the size {size:.3g}"
        )
    return detector


def _joined(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Of several outputs, classes of each map first and then distances, one tensor ``ROWS`` (1, N, K + 4 R)."""
    if len(outputs) == 1:
        return model
    graph = Graph.copy_of(model)
    half = len(outputs) // 2
    names = []
    for level in range(half):
        names.append(graph.fresh(f"{ROWS}.{level}"))
        parts = [outputs[level], outputs[half + level]]
        graph.set_nodes([*graph.nodes, onnx.helper.make_node("Concat", parts, names[-1:], axis=2)])
    graph.set_nodes([*graph.nodes, onnx.helper.make_node("Concat", names, [ROWS], axis=1)])
    graph.set_outputs([onnx.helper.make_tensor_value_info(ROWS, onnx.TensorProto.FLOAT, None)])
    return graph.model


def _grid(found: Found, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """x y of all cells in pixels (N, 2), and the stride of each (N, 1)."""
    places, strides = [], []
    for stride in STRIDES:
        rows, columns = found.cells(stride)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        places.append((torch.stack([x, y], -1).reshape(-1, 2) + offset) * stride)
        strides.append(torch.full((rows * columns, 1), float(stride)))
    return torch.cat(places), torch.cat(strides)


def _relative(boxes: Tensor, found: Found) -> Tensor:
    height, width = found.size
    return boxes / torch.tensor([width, height, width, height], dtype=torch.float32)


def _classes_of_rows(found: Found, count: int) -> int:
    """K where the only output is (count, 5 + K), else 0."""
    fits = len(found.shapes) == 1 and len(found.shapes[0]) == 2 and found.shapes[0][0] == count
    return max(0, found.shapes[0][1] - 5) if fits else 0


def _yolox(rows: Tensor, found: Found) -> tuple[Tensor, Tensor]:
    """Rows x y (from the cell's corner, in cells), log w h (in cells), objectness, classes; or all in pixels."""
    places, strides = _grid(found)
    boxes = rows[..., :4]
    if "Exp" not in found.operators:
        centers = rows[..., :2] * strides + places
        boxes = torch.cat([centers, rows[..., 2:4].clamp(max=MAX_LOG).exp() * strides], -1)
    return _relative(boxes, found), rows[..., 4:5] * rows[..., 5:]


def _yolov5(rows: Tensor, found: Found) -> tuple[Tensor, Tensor]:
    """Rows x y w h in pixels, objectness, classes."""
    return _relative(rows[..., :4], found), rows[..., 4:5] * rows[..., 5:]


def _yolov8_classes(found: Found) -> int:
    shape = found.shapes[0]
    return shape[0] - 4 if len(found.shapes) == 1 and len(shape) == 2 and shape[1] == found.count else 0


def _yolov8(columns: Tensor, found: Found) -> tuple[Tensor, Tensor]:
    """Columns (B, 4 + K, N): x y w h in pixels, classes."""
    rows = columns.transpose(1, 2)
    return _relative(rows[..., :4], found), rows[..., 4:]


def _nanodet_classes(found: Found) -> int:
    shapes = found.shapes
    if len(shapes) != 2 * len(STRIDES) or any(len(shape) != 2 for shape in shapes):
        return 0
    counts = [rows * columns for rows, columns in map(found.cells, STRIDES)]
    same = [shape[0] for shape in shapes] == counts * 2 and len({shape[1] for shape in shapes[:3]}) == 1
    return shapes[0][1] if same and all(shape[1] % 4 == 0 for shape in shapes[3:]) else 0


def _nanodet(rows: Tensor, found: Found) -> tuple[Tensor, Tensor]:
    """Rows of K classes and, for each side, logits of its distance from the cell's center in 0, 1, ... R strides."""
    places, strides = _grid(found, 0.5)
    classes = found.shapes[0][1]
    bins = rows[..., classes:].unflatten(-1, (4, -1)).softmax(-1)
    sides = (bins * torch.arange(bins.shape[-1])).sum(-1) * strides  # left, top, right, bottom
    low, high = places - sides[..., :2], places + sides[..., 2:]
    return _relative(torch.cat([(low + high) / 2, high - low], -1), found), rows[..., :classes]


def _fastestdet_classes(found: Found) -> int:
    shape = found.shapes[0]
    cells = found.cells(16)
    return shape[0] - 5 if len(found.shapes) == 1 and len(shape) == 3 and shape[1:] == cells and shape[0] > 5 else 0


def _fastestdet(maps: Tensor, found: Found) -> tuple[Tensor, Tensor]:
    """A map of objectness, x y w h and classes; a score is objectness ** .6 times class ** .4."""
    height, width = maps.shape[2:]
    x = (maps[:, 1].tanh() + torch.arange(width)) / width
    y = (maps[:, 2].tanh() + torch.arange(height)[:, None]) / height
    boxes = torch.stack([x, y, maps[:, 3].sigmoid(), maps[:, 4].sigmoid()], -1).flatten(1, 2)
    scores = maps[:, :1].clamp(min=0).pow(0.6) * maps[:, 5:].clamp(min=0).pow(0.4)
    return boxes, scores.flatten(2).transpose(1, 2)


def _yolov3(rows: Tensor, found: Found) -> tuple[Tensor, Tensor]:
    """Rows x y w h relative to the picture, objectness, classes, as ``DarknetNetwork`` gives them."""
    return rows[..., :4], rows[..., 4:5] * rows[..., 5:]


_UNIT = (1 / 255,) * 3
_YOLOV3 = Kind("YOLOv3 (darknet)", lambda found: 0, _yolov3, scale=_UNIT)
KINDS = (
    Kind("YOLOX", lambda found: _classes_of_rows(found, found.count), _yolox, bgr=True),
    Kind("YOLOv5", lambda found: _classes_of_rows(found, 3 * found.count), _yolov5, scale=_UNIT),
    Kind("YOLOv8", _yolov8_classes, _yolov8, scale=_UNIT),
    Kind("NanoDet", _nanodet_classes, _nanodet, True, (103.53, 116.28, 123.675), (1 / 57.375, 1 / 57.12, 1 / 58.395)),
    Kind("FastestDet", _fastestdet_classes, _fastestdet, bgr=True, scale=_UNIT),
)
