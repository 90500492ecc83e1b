"""In which order a tensor-train layer is computed: chain, super-cores or rebuilt dense matrix.

All 2^(d-1) contiguous groupings in both directions are priced: merging each group into a super-core, then the chain
over the super-cores. No merging is the plain chain; one group of all cores is the rebuilt matrix. In training merging
and its gradients are paid every step; in evaluation merged cores are cached and cost nothing. The prices are FLOPs and
bytes at a machine's measured rates (machine.py).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .chain import groupings, in_order
from .cores import kernel_split, merge_flops
from .machine import EPYC, Machine


@dataclass(frozen=True)
class Plan:
    """How one layer is computed, and what that costs by prediction; ``dense_*`` is the plain layer of the same size."""

    groups: tuple[int, ...]  # cores in each super-core, from the first
    last_first: bool  # contract the last super-core first
    batch: int
    training: bool
    flops: int
    ms: float
    dense_flops: int
    dense_ms: float

    @property
    def form(self) -> str:
        """``chain``, ``super-cores`` or ``rebuilt``."""
        if len(self.groups) == 1:
            return "rebuilt"
        return "chain" if max(self.groups) == 1 else "super-cores"

    def describe(self) -> str:
        """One line for people: ``super-cores 1 | 2 | 3-4 from the last: 0.2 GFLOP, 3.1 ms; dense ...``."""
        ends = list(itertools.accumulate(self.groups))
        names = [
            f"{end - size + 1}-{end}" if size > 1 else f"{end}" for end, size in zip(ends, self.groups, strict=True)
        ]
        order = (
            "" if len(self.groups) == 1 else f" {' | '.join(names)} from the {'last' if self.last_first else 'first'}"
        )
        when = "training" if self.training else "evaluation"
        return (
            f"{self.form}{order}, batch {self.batch}, {when}: {self.flops / 1e6:,.1f} MFLOP, {self.ms:.3g} ms "
            f"predicted; dense {self.dense_flops / 1e6:,.1f} MFLOP, {self.dense_ms:.3g} ms"
        )


@dataclass
class _Bill:
    """A running sum of FLOPs and seconds."""

    machine: Machine
    training: bool
    flops: int = 0
    seconds: float = 0.0

    def product(self, rows: int, inner: int, columns: int, left_gradient: bool = True) -> None:
        """(rows, inner) @ (inner, columns), and its gradients in training."""
        price = self.machine.product_s
        times = 1
        self.seconds += price(rows, inner, columns)
        if self.training:
            times += 1 + left_gradient
            self.seconds += price(inner, rows, columns) + (price(rows, columns, inner) if left_gradient else 0.0)
        self.flops += times * 2 * rows * inner * columns

    def copy(self, elements: int, gradient: bool = True) -> None:
        """A reordering, and that of the gradient in training."""
        self.seconds += self.machine.copy_s(elements) * (1 + (self.training and gradient))

    def merge(self, shapes: Sequence[tuple[int, int, int, int]]) -> None:
        """Multiply cores (l, m, n, r) into one; nothing in evaluation, where it is done once."""
        if len(shapes) == 1 or not self.training:
            return
        flops = 3 * merge_flops([(left, m * n, right) for left, m, n, right in shapes])
        elements = shapes[0][0] * math.prod(m * n for _, m, n, _ in shapes) * shapes[-1][3]
        self.flops += flops
        self.seconds += flops / self.machine.flops_per_s + 3 * (len(shapes) - 1) * self.machine.call_s
        self.copy(2 * elements)  # scattered in small blocks, at half the rate


@functools.lru_cache(maxsize=1024)
def plan_product(
    in_modes: tuple[int, ...],
    out_modes: tuple[int, ...],
    ranks: tuple[int, ...],
    batch: int,
    training: bool = False,
    input_gradient: bool = True,
    machine: Machine = EPYC,
) -> Plan:
    """The cheapest way to multiply ``batch`` rows by a train.

    Args:
        in_modes: m_1 .. m_d.
        out_modes: n_1 .. n_d.
        ranks: r_0 .. r_d.
        batch: rows; a sequence of T frames and B clips has B T.
        training: price merging and all gradients.
        input_gradient: whether the gradient of the input is needed; a first layer's is not.
        machine: what steps cost.
    """
    shapes = list(zip(ranks, in_modes, out_modes, ranks[1:], strict=False))
    inputs, outputs = math.prod(in_modes), math.prod(out_modes)
    dense = _Bill(machine, training)
    dense.product(batch, inputs, outputs, input_gradient)
    options: list[tuple[float, int, tuple[int, ...], bool, int]] = []
    for groups in groupings(len(shapes)):
        for last_first in (True, False):
            bill = _price(shapes, groups, last_first, batch, _Bill(machine, training), input_gradient)
            options.append((bill.seconds, len(options), groups, last_first, bill.flops))
    seconds, _, groups, last_first, flops = min(options)
    return Plan(groups, last_first, batch, training, flops, 1e3 * seconds, dense.flops, 1e3 * dense.seconds)


@functools.lru_cache(maxsize=1024)
def plan_convolution(
    in_modes: tuple[int, ...],
    out_modes: tuple[int, ...],
    places: int,
    ranks: tuple[int, ...],
    batch: int,
    positions: int,
    training: bool = False,
    input_gradient: bool = True,
    machine: Machine = EPYC,
) -> Plan:
    """A convolution is always rebuilt, once a step in training, once in all in evaluation; this says what that costs.

    Args:
        in_modes: c_1 .. c_d.
        out_modes: s_1 .. s_d.
        places: p, the numbers of the kernel a pair of channels.
        ranks: r_0 .. r_{d+1}.
        batch: clips.
        positions: output positions a clip.
        training: price the rebuild and all gradients.
        input_gradient: whether the gradient of the input is needed.
        machine: what steps cost.
    """
    pairs = math.prod(in_modes) * math.prod(out_modes)
    times = 2 + input_gradient if training else 1
    dense_flops = times * 2 * batch * positions * places * pairs
    dense_s = dense_flops / machine.conv_flops_per_s
    rebuild = _Bill(machine, training)
    if training:
        channels = [(r, c * s, q) for r, c, s, q in zip(ranks[1:], in_modes, out_modes, ranks[2:], strict=False)]
        flops = 3 * kernel_split(places, channels)[1]
        rebuild.flops, rebuild.seconds = flops, flops / machine.flops_per_s + 9 * len(channels) * machine.call_s
        rebuild.copy(pairs * places)
    flops, seconds = dense_flops + rebuild.flops, dense_s + rebuild.seconds
    groups = (len(in_modes) + 1,)
    return Plan(groups, False, batch, training, flops, 1e3 * seconds, dense_flops, 1e3 * dense_s)


def _price(
    shapes: Sequence[tuple[int, int, int, int]],
    groups: Sequence[int],
    last_first: bool,
    batch: int,
    bill: _Bill,
    input_gradient: bool,
) -> _Bill:
    """Walk the steps of ``chain.run_steps`` and sum what they cost."""
    ends = list(itertools.accumulate(groups))
    parts = [shapes[end - size : end] for end, size in zip(ends, groups, strict=True)]
    for part in parts:
        bill.merge(part)
    in_modes = [math.prod(shape[1] for shape in part) for part in parts]
    out_modes = [math.prod(shape[2] for shape in part) for part in parts]
    near, far = [part[-1][3] for part in parts], [part[0][0] for part in parts]  # ranks as seen from the last core
    before, after = (near[::-1], far[::-1]) if last_first else (far, near)
    waiting, done = math.prod(in_modes), 1
    steps = zip(*in_order(in_modes, out_modes, last_first), before, after, strict=True)
    for k, (m, n, rank, next_rank) in enumerate(steps):
        waiting //= m
        rows, gradient = batch * waiting * done, k > 0 or input_gradient
        if waiting > 1 if (k == 0 and not last_first) else k > 0:
            bill.copy(rows * m * rank, gradient)
        bill.product(rows, m * rank, n * next_rank, gradient)
        done *= n
    if last_first and len(groups) > 1:
        bill.copy(batch * done)
    return bill


def bucket(batch: int) -> int:
    """The next power of two, so that clips of all lengths share a few plans."""
    return 1 << max(batch - 1, 0).bit_length()
