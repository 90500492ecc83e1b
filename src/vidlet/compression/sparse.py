"""Tensors with many zeros stored as their other values and where these stand, in whatever type they have.

Two forms, of which the smaller is taken: a bit mask (n / 8 bytes and the values) and, where fewer than about one in
eight is left, the gaps between the values in a byte each (the idea of Han et al. 2016, arXiv:1510.00149, with bytes).
Both are expanded once, when the runtime loads the file; what it computes is dense.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from .storage import Stored, replace_initializers

FAR = 255  # the largest gap; what lies further has zeros stored on the way
TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
MIN_BYTES = 256  # of a tensor: smaller ones cannot repay the nodes


def store_sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose tensors with many zeros take fewer bytes: exactly the same values (-0 is 0).

    Each is stored as a bit mask or as gaps with its nonzero values, in the type that it has, where the file becomes
    smaller by it (nodes and names count), else as it is. Stands behind steps that round, which leave zeros zero.
    """

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.data_type not in TYPES or tensor.ByteSize() < MIN_BYTES:
            return None
        values = numpy_helper.to_array(tensor)
        flat = values.reshape(-1)
        forms = [
            write_mask(Stored(stored.name, stored.taken), flat, values.shape),
            write_gaps(Stored(stored.name, stored.taken), flat, values.shape),
        ]
        smallest = min(forms, key=lambda form: form.size_bytes)
        return smallest if smallest.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def write_mask(stored: Stored, values: np.ndarray, shape: tuple[int, ...]) -> Stored:
    """A flat array as one bit a value and the nonzero values behind one zero.

    At load: bits -> running count, 0 where the bit is -> the value of that number.
    """
    present = values != 0
    mask = np.packbits(present, bitorder="little").reshape(-1, 1)
    table = np.concatenate([np.zeros(1, values.dtype), values[present]])
    shifted = stored.node(
        "BitShift", stored.keep("mask", mask), stored.share(np.arange(8, dtype=np.uint8)), direction="RIGHT"
    )
    bits = stored.node("BitwiseAnd", shifted, stored.share(np.uint8(1)))  # (n / 8, 8)
    ones = stored.node("Cast", bits, to=onnx.TensorProto.INT32)
    flat = stored.node("Reshape", ones, stored.share(np.array([-1], np.int64)))
    if values.size % 8:
        ends = [stored.share(np.array([end], np.int64)) for end in (0, values.size)]
        flat = stored.node("Slice", flat, *ends)
    number = stored.node("CumSum", flat, stored.share(np.int64(0)))
    index = stored.node("Mul", number, flat)
    dense = stored.node("Gather", stored.keep("nonzero", table), index)
    stored.node("Reshape", dense, stored.share(np.array(shape, np.int64)), last=True)
    return stored


def write_gaps(stored: Stored, values: np.ndarray, shape: tuple[int, ...]) -> Stored:
    """A flat array as its nonzero values with their distances to the ones before, a byte each."""
    places = _places(values)
    gaps = np.diff(places, prepend=0).astype(np.uint8)
    distances = stored.node("Cast", stored.keep("gaps", gaps), to=onnx.TensorProto.INT32)
    index = stored.node("CumSum", distances, stored.share(np.int64(0)))
    length = stored.share(np.array([values.size], np.int64))
    zero = numpy_helper.from_array(np.zeros(1, values.dtype))
    zeros = stored.node("ConstantOfShape", length, value=zero)
    dense = stored.node("ScatterElements", zeros, index, stored.keep("nonzero", values[places]))
    stored.node("Reshape", dense, stored.share(np.array(shape, np.int64)), last=True)
    return stored


def _places(values: np.ndarray) -> np.ndarray:
    """Indices of the nonzero values, with indices of zeros between those that are too far apart."""
    places = np.flatnonzero(values)
    steps = np.diff(places, prepend=0)
    extra = np.maximum(steps - 1, 0) // FAR  # stops before each
    stops = [
        place - step + FAR * np.arange(1, more + 1) for place, step, more in zip(places, steps, extra, strict=True)
    ]
    return np.sort(np.concatenate([places, *stops])).astype(np.int64)
