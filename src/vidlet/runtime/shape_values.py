"""The values of small tensors, as the runtime computes them: shapes are arithmetic inside of a graph.

Where all inputs are known, NumPy computes in the element type of the graph, so that sums wrap around as they do in the
runtime. Where only bounds are known (the number of boxes that are left), bounds of whole numbers are carried on
through the few operators that shapes are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .known import FEW, INT64, NUMPY, Call, Known, Made

LARGEST = 2**62
_KEPT = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")  # the same elements in the same order


def with_values(call: Call, made: Made) -> Made:
    """The outputs with what is known of their values; values that are already known stay."""
    if len(made) != 1 or made[0].low is not None or made[0].elements > FEW or not made[0].exact:
        return made
    given = [known for known in call.inputs if known is not None]
    if any(known.low is None or known.high is None for known in given):
        return made
    output = made[0]
    compute = _COMPUTED.get(call.node.op_type)
    with np.errstate(all="ignore"):
        if compute is not None and all(known.values is not None for known in given):
            found = _as_made(compute(call, [known.low for known in given]), output)
            return made if found is None else [replace(output, low=found, high=found)]
        bound = _BOUNDED.get(call.node.op_type)
        if bound is None or any(known.type != INT64 for known in given):
            return made
        low, high = (_as_made(values, output) for values in bound(call, given))
    if low is None or high is None or max(abs(int(v)) for v in (*np.ravel(low), *np.ravel(high), 0)) > LARGEST:
        return made
    return [replace(output, low=low, high=high)]


def _as_made(values: Any, output: Known) -> NDArray | None:
    """An array of the output's type and shape; None if it is none (our rule of its shape has the last word)."""
    kind = NUMPY.get(output.type)
    if values is None or kind is None:
        return None
    found = np.asarray(values)
    if found.dtype != kind or found.size != output.elements:
        return None
    return found.reshape(output.dims)


def _picked(call: Call, given: list[Any]) -> Any:
    """Operators that only move elements: the same function serves values, lower and upper bounds."""
    operator, data = call.node.op_type, given[0]
    if operator in _KEPT:
        return data
    if operator == "Gather":
        return np.take(data, given[1], axis=call.number("axis"))
    if operator == "Transpose":
        return np.transpose(data, call.ints("perm"))
    if operator == "Concat":
        return np.concatenate(given, axis=call.number("axis"))
    starts, ends = call.whole(1, "starts"), call.whole(2, "ends")
    axes = call.whole(3, "axes", range(len(starts)))
    steps = call.whole(4, default=[1] * len(starts))
    places = [slice(None)] * np.ndim(data)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places[axis] = slice(start, end, step)
    return data[tuple(places)]


def _cast(call: Call, given: list[Any]) -> Any:
    kind, values = NUMPY.get(call.number("to")), given[0]
    if kind is None or (np.issubdtype(kind, np.integer) and not np.all(np.isfinite(values))):
        return None
    if np.issubdtype(kind, np.integer) and np.any(np.abs(values.astype(np.float64)) >= LARGEST):
        return None
    return values.astype(kind)


def _divided(call: Call, given: list[Any]) -> Any:
    a, b = given
    if not np.issubdtype(a.dtype, np.integer):
        return a / b
    whole = np.abs(a) // np.abs(b)  # towards zero, as C does; the rule of its shape has refused zeros
    return np.where((a < 0) != (b < 0), -whole, whole).astype(a.dtype)


def _reduced(function: Callable[..., Any]) -> Callable[[Call, list[Any]], Any]:
    def compute(call: Call, given: list[Any]) -> Any:
        axes = call.whole(1, "axes", ())
        if not axes and call.number("noop_with_empty_axes"):
            return given[0]
        keep = bool(call.number("keepdims", 1))
        return function(given[0], axis=tuple(axes) or None, keepdims=keep).astype(given[0].dtype)

    return compute


