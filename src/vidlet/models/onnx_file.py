"""Any image network brought along as an ONNX file, up to one of its tensors, as a backbone.

The file is made for one picture (its batch may be fixed to 1); here T pictures are computed at once. A value is kept
as the file has it, with T in the place of the batch of 1; where an operator moves or splits the first axis (the
shuffles of ShuffleNet), T stands in front of it until the batch of 1 is there again. What was read is compared with
ONNX Runtime's answer for the file before it is believed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..errors import ModelError, WeightsError
from ..runtime import open_session
from ..runtime.structure import check_structure
from ..runtime.trial import check_runnable
from .onnx_operators import ELEMENTWISE, FRONT, MOVING, PLAIN, READ, SHAPED, resized, touches_first

PARITY = 1e-3  # largest difference to ONNX Runtime, relative to the largest feature
_WEIGHTED = ("Conv", "Gemm")


class OnnxBackbone(nn.Module):
    """Pictures (T, 3, H, W) -> the maps (T, C, h, w) of a tensor of an ONNX file; a row (T, D) is a map of one pixel.

    Args:
        tensor: its name; "": the last map before the network averages it.
        input_size: (H, W), used where the file leaves it free.
        bgr: the file takes blue first.

    Raises:
        WeightsError: not such a file; an operator that is not read; no tensor of this name; a tensor that is no float
            map of one picture; or answers that are not ONNX Runtime's.
    """

    def __init__(
        self, path: Path, tensor: str = "", input_size: tuple[int, int] = (224, 224), bgr: bool = False
    ) -> None:
        super().__init__()
        try:
            self._read(path, tensor, input_size, bgr)
        except WeightsError as error:
            raise error if str(path) in str(error) else WeightsError(f"{path}: {error}") from error
        except Exception as error:  # onnx, ONNX Runtime and PyTorch have no error of a bad graph in common
            raise WeightsError(f"{path}: cannot be read as an image network ({_one_line(error)})") from error

    def _read(self, path: Path, tensor: str, input_size: tuple[int, int], bgr: bool) -> None:
        model = _folded(path, tensor, input_size)
        graph = model.graph
        self.path, self.cut, self.bgr = path, graph.output[0].name, bgr
        self.source = graph.input[0].name
        self.file_size = tuple(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[2:])
        self.nodes = list(graph.node)
        self.shapes = _shapes(graph)
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self._refuse_unread()
        self.out_channels, self.map = self._maps()
        self.weights = nn.ParameterDict()
        self.keys: dict[str, str] = {}
        trained = {name for node in self.nodes if node.op_type in _WEIGHTED for name in node.input[1:]}
        for name, values in self.constants.items():
            if values.dtype != np.float32:
                continue
            key = self.keys[name] = _key(name, self.keys.values())
            if name in trained:
                self.weights[key] = nn.Parameter(torch.from_numpy(values.copy()))
            else:
                self.register_buffer(key, torch.from_numpy(values.copy()))
        self._check_parity(model)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (T, 3, H, W) -> maps (T, C, h, w)."""
        if self.bgr:
            x = x[:, [2, 1, 0]]
        values = {self.source: x}
        for node in self.nodes:
            outputs = self._run(node, values)
            values.update(zip(node.output, outputs, strict=False))
        found = values[self.cut]
        return found if found.ndim == 4 else found[..., None, None]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the maps.

        Raises:
            WeightsError: another size of pictures than the file's.
        """
        if (height, width) != self.file_size:
            wanted = f"[{self.file_size[0]}, {self.file_size[1]}]"
            raise WeightsError(f"{self.path}: takes pictures of {wanted}, set extractor.input_size to it")
        return self.map

    def _run(self, node: onnx.NodeProto, values: Mapping[str, Tensor]) -> list[Tensor]:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [self._value(name, values) for name in node.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        shape = self.shapes[node.output[0]]
        if node.op_type in PLAIN:
            return [PLAIN[node.op_type](attributes, *inputs)]
        if node.op_type == "Resize":
            return [resized(attributes, inputs[0], shape)]
        if node.op_type in SHAPED:
            return [inputs[0].reshape(-1, *(shape[1:] if self._whole(node.output[0]) else shape))]
        if node.op_type in ELEMENTWISE and all(self._whole(name) for name in node.input if name in values):
            return [ELEMENTWISE[node.op_type](attributes, *inputs)]
        computed = [name for name in node.input if name in values]
        rank = len(self.shapes[computed[0]])
        plain = all(self._whole(name) for name in (*computed, *node.output))
        front = 0 if plain and not touches_first(node.op_type, attributes, inputs, rank) else 1
        attributes[FRONT] = front
        if front:  # (T, *what the file has)
            inputs = [
                value.unsqueeze(1) if name in values and self._whole(name) else value
                for name, value in zip(node.input, inputs, strict=False)
            ]
        if node.op_type == "Split":
            axis = attributes.get("axis", 0) % rank
            parts = list(inputs[0].split([self.shapes[name][axis] for name in node.output], axis + front))
        else:
            parts = [{**ELEMENTWISE, **MOVING}[node.op_type](attributes, *inputs)]
        return [
            part.squeeze(1) if front and self._whole(name) else part
            for name, part in zip(node.output, parts, strict=False)
        ]

    def _whole(self, name: str) -> bool:
        """Whether T stands in the place of the batch of 1; else it stands in front."""
        return len(self.shapes[name]) > 0 and self.shapes[name][0] == 1

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Any:
        if not name:
            return None
        if name in values:
            return values[name]
        if name not in self.keys:
            return self.constants[name]  # whole numbers
        key = self.keys[name]
        return self.weights[key] if key in self.weights else getattr(self, key)

    def _refuse_unread(self) -> None:
        for node in self.nodes:
            if node.op_type not in READ or node.domain not in ("", "ai.onnx"):
                raise WeightsError(
                    f"{self.path}: operator {node.op_type} ({node.output[0]}) is not read; take a tensor before it "
                    f"(FILE:TENSOR); read are {', '.join(READ)}"
                )
            if node.op_type in (*PLAIN, "Resize") and not self._whole(node.input[0]):
                raise WeightsError(f"{self.path}: {node.op_type} ({node.output[0]}) mixes pictures, its batch is not 1")

    def _maps(self) -> tuple[int, tuple[int, int]]:
        shape = self.shapes[self.cut]
        if len(shape) not in (2, 4) or shape[0] != 1:
            raise WeightsError(
                f"{self.path}: tensor {self.cut} has shape {list(shape)}; features are a float map [1, C, h, w] or a "
                "row [1, D] of one picture"
            )
        return shape[1], (shape[2], shape[3]) if len(shape) == 4 else (1, 1)

    def _check_parity(self, model: onnx.ModelProto) -> None:
        picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, *self.file_size)).astype(np.float32)
        expected = open_session(model, str(self.path), threads=1).run([self.cut], {self.source: picture})[0]
        with torch.no_grad():
            given = torch.from_numpy(picture[:, ::-1].copy() if self.bgr else picture)
            found = self(torch.cat([given, -given]))[:1]  # two at once: none may look at the other
        worst = float(
            np.abs(found.numpy().reshape(expected.shape) - expected).max() / max(np.abs(expected).max(), 1e-9)
        )
        if not worst <= PARITY:
            raise WeightsError(f"{self.path}: read otherwise than ONNX Runtime computes it ({worst:.1e} at {self.cut})")


def last_map(graph: onnx.GraphProto) -> str:
    """The map that a classifier averages: the input of its last global average; else the output, if it is a map."""
    shapes = _shapes(graph)
    for node in reversed(graph.node):
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
        if node.op_type == "GlobalAveragePool" or (node.op_type == "ReduceMean" and axes in ([2, 3], [-1, -2])):
            return str(node.input[0])
    return next((v.name for v in graph.output if len(shapes.get(v.name, ())) == 4), str(graph.output[0].name))


def _folded(path: Path, tensor: str, input_size: tuple[int, int]) -> onnx.ModelProto:
    """The graph from one picture to ``tensor``, constants folded, normalizations in their convolutions."""
    try:
        data = path.read_bytes()
        check_structure(data, str(path))
        model = onnx.load_from_string(data)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except ModelError as error:
        raise WeightsError(str(error)) from error
    constants = {t.name for t in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    sizes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in inputs]
    if len(inputs) != 1 or len(sizes[0]) != 4 or sizes[0][1] not in (0, 3):
        raise WeightsError(f"{path}: takes {sizes or 'nothing'}; expected one picture [1, 3, H, W]")
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise WeightsError(f"{path}: its input is not float32; expected one picture [1, 3, H, W]")
    if sizes[0][0] > 1:
        raise WeightsError(f"{path}: takes {sizes[0][0]} pictures at once; expected one, or a free number")
    wanted = (1, 3, *(size or free for size, free in zip(sizes[0][2:], input_size, strict=True)))
    for dim, size in zip(inputs[0].type.tensor_type.shape.dim, wanted, strict=True):
        dim.dim_value = size
    try:
        check_runnable(model.SerializeToString(), str(path))
    except ModelError as error:
        raise WeightsError(str(error)) from error
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    tensor = tensor or last_map(inferred.graph)
    known = {name for node in model.graph.node for name in node.output}
    if tensor not in known:
        some = [name for name, shape in _shapes(inferred.graph).items() if len(shape) == 4 and name in known]
        raise WeightsError(f"{path}: has no tensor {tensor!r}; its last maps are {', '.join(some[-8:])}")
    value = next((v for v in inferred.graph.value_info if v.name == tensor), None)
    value = value or next((v for v in inferred.graph.output if v.name == tensor), None)
    del model.graph.output[:]
    model.graph.output.append(value or onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    _keep_ancestors_(model.graph, tensor)
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "folded.onnx")
        try:
            open_session(model, str(path), threads=1, folded_file=out)
        except ModelError as error:
            raise WeightsError(str(error)) from error
        folded = onnx.shape_inference.infer_shapes(onnx.load(out), data_prop=True)
    for value in (*folded.graph.value_info, *folded.graph.output):
        if value.name == tensor and value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise WeightsError(f"{path}: tensor {tensor} is not float32; features are a float map")
    return folded


def _keep_ancestors_(graph: onnx.GraphProto, tensor: str) -> None:
    """Leave only the nodes that a tensor is computed by."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    wanted, kept = [tensor], set()
    while wanted:
        place = makers.get(wanted.pop())
        if place is not None and place not in kept:
            kept.add(place)
            wanted += graph.node[place].input
    nodes = [graph.node[i] for i in sorted(kept)]
    del graph.node[:]
    graph.node.extend(nodes)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}


def _key(name: str, taken: Collection[str]) -> str:
    """A name that PyTorch takes for a tensor of a module, and that no other has."""
    key = "t_" + "".join(c if c.isalnum() else "_" for c in name)
    return key if key not in taken else f"{key}_{len(taken)}"
