"""Weights as numbers of a small table's entries: a codebook a tensor, found by k-means.

Han et al. 2016 (arXiv:1510.00149) share weights so; the winners of YouTube-8M 2018 stored theirs with 256 quantiles. A
runtime looks the entries up once, when it loads the file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from .blocks import look_up, pack_nibbles
from .storage import MIN_ELEMENTS, Stored, large_weights, replace_initializers

ENTRIES = (16, 256)
ROUNDS = 60


def codebook_of(values: np.ndarray, entries: int) -> np.ndarray:
    """The float16 table, ascending, of at most ``entries`` values that Lloyd's k-means finds for flat values.

    It begins with quantiles of values drawn half by rank and half by size, so that rare large values are not lost, and
    is the same for the same values. A zero among the values keeps an entry of exactly 0.
    """
    few = np.unique(values.astype(np.float16))
    if len(few) <= entries:
        return few
    ordered = np.sort(values.astype(np.float64))
    spread = np.linspace(ordered[0], ordered[-1], entries)
    ranks = np.quantile(ordered, (np.arange(entries) + 0.5) / entries)
    table = np.unique((spread + ranks) / 2)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(ROUNDS):
        edges = np.searchsorted(ordered, (table[1:] + table[:-1]) / 2)
        starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [ordered.size]])
        filled = ends > starts
        moved = table.copy()
        moved[filled] = (sums[ends] - sums[starts])[filled] / (ends - starts)[filled]
        if np.allclose(moved, table, rtol=1e-6, atol=0):
            break
        table = moved
    if (values == 0).any():
        table[np.abs(table).argmin()] = 0.0
    return np.unique(table.astype(np.float16))


def store_codebook(
    model: onnx.ModelProto, entries: int = 256, skip: tuple[str, ...] = (), min_elements: int = MIN_ELEMENTS
) -> onnx.ModelProto:
    """Return a copy whose large float32 matrices are indices into a float16 table of the tensor's own.

    Every weight becomes the entry nearest to it: no other entry of its table would err less. 256 entries take a byte a
    weight, 16 half a byte. Weights beyond float16 stay as they are.

    Args:
        entries: 16 or 256.
    """
    assert entries in ENTRIES, f"a codebook has 16 or 256 entries, not {entries}"
    names = large_weights(model, 2, skip, min_elements)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        values = numpy_helper.to_array(tensor) if tensor.name in names else np.array(np.inf)
        if not np.abs(values).max() < np.finfo(np.float16).max:
            return None
        table = codebook_of(values.reshape(-1), entries)
        index = nearest_entries(values, table)
        entry = stored.node("Cast", stored.keep("codebook", table), to=onnx.TensorProto.FLOAT)
        if entries == 16:
            look_up(stored, stored.keep("index4", pack_nibbles(index)), values.shape, entry, last=True)
        else:
            number = stored.node("Cast", stored.keep("index", index), to=onnx.TensorProto.INT32)
            stored.node("Gather", entry, number, last=True)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def nearest_entries(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The index uint8 of the entry nearest to each value, in the values' shape; ``table`` ascends."""
    entries = table.astype(np.float64)
    index: np.ndarray = np.searchsorted((entries[1:] + entries[:-1]) / 2, values.astype(np.float64)).astype(np.uint8)
    return index