def _folded(function: Callable[..., Any]) -> Callable[[Call, list[Any]], Any]:
    def compute(call: Call, given: list[Any]) -> Any:
        found = given[0]
        for other in given[1:]:
            found = function(found, other)
        return found

    return compute


def _unary(function: Callable[..., Any]) -> Callable[[Call, list[Any]], Any]:
    return lambda call, given: function(given[0])


def _floats_only(function: Callable[..., Any]) -> Callable[[Call, list[Any]], Any]:
    return lambda call, given: function(*given) if np.issubdtype(given[0].dtype, np.floating) else None


_COMPUTED: dict[str, Callable[[Call, list[Any]], Any]] = {
    **dict.fromkeys((*_KEPT, "Gather", "Transpose", "Concat", "Slice"), _picked),
    "Cast": _cast,
    "Add": _folded(np.add),
    "Sub": _folded(np.subtract),
    "Mul": _folded(np.multiply),
    "Sum": _folded(np.add),
    "Min": _folded(np.minimum),
    "Max": _folded(np.maximum),
    "Div": _divided,
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Sqrt": _unary(np.sqrt),
    "Reciprocal": _floats_only(lambda x: (1 / x).astype(x.dtype)),
    "Not": _unary(np.logical_not),
    "And": _folded(np.logical_and),
    "Or": _folded(np.logical_or),
    "Equal": _folded(np.equal),
    "Less": _folded(np.less),
    "LessOrEqual": _folded(np.less_equal),
    "Greater": _folded(np.greater),
    "GreaterOrEqual": _folded(np.greater_equal),
    "Where": lambda call, given: np.where(*given),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceSum": _reduced(np.sum),
    "ReduceProd": _reduced(np.prod),
    "Expand": lambda call, given: np.broadcast_to(given[0], np.broadcast_shapes(given[0].shape, tuple(given[1]))),
    "Range": lambda call, given: np.arange(*(np.ravel(values)[0] for values in given), dtype=given[0].dtype),
}


def _each(function: Callable[[Call, list[Any]], Any]) -> Callable[[Call, list[Known]], tuple[Any, Any]]:
    """An operator that keeps the order of numbers: bounds go through it one by one."""
    return lambda call, given: (
        function(call, [known.low for known in given]),
        function(call, [known.high for known in given]),
    )


def _moved(function: Callable[[Call, list[Any]], Any]) -> Callable[[Call, list[Known]], tuple[Any, Any]]:
    """An operator that moves elements of its first input; the others must be known."""

    def bound(call: Call, given: list[Known]) -> tuple[Any, Any]:
        rest = [known.values for known in given[1:]]
        if any(values is None for values in rest):
            return None, None
        return function(call, [given[0].low, *rest]), function(call, [given[0].high, *rest])

    return bound


def _subtracted(call: Call, given: list[Known]) -> tuple[Any, Any]:
    a, b = given
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    return a.low - b.high, a.high - b.low


def _multiplied(call: Call, given: list[Known]) -> tuple[Any, Any]:
    a, b = given
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    ends = [x.astype(object) * y.astype(object) for x in (a.low, a.high) for y in (b.low, b.high)]
    low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
    if np.any(np.abs(np.concatenate([np.ravel(low), np.ravel(high)])) > LARGEST):
        return None, None
    return np.asarray(low, np.int64), np.asarray(high, np.int64)


_BOUNDED: dict[str, Callable[[Call, list[Known]], tuple[Any, Any]]] = {
    **dict.fromkeys((*_KEPT, "Gather", "Transpose", "Slice"), _moved(_picked)),
    "Add": _each(_folded(np.add)),
    "Sum": _each(_folded(np.add)),
    "Min": _each(_folded(np.minimum)),
    "Max": _each(_folded(np.maximum)),
    "Concat": _each(_picked),
    "Sub": _subtracted,
    "Mul": _multiplied,
}
