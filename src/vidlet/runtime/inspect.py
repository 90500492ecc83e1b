"""What is inside a model file: tensor by tensor, part by part, operator by operator, down to the last byte."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .metadata import KEY, graph_sha256, read_metadata, read_model_bytes
from .onnx_parts import Graph, Node, SparseTensor, Tensor, Value
from .structure import check_structure
from .train_plan import tensor_trains


def inspect_artifact(path: str | Path) -> dict[str, Any]:
    """Take a model file apart. The bytes add up: weights + graph + metadata = total = the file's size.

    Returns:
        ``bytes`` {"weights", "graph", "metadata", "total"}; ``parameters``; ``tensors``, the largest first, each
        {"name", "part", "dtype", "shape", "storage", "parameters", "bytes", "share"} (storage: "dense", "codes", "4-bit
        blocks", "bit mask" ...; parameters: the values it holds; share of the whole file); ``parts`` {"part",
        "tensors", "parameters", "bytes", "share"} (extractor: what the inner tensor ``features`` is made of; head: the
        rest; in a graph without one, by the tensors' names); ``operators`` {name: count}; ``tensor_trains`` (see
        ``tensor_trains``); ``inputs``, ``outputs`` and ``state`` {"name", "dtype", "shape"}; ``metadata`` as it stands;
        ``graph_sha256``.

    Raises:
        ModelError: not a model file of ours, or not a safe one.
    """
    where, data = str(path), read_model_bytes(path)
    metadata = read_metadata(data, where)
    file = check_structure(data, where)
    extractor = file.graph.ancestors("features") if "features" in file.graph.makers else None
    tensors = [_row(name, tensor, extractor, len(data)) for name, tensor in _tensors(file.graph)]
    tensors.sort(key=lambda row: (-row["bytes"], row["name"]))
    weights = sum(row["bytes"] for row in tensors)
    own = sum(entry.span[1] - entry.span[0] for entry in file.metadata if entry.key == KEY)
    inputs = [_value(value) for value in file.graph.inputs]
    return {
        "path": where,
        "bytes": {"weights": weights, "graph": len(data) - weights - own, "metadata": own, "total": len(data)},
        "parameters": sum(row["parameters"] for row in tensors),
        "tensors": tensors,
        "parts": _parts(tensors, len(data)),
        "operators": dict(Counter(map(_operator, file.graph.all_nodes())).most_common()),
        "tensor_trains": tensor_trains(file.graph),
        "inputs": [row for row in inputs if not row["name"].startswith("state.")],
        "state": [row for row in inputs if row["name"].startswith("state.")],
        "outputs": [_value(value) for value in file.graph.outputs],
        "opsets": file.opsets,
        "producer": file.producer,
        "metadata": metadata,
        "graph_sha256": graph_sha256(data, where),
    }


def _tensors(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """Every stored tensor with its name (that of a constant is what its node gives), subgraphs included."""
    for tensor in graph.initializers:
        yield tensor.name, tensor
    for number, sparse in enumerate(graph.sparse):
        yield from _sparse(sparse, f"sparse {number}")
    for node in graph.nodes:
        made = "".join(node.outputs[:1])
        for attribute in node.attributes.values():
            for tensor in attribute.tensors:
                yield tensor.name or made, tensor
            for sparse in attribute.sparse:
                yield from _sparse(sparse, made)
        for body in node.bodies:
            yield from _tensors(body)


def _sparse(sparse: SparseTensor, name: str) -> Iterator[tuple[str, Tensor]]:
    for tensor in (sparse.values, sparse.indices):
        if tensor is not None:
            yield tensor.name or name, tensor


def _operator(node: Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _row(name: str, tensor: Tensor, extractor: set[str] | None, total: int) -> dict[str, Any]:
    part = _part(name) if extractor is None else "extractor" if name in extractor else "head"
    storage, values_each = _STORAGE.get(name.rpartition(".")[2] if "." in name else "", ("dense", 1))
    return {
        "name": name,
        "part": part,
        "dtype": tensor.dtype,
        "shape": list(tensor.dims),
        "storage": storage,
        "parameters": math.prod(tensor.dims) * values_each,
        "bytes": tensor.stored_bytes,
        "share": tensor.stored_bytes / total,
    }


_STORAGE = {  # the last word of a stored tensor's name: what it is, and how many values an element of it holds
    "q": ("codes", 1),
    "scale": ("scales", 1),
    "int4": ("4-bit blocks", 2),
    "steps": ("whole scales", 1),
    "codebook": ("codebook", 1),
    "index": ("codebook index", 1),
    "index4": ("codebook index", 2),
    "mask": ("bit mask", 0),
    "gaps": ("gaps", 0),
    "nonzero": ("nonzero values", 1),
}


def _part(name: str) -> str:
    """The first word of a dotted name, as in detector.block3.weight; the rest is what the graph itself needs."""
    first, dot, _ = name.replace("/", ".").lstrip(".").partition(".")
    return first if dot and first.isidentifier() else "constants"


def _parts(tensors: list[dict[str, Any]], total: int) -> list[dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for row in tensors:
        part = parts.setdefault(row["part"], {"part": row["part"], "tensors": 0, "parameters": 0, "bytes": 0})
        part["tensors"] += 1
        part["parameters"] += row["parameters"]
        part["bytes"] += row["bytes"]
    ordered = sorted(parts.values(), key=lambda part: -part["bytes"])
    return [{**part, "share": part["bytes"] / total} for part in ordered]


def _value(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": list(value.dims or ())}
