"""In which order a tensor train is contracted, and what that costs.

A train is a matrix stored as cores (r, m, n, r'). It is multiplied core by core, or after neighboring cores were merged
into super-cores; one super-core of all cores is the whole matrix. All 2^(d-1) groupings are priced from either end, and
the cheapest is taken: by `plan_frame` for one frame in an exported file, by `plan_rows` for a batch in torch. Prices
are expected microseconds on one thread. Prices choose and explain; `vidlet inspect --measure` measures.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .onnx_parts import Graph

Shape = tuple[int, int, int, int]  # of a core: r, m, n, r'
Groups = tuple[tuple[int, ...], ...]  # the cores of each super-core

# One thread of an AVX-512 machine, float32. Products are fitted to 43 contractions of 1,536 to 153,425 inputs in ONNX
# Runtime 1.31 (benchmarks/speed/tt_heads.py --plans): the choice was within 10 % of the fastest of all. Copies, memory
# and convolutions are those of torch 2.13 (benchmarks/speed/tensor_train.py).
FLOPS_A_US = 110e3  # of a product that fills the vector units
VECTOR_FLOPS_A_US = 37e3  # of one row times a matrix
CONVOLUTION_FLOPS_A_US = 60e3
ROWS, COLUMNS = 32, 16  # fewer rows or columns than these leave units idle, in proportion
CALL_US, PRODUCT_US = 3.0, 0.15  # of an operation, and of each small product in a stack of them
CACHE_BYTES = 8_000_000  # reads of so many bytes, and writes of half as many, are free
READ_BYTES_A_US, WRITE_BYTES_A_US, COPIED_A_US = 15e3, 4.5e3, 1.1e3


@dataclass(frozen=True)
class TrainPlan:
    """How a train is contracted, and what that should cost; ``dense_*`` is the plain layer of the same size.

    ``groups`` ((0, 1), (2, 3)) are two super-cores, ((0, 1, 2, 3),) is the whole. ``last_first`` begins with the last.
    """

    groups: Groups
    last_first: bool = True
    us: float = 0.0
    dense_us: float = 0.0
    flops: int = 0
    dense_flops: int = 0

    @property
    def form(self) -> str:
        """``chain``, ``merged`` or ``rebuilt``."""
        return form_of(self.groups)


def form_of(groups: Sequence[Sequence[int]]) -> str:
    """ "chain" of all cores, "merged" (super-cores of neighbors), or "rebuilt" (the whole matrix or kernel)."""
    if len(groups) == 1:
        return "rebuilt"
    return "chain" if all(len(group) == 1 for group in groups) else "merged"


@functools.lru_cache(maxsize=1024)
def plan_frame(shapes: tuple[Shape, ...]) -> TrainPlan:
    """The cheapest way to multiply one row inside an exported graph, where merging is done when the file is loaded."""
    return _cheapest(shapes, 1, Bill(), lambda groups, last: frame_bill(merge_shapes(shapes, groups), last))


@functools.lru_cache(maxsize=1024)
def plan_rows(shapes: tuple[Shape, ...], rows: int, training: bool = False, input_gradient: bool = True) -> TrainPlan:
    """The cheapest way to multiply rows in torch.

    Args:
        shapes: of the cores.
        rows: a sequence of T frames and B clips has B T.
        training: price all gradients, and merging, which evaluation does once and keeps.
        input_gradient: whether the gradient of the input is needed; a first layer's is not.
    """

    def price(groups: Groups, last_first: bool) -> Bill:
        return _rows_bill(shapes, groups, last_first, rows, Bill(training), input_gradient)

    return _cheapest(shapes, rows, Bill(training), price, input_gradient)


def plan_kernel(
    shapes: Sequence[Shape], places: int, outputs: int, training: bool = False, input_gradient: bool = True
) -> TrainPlan:
    """A convolution is always rebuilt, each step in training, once in evaluation; this says what that costs.

    Args:
        shapes: of the cores (r, c, s, r') after that of the places.
        places: p, the numbers of the kernel a pair of channels.
        outputs: output positions of all clips.
        training: price the rebuild and all gradients.
        input_gradient: whether the gradient of the input is needed.
    """
    pairs = math.prod(m * n for _, m, n, _ in shapes)
    dense = 2 * (2 + input_gradient if training else 1) * outputs * places * pairs
    rebuild = Bill(training)
    if training:
        rebuild.flops = 3 * kernel_split(places, [(left, m * n, right) for left, m, n, right in shapes])[1]
        rebuild.us = rebuild.flops / FLOPS_A_US + 9 * len(shapes) * CALL_US
        rebuild.copy(pairs * places)
    dense_us = dense / CONVOLUTION_FLOPS_A_US
    return TrainPlan(
        (tuple(range(len(shapes) + 1)),), True, dense_us + rebuild.us, dense_us, dense + rebuild.flops, dense
    )


@dataclass
class Bill:
    """A running sum of microseconds and FLOPs."""

    training: bool = False
    us: float = 0.0
    flops: int = 0

    def product(self, rows: int, inner: int, columns: int, count: int = 1, left_gradient: bool = True) -> None:
        """``count`` times (rows, inner) @ (inner, columns), and the gradients in training."""
        sides = [(rows, inner, columns)]
        if self.training:
            sides += [(inner, rows, columns), (rows, columns, inner)][: 1 + left_gradient]
        self.us += sum(product_us(*side, count) for side in sides)
        self.flops += len(sides) * 2 * count * rows * inner * columns

    def copy(self, elements: int, gradient: bool = True) -> None:
        """A reordering, and that of the gradient in training."""
        once = CALL_US + elements / COPIED_A_US + _written_us(4 * elements)
        self.us += once * (1 + (self.training and gradient))

    def merge(self, shapes: Sequence[Shape]) -> None:
        """Multiply cores into one; nothing in evaluation, where it is done once."""
        if len(shapes) == 1 or not self.training:
            return
        flops = 3 * merge_flops([(left, m * n, right) for left, m, n, right in shapes])
        self.flops += flops
        self.us += flops / FLOPS_A_US + 3 * (len(shapes) - 1) * CALL_US
        self.copy(2 * shapes[0][0] * math.prod(m * n for _, m, n, _ in shapes) * shapes[-1][3])  # in small blocks


def product_us(rows: int, inner: int, columns: int, count: int = 1) -> float:
    """Expected microseconds of ``count`` products (rows, inner) @ (inner, columns) in one operation."""
    rate = FLOPS_A_US * min(1, rows / ROWS) * min(1, columns / COLUMNS) if rows * count > 1 else VECTOR_FLOPS_A_US
    read = 4 * count * inner * (rows + columns)
    calls = CALL_US + (PRODUCT_US * count if count > 1 else 0)
    work = 2 * count * rows * inner * columns / rate
    return (
        calls + work + (read / READ_BYTES_A_US if read > CACHE_BYTES else 0) + _written_us(4 * count * rows * columns)
    )


def _written_us(count: int) -> float:
    return count / WRITE_BYTES_A_US if 2 * count > CACHE_BYTES else 0.0


def groupings(count: int) -> Iterator[Groups]:
    """All ways to cut 0 .. count - 1 into neighbors, the uncut one first."""
    for cuts in itertools.product((False, True), repeat=count - 1):
        ends = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), count]
        yield tuple(tuple(range(begin, end)) for begin, end in itertools.pairwise(ends))


def merge_shapes(shapes: Sequence[Shape], groups: Sequence[Sequence[int]]) -> list[Shape]:
    """The shapes of the super-cores that neighboring cores become."""
    sizes = [[math.prod(shapes[k][axis] for k in group) for axis in (1, 2)] for group in groups]
    return [(shapes[g[0]][0], m, n, shapes[g[-1]][3]) for g, (m, n) in zip(groups, sizes, strict=True)]


def frame_bill(shapes: Sequence[Shape], last_first: bool) -> Bill:
    """What contracting one row with cores of these shapes costs, as `tensor_train.layers.planned_product` does it."""
    bill = Bill()
    done, rest = 1, math.prod(shape[1] for shape in shapes)
    for left, m, n, right in reversed(shapes) if last_first else shapes:
        rest //= m
        if last_first:
            count, rows, inner, columns = (1, rest, m, left * n) if done == 1 else (rest, left * n, m * right, done)
        else:
            count, rows, inner, columns = (1, done, left * m, n) if rest == 1 else (done, n * right, left * m, rest)
        bill.product(rows, inner, columns, count)
        done *= n
    return bill


def _rows_bill(
    cores: Sequence[Shape], groups: Groups, last_first: bool, batch: int, bill: Bill, input_gradient: bool
) -> Bill:
    """What a batch costs, as `tensor_train.layers.run_steps` multiplies it."""
    for group in groups:
        bill.merge([cores[k] for k in group])
    shapes = merge_shapes(cores, groups)
    waiting, done = math.prod(shape[1] for shape in shapes), 1
    for k, (left, m, n, right) in enumerate(reversed(shapes) if last_first else shapes):
        before, after = (right, left) if last_first else (left, right)
        waiting //= m
        rows, gradient = batch * waiting * done, k > 0 or input_gradient
        if k > 0 if last_first else k > 0 or waiting > 1:
            bill.copy(rows * m * before, gradient)
        bill.product(rows, m * before, n * after, left_gradient=gradient)
        done *= n
    if last_first and len(groups) > 1:
        bill.copy(batch * done)
    return bill


def _cheapest(
    shapes: Sequence[Shape],
    rows: int,
    dense: Bill,
    price: Callable[[Groups, bool], Bill],
    input_gradient: bool = True,
) -> TrainPlan:
    """The plan of the least time over all groupings and both directions; ``dense`` is an empty bill."""
    inputs, outputs = (math.prod(shape[axis] for shape in shapes) for axis in (1, 2))
    dense.product(rows, inputs, outputs, left_gradient=input_gradient)
    bills = [
        (groups, last_first, price(groups, last_first))
        for groups in groupings(len(shapes))
        for last_first in ((True, False) if len(groups) > 1 else (True,))
    ]
    groups, last_first, bill = min(bills, key=lambda option: option[2].us)
    return TrainPlan(groups, last_first, bill.us, dense.us, bill.flops, dense.flops)


def merge_flops(shapes: Sequence[tuple[int, int, int]]) -> int:
    """FLOPs of multiplying cores of these shapes (r, q, r') in the cheapest order."""
    return best_splits(shapes)[0][0, len(shapes) - 1]


def kernel_split(places: int, shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """Where to cut a kernel's train for its last and largest product, and the FLOPs of the whole rebuild.

    ``shapes`` are (r_k, c_k s_k, r_{k+1}) of the cores after that of the places; returns (cut, flops): the places and
    the cores before ``cut`` are multiplied to one factor, the others to the other one.
    """
    options = []
    for cut in range(len(shapes)):
        front = [(1, places, shapes[0][0]), *shapes[:cut]]
        last = 2 * places * math.prod(shape[1] for shape in shapes) * shapes[cut][0]
        options.append((merge_flops(front) + merge_flops(shapes[cut:]) + last, cut))
    flops, cut = min(options)
    return cut, flops


def best_splits(
    shapes: Sequence[tuple[int, int, int]],
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """Cheapest FLOPs of multiplying cores i..j and where to split them: the matrix chain problem."""
    cost = {(i, i): 0 for i in range(len(shapes))}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, len(shapes)):
        for i in range(len(shapes) - length):
            j = i + length
            outer = 2 * shapes[i][0] * shapes[j][2] * math.prod(shape[1] for shape in shapes[i : j + 1])
            options = [(cost[i, k] + cost[k + 1, j] + outer * shapes[k][2], k) for k in range(i, j)]
            cost[i, j], split[i, j] = min(options)
    return cost, split


# Tensor trains in a model file: their modes and ranks, and what a runtime multiplies frame by frame.
#
# Cores are known by their names ("head.rnn.input_map.cores.0"). What nodes make of constants alone, a runtime computes
# once, when it loads the file; the first tensors that meet anything else are what each frame is multiplied with: the
# cores, super-cores of neighbors, or the whole matrix or kernel.
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
