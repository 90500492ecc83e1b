"""Tensor trains of a model file timed on this machine: as the file multiplies them, beside the whole matrix.

Cores of the same shapes with random numbers are exported twice, and ONNX Runtime multiplies one row with each in turn,
on one thread: the work of one frame. A kernel is rebuilt at load in either form, so there is nothing to compare.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..artifact.exporter import to_onnx_graph
from ..runtime import Session, open_session
from ..runtime.train_plan import StreamPlan, plan_stream
from ..runtime.trains import slower_sentence
from ..tensor_train import TTLinear
from ..tensor_train.stream import planned_product

MOST_BYTES = 500_000_000  # of a dense matrix; a larger one is not made
ROUNDS, CALLS = 7, 15


class PlannedProduct(nn.Module):
    """The product of one train by a given plan."""

    def __init__(self, layer: TTLinear, plan: StreamPlan) -> None:
        super().__init__()
        self.layer, self.plan = layer, plan

    def forward(self, x: Tensor) -> Tensor:
        """x (B, M) -> (B, N)."""
        return planned_product(list(self.layer.cores), self.plan)(x)


def measure_trains(trains: Sequence[dict[str, Any]]) -> None:
    """Add ``ms`` and ``dense_ms`` a frame to rows of ``tensor_trains``, and ``slower`` as measured.

    None where there is nothing to measure: kernels, and dense matrices that are too large to be made.
    """
    for row in trains:
        row["ms"] = row["dense_ms"] = None
        if row["places"] or not row["form"]:
            continue
        row["ms"], row["dense_ms"] = _product_ms(row)
        if row["dense_ms"] is not None:
            row["slower"] = slower_sentence(row["name"], row["ms"], row["dense_ms"], "measured")


def _product_ms(row: Mapping[str, Any]) -> tuple[float, float | None]:
    """Milliseconds of one row: as the file has it, and by the whole matrix."""
    layer = TTLinear(row["in_modes"], row["out_modes"], row["ranks"], bias=False, clip=False)
    cores = range(len(row["in_modes"]))
    best = plan_stream([(core.shape[0], core.shape[1], core.shape[2], core.shape[3]) for core in layer.cores])
    groups = tuple(tuple(group) for group in row["groups"])
    plans = [StreamPlan(groups, best.first_core_first, 0.0, 0.0)]
    if len(groups) > 1 and 4 * row["dense_parameters"] <= MOST_BYTES:
        plans.append(StreamPlan((tuple(cores),), False, 0.0, 0.0))
    sessions = [_session(PlannedProduct(layer, plan), layer.in_features) for plan in plans]
    x = np.random.default_rng(0).standard_normal((1, layer.in_features), np.float32)
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(ROUNDS):  # in turn, so that what else the machine does meets both
        for found, session in zip(times, sessions, strict=True):
            session.run(None, {"x": x})
            for _ in range(CALLS):
                started = time.perf_counter()
                session.run(None, {"x": x})
                found.append(time.perf_counter() - started)
    medians = [1e3 * statistics.median(found) for found in times]
    if len(groups) == 1:
        return medians[0], medians[0]
    return medians[0], medians[1] if len(medians) > 1 else None


def _session(network: nn.Module, inputs: int) -> Session:
    graph = to_onnx_graph(network.eval(), {"x": torch.zeros(3, inputs)}, ["y"], {"x": {0: "T"}})
    return open_session(graph, threads=1)
