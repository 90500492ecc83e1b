"""Tensor trains in a model file: their modes and ranks, and what a runtime multiplies frame by frame.

Cores are known by their names ("head.rnn.input_map.cores.0"). What nodes make of constants alone, a runtime computes
once, when it loads the file; the first tensors that meet anything else are what each frame is multiplied with: the
cores, super-cores of neighbors, or the whole matrix or kernel.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from .onnx_parts import Graph
from .train_plan import form_of, frame_bill, merge_shapes, plan_frame

_CORE = re.compile(r"^(.+)\.cores\.(\d+)(\.\w+)?$")

SLOWER = 1.05  # within so much of the dense form's time a train is as fast

Origin = frozenset[tuple[str, int]]  # layer and number of each core that a constant is made of


def tensor_trains(graph: Graph) -> list[dict[str, Any]]:
    """The layers that are stored as trains of cores, in the order of their names.

    Returns:
        Of each: ``name``; ``in_modes``, ``out_modes``; ``places``, those of a convolution's kernel (0: a matrix);
        ``ranks``, the outer ones included; ``parameters``; ``dense_parameters`` of the whole matrix or kernel;
        ``groups``, the cores (from 0) of each factor that frames are multiplied with, one group being the whole.
        ``form``: "chain" of all cores, "merged" (super-cores of neighbors), or "rebuilt" (the whole matrix or kernel,
        made when the file is loaded); ``why``, in words; ``expected_us``, ``dense_us`` and ``chain_us``: microseconds
        a frame as stored here, by the whole matrix and by all cores one by one, by the model of train_plan.py (None
        for a kernel); ``slower``: a sentence where it costs more than dense, else "".
    """
    shapes: dict[str, dict[int, tuple[int, ...]]] = {}
    origins: ChainMap[str, Origin] = ChainMap()
    for tensor in graph.initializers:
        found = _CORE.match(tensor.name)
        origins[tensor.name] = frozenset([(found[1], int(found[2]))]) if found else frozenset()
        if found and len(tensor.dims) in (2, 4) and tensor.elements > 1:
            number = int(found[2])
            if math.prod(tensor.dims) >= math.prod(shapes.setdefault(found[1], {}).get(number, ())):
                shapes[found[1]][number] = tensor.dims
    used: dict[str, set[frozenset[int]]] = {name: set() for name in shapes}
    _walk(graph, origins, used)
    rows = [_row(name, cores, used[name]) for name, cores in sorted(shapes.items())]
    return [row for row in rows if row is not None]


def _walk(graph: Graph, origins: ChainMap[str, Origin], used: Mapping[str, set[frozenset[int]]]) -> None:
    """Follow constants through the nodes; note the cores of each that meets something else."""
    for node in graph.nodes:
        read = [name for name in node.inputs if name]
        if read and not node.bodies and all(name in origins for name in read):
            for name in node.outputs:
                origins[name] = frozenset().union(*(origins[part] for part in read))
            continue
        for name in read:
            for layer in {layer for layer, _ in origins.get(name, frozenset())} & set(used):
                used[layer].add(frozenset(number for owner, number in origins[name] if owner == layer))
        for part in node.bodies:
            own = origins.new_child({tensor.name: frozenset() for tensor in part.initializers})
            _walk(part, own, used)


def _row(name: str, cores: Mapping[int, tuple[int, ...]], used: set[frozenset[int]]) -> dict[str, Any] | None:
    """The description of one layer, or None where the tensors of these names are no train."""
    shapes = [cores[k] for k in sorted(cores)]
    places = shapes[0][0] if len(shapes[0]) == 2 else 0
    trains = shapes[1:] if places else shapes
    bonds = [(shape[0], shape[-1]) for shape in shapes]
    whole = sorted(cores) == list(range(len(cores))) and all(len(shape) == 4 for shape in trains) and trains
    if not whole or any(left[1] != right[0] for left, right in itertools.pairwise(bonds)):
        return None
    in_modes, out_modes = ([shape[axis] for shape in trains] for axis in (1, 2))
    groups = sorted(sorted(group) for group in used)
    return {
        "name": name,
        "in_modes": in_modes,
        "out_modes": out_modes,
        "places": places,
        "ranks": [shape[-1] for shape in shapes] if places else [trains[0][0], *(shape[-1] for shape in trains)],
        "parameters": sum(math.prod(shape) for shape in shapes),
        "dense_parameters": max(places, 1) * math.prod(in_modes) * math.prod(out_modes),
        "groups": groups,
        **_plan(name, shapes, groups, bool(places)),
    }


def slower_sentence(name: str, frame: float, dense: float, how: str) -> str:
    """What to say where a train costs clearly more milliseconds a frame than its dense form; else ""."""
    if frame <= SLOWER * dense:
        return ""
    return f"{name}: slower than dense, {frame:.3g} ms a frame against {dense:.3g} ms ({how})"


def _plan(name: str, shapes: list[tuple[int, ...]], groups: list[list[int]], kernel: bool) -> dict[str, Any]:
    """How the layer meets a frame, what that should cost, and why it was chosen."""
    found: dict[str, Any] = {"form": form_of(groups), "expected_us": None, "dense_us": None, "chain_us": None}
    if kernel:
        return {**found, "why": "kernels are rebuilt at load, a frame costs what it costs dense", "slower": ""}
    if sorted(itertools.chain(*groups)) != list(range(len(shapes))):
        return {
            **found,
            "form": "",
            "why": "the file multiplies it in a way that this version does not know",
            "slower": "",
        }
    cores = [(shape[0], shape[1], shape[2], shape[3]) for shape in shapes]
    here, chain = (
        min(frame_bill(merge_shapes(cores, parts), last_first).us for last_first in (True, False))
        for parts in (groups, [[k] for k in range(len(cores))])
    )
    dense_us = plan_frame(tuple(cores)).dense_us
    found |= {"expected_us": round(here, 1), "dense_us": round(dense_us, 1), "chain_us": round(chain, 1)}
    why = {
        "rebuilt": f"the whole matrix, {dense_us:,.0f} us a frame expected; the chain {chain:,.0f}",
        "chain": f"core by core, {here:,.0f} us a frame expected; the whole matrix {dense_us:,.0f}",
        "merged": f"{here:,.0f} us a frame expected; core by core {chain:,.0f}, the whole matrix {dense_us:,.0f}",
    }[found["form"]]
    slower = slower_sentence(name, here / 1e3, dense_us / 1e3, "expected")
    return {**found, "why": why, "slower": slower}
