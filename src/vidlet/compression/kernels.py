"""Pointwise convolutions in 4 bits that still run as integer kernels: rounded by what they do to real frames.

Plain rounding to 4 bits ruins a MobileNetV2 (the relative error of its features is .57 on clips of gestures). Two
things mend it, from the first two moments of each convolution's inputs over calibration clips: the bias takes the mean
error (Nagel et al. 2019, arXiv:1906.04721), which leaves .24, and an entry's rounding error is made up for by the
entries that are still to be rounded (Frantar et al. 2022, arXiv:2210.17323), which leaves .18. Depthwise kernels, the
first one and small ones stay in 8 bits: they hold few bytes and forgive little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..onnx_graph import Graph, attribute, copy_model
from .blocks import BLOCK, kernel_scales, round_codes
from .calibrate import run_inner
from .int8 import quantized_kernels

MIN_ELEMENTS = 4096  # of a kernel: below, 4 bits save little and cost much
DAMPING = 0.01  # of the mean variance, added to each input's

Codes = tuple[np.ndarray, np.ndarray]  # int8 (O, I, ...), float32 scales (O, 1, ...)


@dataclass(frozen=True)
class Moments:
    """Mean (K,) and covariance (K, K) of a convolution's input channels over frames and positions."""

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class RoundedKernels:
    """The float graph with rounded kernels and corrected biases, and the kernels' codes for ``quantize_graph``."""

    model: onnx.ModelProto
    codes: Mapping[str, Codes]


def round_kernels(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, np.ndarray]], block: int = BLOCK
) -> RoundedKernels:
    """Round the large pointwise kernels that will be integer to 4 bits in blocks; bias takes the mean error.

    Over the inputs of ``feeds`` no channel's output varies more from the float one than by plain rounding, and its mean
    is the float one's.
    """
    graph = Graph(model)
    nodes = {node.input[1]: node for node in graph.nodes if node.op_type == "Conv" and _pointwise(node, graph)}
    names = [name for name in quantized_kernels(model) if name in nodes]
    if not names:
        return RoundedKernels(model, {})
    values = graph.values()
    moments = input_moments(model, {name: nodes[name].input[0] for name in names}, feeds)
    codes: dict[str, Codes] = {}
    changed: dict[str, np.ndarray] = {}
    for name in names:
        kernel, found = values[name], moments[name]
        codes[name] = round_with_feedback(kernel, found.covariance, block)
        changed[name] = codes[name][0] * codes[name][1]
        if len(nodes[name].input) > 2:
            bias = nodes[name].input[2]
            lost = (kernel - changed[name]).reshape(len(kernel), -1).astype(np.float64) @ found.mean  # (O,)
            changed[bias] = (values[bias] + lost).astype(np.float32)
    return RoundedKernels(_with_values(model, changed), codes)


def input_moments(
    model: onnx.ModelProto, inputs: Mapping[str, str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, Moments]:
    """Moments of the channels of tensors (B, K, H, W), given as {key: tensor}, over all feeds and positions."""
    count = dict.fromkeys(inputs, 0)
    total: dict[str, np.ndarray] = {}
    squares: dict[str, np.ndarray] = {}
    for values in run_inner(model, feeds, list(inputs.values())):
        for key, tensor in zip(inputs, values, strict=True):
            x = tensor.transpose(1, 0, 2, 3).reshape(tensor.shape[1], -1)  # (K, B * H * W)
            count[key] += x.shape[1]
            total[key] = total.get(key, 0.0) + x.sum(1, dtype=np.float64)
            squares[key] = squares.get(key, 0.0) + (x @ x.T).astype(np.float64)
    return {key: _moments(total[key] / count[key], squares[key] / count[key]) for key in inputs}


def round_with_feedback(kernel: np.ndarray, covariance: np.ndarray, block: int = BLOCK) -> Codes:
    """Round a kernel (O, I, 1, 1) as ``quantize_kernel`` does, but each entry's error is made up for by later ones.

    Args:
        covariance: (I, I) of the inputs.

    Returns:
        (int8 products, float32 scales); an output channel for which plain rounding errs less keeps that.
    """
    multiples, scales = kernel_scales(kernel, block)  # (O, I), (O, 1, 1, 1)
    steps = multiples * scales.reshape(-1, 1).astype(np.float64)
    weight = kernel.reshape(len(kernel), -1).astype(np.float64)
    damped = covariance + (DAMPING * np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T  # upper
    left, codes = weight.copy(), np.zeros(weight.shape, np.int8)
    for i in range(weight.shape[1]):
        codes[:, i] = round_codes(left[:, i], steps[:, i])
        error = (left[:, i] - codes[:, i] * steps[:, i]) / factor[i, i]
        left[:, i + 1 :] -= np.outer(error, factor[i, i + 1 :])
    plain = round_codes(weight, steps)
    better = _error(weight - codes * steps, covariance) < _error(weight - plain * steps, covariance)
    chosen = np.where(better[:, None], codes, plain) * multiples
    return chosen.astype(np.int8).reshape(kernel.shape), scales


def _error(difference: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Variance of the outputs (O,) that a difference of weights (O, I) makes."""
    variance: np.ndarray = np.einsum("oi,ij,oj->o", difference, covariance, difference, optimize=True)
    return variance


def _moments(mean: np.ndarray, square: np.ndarray) -> Moments:
    return Moments(mean, square - np.outer(mean, mean))


def _pointwise(node: onnx.NodeProto, graph: Graph) -> bool:
    dims = list(graph.constants[node.input[1]].dims) if node.input[1] in graph.constants else []
    return attribute(node, "group", 1) == 1 and dims[2:] == [1, 1] and int(np.prod(dims)) >= MIN_ELEMENTS


def _with_values(model: onnx.ModelProto, changed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    result = copy_model(model)
    for tensor in result.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return result
