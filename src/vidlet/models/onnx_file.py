"""Any image network brought along as an ONNX or a float TFLite file, up to one of its tensors, as a backbone.

The graph is read by ``onnx_graph.interpreter``, with its constants folded and its normalizations in their convolutions.
What was read is compared with ONNX Runtime's answer for the file before it is believed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from ..errors import ModelError, WeightsError
from ..onnx_graph import Graph, attribute
from ..onnx_graph.interpreter import GraphNetwork
from ..onnx_graph.normal import Shapes, fix_batch, one_picture, shapes_of
from ..runtime import open_session
from ..runtime.structure import check_structure
from ..runtime.trial import check_runnable
from .tflite_network import float_network

PARITY = 1e-3  # largest difference to ONNX Runtime, relative to the largest feature


class OnnxBackbone(GraphNetwork):
    """Pictures (T, 3, H, W) -> the maps (T, C, h, w) of a tensor of a file; a row (T, D) is a map of one pixel.

    Args:
        tensor: its name; "": the last map before the network averages it, or the map that is its only output.
        input_size: (H, W), used where the file leaves it free.
        bgr: the file takes blue first.

    Raises:
        WeightsError: not such a file; an operator that is not read; no tensor of this name, or none given and no map
            that is the network's last one beyond doubt; a tensor that is no float map of one picture; or answers that
            are not ONNX Runtime's.
    """

    def __init__(
        self, path: Path, tensor: str = "", input_size: tuple[int, int] = (224, 224), bgr: bool = False
    ) -> None:
        try:
            folded = folded_graph(read_network(path), tensor, input_size)
            graph = Graph(folded)
            super().__init__(folded, graph.inputs[0], graph.proto.output[0].name)
            self.bgr, self.path, self.cut = bgr, path, self.until
            self.file_size = self.shapes[self.source][2:]
            self.out_channels, self.map = self._maps()
            check_read(self, folded, str(path), self.file_size, bgr)
        except ModelError as error:
            message = str(error).removeprefix(f"{path}: ")
            raise WeightsError(f"{path}: {message}") from error
        except Exception as error:  # onnx, ONNX Runtime and PyTorch have no error of a bad graph in common
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise WeightsError(f"{path}: cannot be read as an image network ({reason})") from error

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (T, 3, H, W) -> maps (T, C, h, w)."""
        found = super().forward(x[:, [2, 1, 0]] if self.bgr else x)
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

    def _maps(self) -> tuple[int, tuple[int, int]]:
        shape = self.shapes[self.cut]
        if len(shape) not in (2, 4) or shape[0] != 1:
            raise ModelError(
                f"tensor {self.cut} has shape {list(shape)}; features are a float map [1, C, h, w] or a row [1, D] of "
                "one picture"
            )
        return shape[1], (shape[2], shape[3]) if len(shape) == 4 else (1, 1)


def check_read(
    network: GraphNetwork, model: onnx.ModelProto, where: str, size: Sequence[int], bgr: bool = False
) -> None:
    """Compare what was read of a graph with ONNX Runtime's answer for it, on a picture of noise.

    Args:
        bgr: the network turns the colors of its pictures round before the graph sees them.

    Raises:
        ModelError: they differ by more than ``PARITY`` of the largest number.
    """
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    expected = open_session(model, where, threads=1).run([network.until], {network.source: picture})[0]
    with torch.no_grad():
        given = torch.from_numpy(picture[:, ::-1].copy() if bgr else picture)
        found = network(torch.cat([given, -given]))[:1]  # two at once: none may look at the other
    worst = float(np.abs(found.numpy().reshape(expected.shape) - expected).max() / max(np.abs(expected).max(), 1e-9))
    if not worst <= PARITY:
        raise ModelError(f"read otherwise than ONNX Runtime computes it ({worst:.1e} at {network.until})")


def last_map(graph: Graph, shapes: Shapes) -> str:
    """The map that a classifier averages, behind which there is no map; else the map that is the only output.

    Raises:
        ModelError: there is none, or more than one; lists the maps that could be named.
    """
    maps = [name for name in graph.makers if _is_map(shapes.get(name, ()))]
    averaged = {
        str(node.input[0])
        for node in graph.nodes
        if node.input and _averages(node, graph, shapes) and not graph.descendants(*node.output) & set(maps)
    }
    if len(averaged) == 1:
        return averaged.pop()
    outputs = [value.name for value in graph.proto.output]
    if not averaged and len(outputs) == 1 and outputs[0] in maps:
        return outputs[0]
    why = f"it averages {len(averaged)} maps" if averaged else "it averages no map at its end"
    raise ModelError(f"{why}, so name the tensor to take (FILE:TENSOR); its last maps are {', '.join(maps[-8:])}")


def _averages(node: onnx.NodeProto, graph: Graph, shapes: Shapes) -> bool:
    """Whether a node takes the average of a whole map (1, C, h, w)."""
    shape = shapes.get(node.input[0], ())
    if len(shape) != 4:
        return False
    if node.op_type == "AveragePool":
        return attribute(node, "kernel_shape") == list(shape[2:]) and shapes.get(node.output[0], ())[2:] == (1, 1)
    axes = attribute(node, "axes")
    if len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.value(node.input[1]).tolist()
    averages_both = node.op_type == "ReduceMean" and sorted(axis % 4 for axis in axes or ()) == [2, 3]
    return averages_both or node.op_type == "GlobalAveragePool"


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


def read_network(path: Path) -> onnx.ModelProto:
    """The model of a file that takes pictures; a float .tflite becomes one."""
    if path.suffix == ".tflite":
        return float_network(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})") from error
    check_structure(data, str(path))
    model = onnx.load_from_string(data)
    graph = Graph(model)
    inputs = [value.type.tensor_type for value in model.graph.input if value.name in graph.inputs]
    sizes = [[dim.dim_value for dim in value.shape.dim] for value in inputs]
    if len(inputs) != 1 or len(sizes[0]) != 4 or sizes[0][1] not in (0, 3):
        raise ModelError(f"takes {sizes or 'nothing'}; expected one picture [1, 3, H, W]")
    if inputs[0].elem_type != onnx.TensorProto.FLOAT:
        raise ModelError("its input is not float32; expected one picture [1, 3, H, W]")
    return model


def folded_graph(model: onnx.ModelProto, tensor: str, input_size: Sequence[int]) -> onnx.ModelProto:
    """The graph from one picture to ``tensor``, constants folded, normalizations in their convolutions."""
    graph = Graph(fix_batch(model, (3, *input_size)))
    check_runnable(graph.model.SerializeToString(), "the network")
    single = one_picture(graph.model)
    shapes = shapes_of(single)
    tensor = tensor or last_map(Graph(single), shapes)
    if tensor not in graph.makers:
        some = [name for name in graph.makers if len(shapes.get(name, ())) == 4]
        raise ModelError(f"has no tensor {tensor!r}; its last maps are {', '.join(some[-8:])}")
    known = {value.name: value.type.tensor_type.elem_type for value in (*single.graph.value_info, *single.graph.output)}
    if known.get(tensor, onnx.TensorProto.FLOAT) not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UNDEFINED):
        raise ModelError(f"tensor {tensor} is not float32; features are a float map")
    graph.set_outputs([onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)])
    graph.prune()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "folded.onnx")
        open_session(graph.model, "the network", threads=1, folded_file=file)
        return onnx.load(file)
