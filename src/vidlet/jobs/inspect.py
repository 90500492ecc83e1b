"""What is inside a model file, tensor by tensor, byte by byte."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..reports import text_table
from ..runs import shipped
from ..runtime import Session, inspect_artifact, open_session
from ..runtime.train_plan import TrainPlan, plan_frame, slower_sentence
from ..wording import shown

MOST_BYTES = 500_000_000  # of a dense matrix; a larger one is not made to be timed
ROUNDS, CALLS = 7, 15


def inspect(model: str | Path, measure: bool = False) -> dict[str, Any]:
    """Take a model file apart, down to the last byte, without running it.

    Args:
        measure: time each tensor train's product beside its dense form on this machine, one row on one thread: ``ms``
            and ``dense_ms`` of each of ``tensor_trains`` (needs the training extra).

    Returns:
        ``bytes`` {"weights", "graph", "metadata", "total"}, ``parameters``, ``tensors`` (largest first), ``parts``
        (extractor, head), ``operators``, ``tensor_trains``, ``inputs``, ``state``, ``outputs``, ``metadata``; see
        ``vidlet.runtime.inspect_artifact``.

    Raises:
        ModelError: not a model file of ours, or not a safe one.
    """
    found = inspect_artifact(shipped(model))
    if measure and found["tensor_trains"]:
        measure_trains(found["tensor_trains"])
    return found


def inspect_text(found: Mapping[str, Any], most: int = 15) -> str:
    """The figures of ``inspect`` for people: what it is, its parts, its largest tensors, its operators."""
    size, metadata = found["bytes"], found["metadata"]
    names = metadata["labels"] or metadata.get("box_labels", [])
    head = [
        f"{found['path']}: {size['total']:,} bytes = weights {size['weights']:,} + graph {size['graph']:,} "
        f"+ metadata {size['metadata']:,}; {found['parameters']:,} parameters",
        f"recipe {metadata['recipe'].get('name', '?')}; {len(names)} classes: {', '.join(names[:10])}"
        + (" ..." if len(names) > 10 else ""),
        f"sampling: {_sampling(metadata['sampling'])}",
        "inputs: " + "; ".join(_signature(v) for v in (*found["inputs"], *found["state"])),
        "outputs: " + "; ".join(_signature(v) for v in found["outputs"]),
    ]
    for item in metadata.get("evidence", [])[:4]:
        head.append(f"measured on {item.get('data', '?')}: {item['what']}: {_rounded(item['value'])}")
    parts = [
        [p["part"], f"{p['tensors']}", f"{p['parameters']:,}", f"{p['bytes']:,}", f"{p['share']:.1%}"]
        for p in found["parts"]
    ]
    parts += [
        [name, "-", "-", f"{size[name]:,}", f"{size[name] / size['total']:.1%}"] for name in ("graph", "metadata")
    ]
    tensors = [
        [
            t["name"],
            t["dtype"],
            " x ".join(map(str, t["shape"])) or "-",
            t["storage"],
            f"{t['bytes']:,}",
            f"{t['share']:.1%}",
        ]
        for t in found["tensors"][:most]
    ]
    operators = ", ".join(f"{name} {count}" for name, count in found["operators"].items())
    return "\n".join(
        [
            *map(shown, head),
            "",
            text_table(parts, ["part", "tensors", "parameters", "bytes", "share"], "lrrrr"),
            "",
            text_table(
                tensors, [f"largest {len(tensors)} tensors", "type", "shape", "storage", "bytes", "share"], "llllrr"
            ),
            "",
            *_trains(found.get("tensor_trains", [])),
            shown(f"operators: {operators}"),
        ]
    )


def _trains(trains: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the tensor trains and how each meets a frame, and a line for each that is slower than dense."""
    if not trains:
        return []
    rows = []
    for train in trains:
        modes = " ".join(f"{m}.{n}" for m, n in zip(train["in_modes"], train["out_modes"], strict=True))
        groups = ["-".join(str(k + 1) for k in sorted({group[0], group[-1]})) for group in train["groups"]]
        measured = f"; measured {_ms(train['ms'])}, dense {_ms(train['dense_ms'])}" if train.get("ms") else ""
        rows.append(
            [
                train["name"],
                f"{train['places']} x {modes}" if train["places"] else modes,
                " ".join(map(str, train["ranks"])),
                f"{train['parameters']:,}",
                f"{train['dense_parameters']:,}",
                f"{train['form']} {' | '.join(groups)}" if len(groups) > 1 else train["form"],
                train["why"] + measured,
            ]
        )
    columns = ["tensor train", "modes", "ranks", "stored", "dense", "contraction", "why"]
    warnings = [shown(f"warning: {train['slower']}") for train in trains if train["slower"]]
    return [text_table(rows, columns, "lllrrll"), *warnings, ""]


def _ms(value: float | None) -> str:
    return "not measured (too large)" if value is None else f"{value:.3g} ms"


def _sampling(sampling: Mapping[str, Any]) -> str:
    rule = (
        f"{sampling['hz']:g} frames a second" if sampling["rule"] == "rate" else f"{sampling['frames']} frames a clip"
    )
    return f"{rule}; half of the training clips are longer than {sampling['median_s']:.1f} s"


def _rounded(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_rounded, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _signature(value: Mapping[str, Any]) -> str:
    return f"{value['name']} {value['dtype']} ({', '.join(map(str, value['shape']))})"


def measure_trains(trains: Sequence[dict[str, Any]]) -> None:
    """Add ``ms`` and ``dense_ms`` a frame to rows of ``tensor_trains``, and ``slower`` as measured on this machine.

    Random cores of the same shapes are exported twice, as the file multiplies them and as the whole matrix, and ONNX
    Runtime multiplies one row with each in turn, on one thread: the work of one frame. The figures are None where
    there is nothing to measure: kernels, and dense matrices that are too large to be made.
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
    ranks, cores = row["ranks"], range(len(row["in_modes"]))
    shapes = tuple((ranks[k], row["in_modes"][k], row["out_modes"][k], ranks[k + 1]) for k in cores)
    groups = tuple(tuple(group) for group in row["groups"])
    plans = [TrainPlan(groups, plan_frame(shapes).last_first)]
    if len(groups) > 1 and 4 * row["dense_parameters"] <= MOST_BYTES:
        plans.append(TrainPlan((tuple(cores),)))
    inputs = math.prod(row["in_modes"])
    sessions = [_session(shapes, plan, inputs) for plan in plans]
    x = np.random.default_rng(0).standard_normal((1, inputs), np.float32)
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


def _session(shapes: Sequence[tuple[int, ...]], plan: TrainPlan, inputs: int) -> Session:
    """ONNX Runtime with the product of one train by a plan."""
    import torch

    from ..artifact.exporter import to_onnx_graph
    from ..tensor_train import PlannedProduct

    network = PlannedProduct([torch.randn(shape) for shape in shapes], plan).eval()
    graph = to_onnx_graph(network, {"x": torch.zeros(3, inputs)}, ["y"], {"x": {0: "T"}})
    return open_session(graph, threads=1)
