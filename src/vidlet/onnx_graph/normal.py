"""The operators of a graph in one form, whatever operator set the file was written for.

Newer sets give as inputs what older ones had as attributes (the bounds of Clip, the axes of ReduceMean), and change
defaults (the axis of Softmax). Here all of that is read once: what is fixed stands in ``Operation.options`` under the
attribute's name, axes count from 0, paddings are numbers, and only tensors are left as inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..errors import ModelError
from .graph import Graph, attribute, attributes
from .rewrites import fold_constants

Shapes = Mapping[str, tuple[int, ...]]
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")

# What the inputs behind the first are: options, which the file must store.
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "Dropout": ("ratio", "training_mode"),
    "Expand": ("shape",),
    "Pad": ("pads", "value", "axes"),
    "Reshape": ("shape",),
    "Resize": ("roi", "scales", "sizes"),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Split": ("split",),
    "Squeeze": ("axes",),
    "Unsqueeze": ("axes",),
    "Upsample": ("scales",),
} | dict.fromkeys(REDUCTIONS, ("axes",))
_SAME_SHAPE = ("GroupNormalization",)
_WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")


@dataclass(frozen=True)
class Operation:
    """One operator: tensors in ("" where one is absent), tensors out, and its options by name."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any]


def fix_batch(model: onnx.ModelProto, size: Sequence[int] = ()) -> onnx.ModelProto:
    """A copy of a model that takes one picture (frame, row) at a time.

    Args:
        size: of the last dimensions of its inputs, where the file leaves them free.

    Raises:
        ModelError: the file takes several at once.
    """
    graph = Graph.copy_of(model)
    graph.set_inputs(value for value in model.graph.input if value.name in graph.inputs)
    graph.model.ir_version = max(graph.model.ir_version, 4)  # before, what is stored had to be an input too
    del graph.proto.value_info[:]
    for value in graph.proto.input:
        dims = list(value.type.tensor_type.shape.dim)
        if not dims:
            continue
        if dims[0].dim_value > 1:
            raise ModelError(f"takes {dims[0].dim_value} pictures at once; expected one, or a free number")
        dims[0].dim_value = 1
        for dim, free in zip(dims[-len(size) :] if size else (), size, strict=False):
            dim.dim_value = dim.dim_value or free
    for value in graph.proto.output:  # what was said of them for any number may be wrong for one
        value.type.tensor_type.ClearField("shape")
    return graph.model


def one_picture(model: onnx.ModelProto, size: Sequence[int] = ()) -> onnx.ModelProto:
    """What ``fix_batch`` gives, with the shapes of its tensors; what follows from them and from constants is stored."""
    model = fix_batch(model, size)
    while True:
        graph = Graph(_with_shapes(model))
        shapes = shapes_of(graph.model)
        known = [node for node in graph.nodes if node.op_type == "Shape" and 0 not in shapes.get(node.input[0], (0,))]
        for node in known:
            part = slice(attribute(node, "start", 0), attribute(node, "end"))
            graph.store(node.output[0], np.array(shapes[node.input[0]][part], np.int64))
        graph.remove(known)
        if not fold_constants(graph) + len(known) + _say_equal_shapes(graph, shapes):
            return graph.model
        model = graph.model
        told = [value for value in model.graph.value_info if 0 not in shapes.get(value.name, ())]
        del model.graph.value_info[:]  # more can be told now of those whose sizes were not all known
        model.graph.value_info.extend(told)


def _say_equal_shapes(graph: Graph, shapes: Shapes) -> int:
    """Say the shapes of results that are those of what they are made of, where the onnx package cannot tell it."""
    found = [
        node
        for node in graph.nodes
        if node.op_type in _SAME_SHAPE and node.output[0] not in shapes and node.input[0] in shapes
    ]
    for node in found:
        shape = shapes[node.input[0]]
        graph.proto.value_info.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape))
    return len(found)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # of a class that the package does not name in public
        raise ModelError(f"the shapes in it cannot be told ({' '.join(str(error).split())[:200]})") from error


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape, of those that the model says; a size that it does not say is 0."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    found = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} | found


def operations_between(
    graph: Graph, source: str, until: str, shapes: Shapes, known: Collection[str]
) -> list[Operation]:
    """The operators from tensor ``source`` to tensor ``until``, in order.

    Args:
        shapes: of the graph's tensors for one picture.
        known: the operators that the caller can compute.

    Raises:
        ModelError: there is no tensor ``until``, it depends on another input, or an operator is not known, or not in
            the way that the graph uses it.
    """
    if until not in graph.makers:
        raise ModelError(f"the graph has no tensor {until!r}")
    inside = graph.ancestors(until, stop=[source])
    nodes = [node for node in graph.nodes if inside & set(node.output)]
    for node in nodes:
        for name in node.input:
            if name and name != source and name not in graph.constants and name not in inside:
                raise ModelError(f"{until} depends on {name}, not on {source} alone")
    return operations_of(graph, nodes, shapes, known)


