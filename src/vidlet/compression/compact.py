"""The same computation in fewer bytes: what a file says twice, and names that nobody reads.

In an artifact of 0.5 MB every eighth byte is not needed: names of inner tensors and nodes, default attributes, and for
each channel of a convolution the scale of its bias, which is the product of two others.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from ..onnx_graph import Graph
from ..onnx_graph.graph import names_in_bodies
from .storage import Stored, replace_initializers

NUMBERS = 4  # values of a tensor that is called a number
WORDS = (("extractor.backbone.", ""), ("extractor.", ""), (".conv.weight", ""), (".conv.bias", ".bias"))


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that computes the same to the last bit from a smaller file.

    Names of inputs, outputs, of the tensor ``features`` and of weights stay recognizable; all others become short.
    """
    smaller = narrow_biases(share_bias_scales(model))
    drop_defaults_(smaller)
    shorten_names_(smaller)
    onnx.checker.check_model(smaller)
    return smaller


def share_bias_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute the scale of each integer bias at load, from the scales of its convolution's input and weight.

    It is stored no more where the product is exactly it, in float32.
    """
    graph = Graph(model)
    values, makers = graph.values(), graph.makers
    factors: dict[str, tuple[str, str]] = {}
    for conv in graph.nodes:
        parts = [makers.get(name) for name in conv.input] if conv.op_type == "Conv" and len(conv.input) > 2 else []
        if len(parts) < 3 or any(part is None or part.op_type != "DequantizeLinear" for part in parts):
            continue
        source, weight, bias = (str(part.input[1]) for part in parts if part is not None)
        stored = all(name in values for name in (source, weight, bias)) and values[source].size == 1
        if stored and np.array_equal((values[source] * values[weight]).astype(np.float32), values[bias]):
            factors[bias] = (source, weight)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.name not in factors:
            return None
        stored.node("Mul", *factors[tensor.name], last=True)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def narrow_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store int32 vectors as int16 where all their values fit."""

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.data_type != onnx.TensorProto.INT32:
            return None
        values = numpy_helper.to_array(tensor)
        limits = np.iinfo(np.int16)
        if not values.size or values.min() < limits.min or values.max() > limits.max:
            return None
        stored.node("Cast", stored.keep("q", values.astype(np.int16)), last=True, to=onnx.TensorProto.INT32)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def drop_defaults_(model: onnx.ModelProto) -> None:
    """Remove attributes of convolutions that say what holds anyway."""
    graph = Graph(model)
    dims = {name: list(tensor.dims) for name, tensor in graph.constants.items()}
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        weight = graph.makers.get(node.input[1])
        shape = dims.get(weight.input[0] if weight is not None else node.input[1], [])
        kept = [attribute for attribute in node.attribute if not _says_nothing(attribute, shape[2:])]
        del node.attribute[:]
        node.attribute.extend(kept)


def shorten_names_(model: onnx.ModelProto) -> None:
    """Give inner tensors and numbers short names, and weights those of their layers alone; nodes lose theirs."""
    graph = Graph(model)
    kept = {*graph.inputs, *graph.outputs, "features", *names_in_bodies(graph.nodes)}
    names = {name: name for name in kept}
    for tensor in model.graph.initializer:
        plain = tensor.name
        for old, new in WORDS:
            plain = plain.replace(old, new)
        if int(np.prod(tensor.dims)) > NUMBERS and tensor.name not in names and plain not in names.values():
            names[tensor.name] = plain
    taken = set(names.values())
    fresh = (name for name in _short_names() if name not in taken)

    def short(name: str) -> str:
        if name not in names:
            names[name] = next(fresh)
        return names[name]

    graph.rename(short)
    for node in graph.nodes:
        node.name = ""


def _says_nothing(attribute: onnx.AttributeProto, kernel: list[int]) -> bool:
    """Whether a convolution's attribute is its default, or repeats the shape of its weights."""
    if attribute.name == "kernel_shape":
        return list(attribute.ints) == kernel
    if attribute.name in ("strides", "dilations"):
        return set(attribute.ints) <= {1}
    if attribute.name == "pads":
        return set(attribute.ints) <= {0}
    if attribute.name == "auto_pad":
        return bool(attribute.s == b"NOTSET")
    return bool(attribute.name == "group" and attribute.i == 1)


def _short_names() -> Iterator[str]:
    """a, b ... Z, aa, ab ..."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)
