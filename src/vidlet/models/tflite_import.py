"""Quantized TFLite image models as PyTorch weights: proves that a file is a network of ours, and fills one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import WeightsError
from .mobilenets import ConvNorm, MobileNetV1, MobileNetV2, same_pads
from .tflite import Operator, Range, TfliteGraph, read_tflite

Network = MobileNetV1 | MobileNetV2


@dataclass(frozen=True)
class Imported:
    """A filled network (TensorFlow padding, folded normalization) and what the file knows beside the weights.

    ``ranges`` maps layer names ("stem", "block3.expand", "block3.add", "pool", ...; "input") to (scale, zero point)
    of uint8. ``input_size`` is (H, W); ``classes`` is 0 where the file ends with the average.
    """

    backbone: Network
    ranges: dict[str, Range]
    input_size: tuple[int, int]
    classes: int


def import_network(
    network: type[Network], path: str | os.PathLike[str], width: float, cut: str, classifier: bool = False
) -> Imported:
    """Fill a network of ``width``, up to ``cut``, from a quantized TFLite file.

    The whole file is compared with the whole network, also what lies behind the cut. Biases of the convolutions (the
    file's folded batch normalization) become the offsets of normalizations that are otherwise the identity.

    Args:
        classifier: keep the file's classifier (its class 0 is "background" where it has 1001).

    Raises:
        WeightsError: as :func:`read_tflite`, or another network; names the first operator that differs.
    """
    graph = read_tflite(path)
    with torch.device("meta"):
        whole = network(width, padding="same")
    walk = _Walk(graph, whole)
    walk.all()
    backbone = network(width, cut, "same", (walk.classes or None) if classifier else None)
    with torch.no_grad():
        for name, operator in walk.layers.items():
            if name == "classifier":
                if backbone.classifier is not None:
                    _copy_linear(backbone.classifier, operator)
            elif name.split(".")[0] in backbone.parts and operator.weight is not None:
                _copy_conv(backbone.get_submodule(name), operator)
    ranges = {name: operator.range for name, operator in walk.layers.items() if operator.range is not None}
    size = (graph.input_shape[1], graph.input_shape[2])
    return Imported(backbone.eval(), {"input": graph.input_range, **ranges}, size, walk.classes)


def _copy_conv(layer: Any, operator: Operator) -> None:
    layer.conv.weight.copy_(torch.from_numpy(operator.weight))
    layer.norm.weight.fill_(1.0)
    layer.norm.bias.copy_(torch.from_numpy(operator.bias))
    layer.norm.running_mean.zero_()
    layer.norm.running_var.fill_(1.0 - layer.norm.eps)


def _copy_linear(layer: torch.nn.Linear, operator: Operator) -> None:
    assert operator.weight is not None and operator.bias is not None
    layer.weight.copy_(torch.from_numpy(operator.weight.reshape(layer.weight.shape)))
    layer.bias.copy_(torch.from_numpy(operator.bias))


class _Walk:
    """Reads a graph's operators as the layers of a network, and names the first that is none."""

    def __init__(self, graph: TfliteGraph, whole: Network) -> None:
        self.graph, self.whole = graph, whole
        self.kind = type(whole).__name__
        self.rest = list(graph.operators)
        self.tensor = graph.input  # where the network's signal is now
        self.shape = graph.input_shape
        self.pads: tuple[int, ...] = ()
        self.layers: dict[str, Operator] = {}
        self.classes = 0

    def all(self) -> None:
        for part in self.whole.parts:
            layer = self.whole.get_submodule(part)
            if isinstance(layer, ConvNorm):
                self._conv(part, layer)
                continue
            start = self.tensor
            for name, inner in layer.named_children():
                self._conv(f"{part}.{name}", inner)
            if layer.residual:
                self._add(f"{part}.add", start)
        self._tail()

    def _next(self, wanted: str) -> Operator:
        """The next operator that computes; requantization is skipped, paddings are kept for the convolution."""
        while self.rest:
            operator = self.rest.pop(0)
            if operator.kind == "PAD" and self.tensor in operator.inputs:
                self.pads, self.tensor = operator.pads, operator.output
            elif operator.kind in ("QUANTIZE", "DEQUANTIZE", "RESHAPE") and self.tensor in operator.inputs:
                self.tensor = operator.output
            elif self.tensor not in operator.inputs:
                raise self._differs(operator, wanted, "which follows another tensor")
            else:
                return operator
        raise WeightsError(f"{self.graph.path}: ends before {wanted}: not a {self.kind}")

    def _conv(self, name: str, layer: Any) -> None:
        shape, relu6 = tuple(layer.conv.weight.shape), isinstance(layer.act, torch.nn.ReLU6)
        stride = layer.stride
        wanted = f"{name}, weights {'x'.join(map(str, shape))}, stride {stride}{', RELU6' if relu6 else ''}"
        operator = self._next(wanted)
        if operator.weight is None or operator.weight.shape != shape:
            raise self._differs(operator, wanted)
        if operator.stride != stride or operator.relu6 != relu6:
            raise self._differs(operator, wanted, f"of stride {operator.stride}{', RELU6' if operator.relu6 else ''}")
        _, height, width, _ = self.shape
        pads = (*same_pads(height, shape[2], stride), *same_pads(width, shape[3], stride))
        if not operator.same and self.pads != pads and any((*pads, *self.pads)):
            raise self._differs(operator, wanted, f"with padding {self.pads or 'VALID'} instead of SAME {pads}")
        self.pads = ()
        self._step(name, operator)

    def _add(self, name: str, start: int) -> None:
        operator = self._next(name)
        if operator.kind != "ADD" or start not in operator.inputs or operator.relu6:
            raise self._differs(operator, f"{name}, the sum of the block's input and output")
        self._step(name, operator)

    def _tail(self) -> None:
        operator = self._next("pool")
        if operator.kind not in ("MEAN", "AVERAGE_POOL_2D") or operator.output_shape[1:-1] not in ((), (1, 1)):
            raise self._differs(operator, "pool, the average over the map")
        self._step("pool", operator)
        features = operator.output_shape[-1]
        if not self.rest:
            return  # an embedding, without a classifier
        operator = self._next("classifier")
        if operator.weight is None or operator.weight.size != len(operator.weight) * features:
            raise self._differs(operator, f"classifier, K x {features}")
        self.classes = len(operator.weight)
        self._step("classifier", operator)

    def _step(self, name: str, operator: Operator) -> None:
        self.layers[name] = operator
        self.tensor, self.shape = operator.output, operator.output_shape

    def _differs(self, operator: Operator, wanted: str, how: str = "") -> WeightsError:
        return WeightsError(
            f"{self.graph.path}: {operator}{' ' + how if how else ''} is not {wanted}: "
            f"the file is not a {self.kind} of width {self.whole.width:g}"
        )