def operations_of(
    graph: Graph, nodes: Sequence[onnx.NodeProto], shapes: Shapes, known: Collection[str]
) -> list[Operation]:
    """The operators of some nodes of a graph; arguments and errors are those of ``operations_between``."""
    versions = {opset.domain or "ai.onnx": opset.version for opset in graph.model.opset_import}
    found = []
    for node in nodes:
        if node.op_type == "Constant":
            continue
        version = versions.get(node.domain or "ai.onnx", 0)
        if node.op_type not in known or node.domain not in ("", "ai.onnx"):
            kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            what = f"operator {kind} (node {node.name or node.output[0]}, set {version})"
            raise ModelError(f"{what} is not read; read are {', '.join(sorted(known))}")
        try:
            found.append(_operation(node, version, graph, shapes))
        except (IndexError, KeyError, ValueError) as error:
            raise ModelError(f"{node.op_type} (node {node.name or node.output[0]}) makes no sense ({error})") from error
    return found


def _operation(node: onnx.NodeProto, version: int, graph: Graph, shapes: Shapes) -> Operation:
    options, inputs = attributes(node), list(node.input)
    parameters = _PARAMETERS.get(node.op_type, ())
    if node.op_type == "Resize" and version < 11:
        parameters = ("scales",)
    for name, tensor in zip(parameters, inputs[1:], strict=False):
        if tensor in graph.constants:
            options[name] = _plain(graph.value(tensor))
        elif tensor:
            raise ModelError(f"{node.op_type} ({node.output[0]}): its {name} is computed; expected a stored one")
    if parameters:
        inputs = inputs[:1]
    while inputs and not inputs[-1]:
        inputs.pop()
    rank = len(shapes.get(inputs[0], ())) if inputs else 0
    if node.op_type in _NORMAL:
        options |= _NORMAL[node.op_type](options, version, rank)
    if node.op_type in _WINDOWED:
        options |= _window(node, options, shapes)
    return Operation(node.op_type, tuple(inputs), tuple(name for name in node.output), options)


def _plain(value: np.ndarray) -> Any:
    """Numbers of Python: one of an array of one place, a list of them else. Nothing of an empty array."""
    return value.item() if value.ndim == 0 else value.tolist() or None


def _axis(default: int) -> Callable[[Mapping[str, Any], int, int], dict[str, Any]]:
    return lambda options, version, rank: {"axis": options.get("axis", default) % rank}


def _softmax(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    """Before set 13 it went over all axes from one on; the first of them was 1 by default."""
    axis = options.get("axis", -1 if version >= 13 else 1) % rank
    return {"axes": [axis] if version >= 13 else list(range(axis, rank))}


def _reduction(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    axes = options.get("axes") or ([] if options.get("noop_with_empty_axes", 0) else range(rank))
    return {"axes": sorted(axis % rank for axis in axes), "keepdims": bool(options.get("keepdims", 1))}


def _slice(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    axes = options.get("axes") or range(len(options["starts"]))
    return {"axes": [axis % rank for axis in axes], "steps": options.get("steps") or [1] * len(options["starts"])}


def _pad(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    """The sizes before and behind every axis."""
    given = options["pads"]
    axes = [axis % rank for axis in options.get("axes") or range(rank)]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = given[i], given[i + len(axes)]
    value = options.get("value")
    return {"pads": [*before, *after], "value": float(value[0] if isinstance(value, list) else value or 0.0)}


def _clip(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    found = {name: options.get(name) for name in ("min", "max")}
    return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


def _resize(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    old = version < 11  # where nothing was said of coordinates
    return {
        "mode": options.get("mode", "nearest"),
        "coordinates": "asymmetric" if old else options.get("coordinate_transformation_mode", "half_pixel"),
        "rounding": "floor" if old else options.get("nearest_mode", "round_prefer_floor"),
    }


def _group_norm(options: Mapping[str, Any], version: int, rank: int) -> dict[str, Any]:
    return {"per_group": version < 21}  # scales and offsets, later one a channel


_NORMAL: dict[str, Callable[[Mapping[str, Any], int, int], dict[str, Any]]] = {
    "Clip": _clip,
    "Concat": _axis(1),
    "Gather": _axis(0),
    "GroupNormalization": _group_norm,
    "LayerNormalization": _axis(-1),
    "LogSoftmax": _softmax,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _axis(0),
    "Upsample": lambda options, version, rank: _resize(options, 9, rank),
} | dict.fromkeys(REDUCTIONS, _reduction)


def _window(node: onnx.NodeProto, options: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Kernel, strides, dilations and paddings as numbers, whatever the node leaves out or asks to be computed."""
    sizes = shapes[node.input[0]][2:]
    ones = [1] * len(sizes)
    kernel = options.get("kernel_shape") or list(shapes[node.input[1]][2:])
    strides, dilations = options.get("strides") or ones, options.get("dilations") or ones
    pads = options.get("pads") or [0] * (2 * len(sizes))
    wanted = options.get("auto_pad", "NOTSET")
    if wanted.startswith("SAME"):
        if node.op_type == "ConvTranspose":
            raise ModelError(
                f"ConvTranspose ({node.output[0]}): auto_pad {wanted} is not read; expected pads as numbers"
            )
        missing = [
            max(0, (-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size)
            for size, stride, length, dilation in zip(sizes, strides, kernel, dilations, strict=True)
        ]
        less, more = [total // 2 for total in missing], [total - total // 2 for total in missing]
        pads = [*less, *more] if wanted == "SAME_UPPER" else [*more, *less]
    return {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
