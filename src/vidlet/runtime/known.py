"""What is known of a tensor before a graph runs, and one node with what is known of its inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .onnx_parts import DATA_TYPES, Node

FEW = 128  # values that are followed; sizes, axes and pads have fewer
FLOAT, UINT8, INT32, INT64, BOOL = 1, 2, 6, 7, 9
NUMPY = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
TYPES = {np.dtype(kind): code for code, kind in NUMPY.items()}

Shape = tuple[int, ...]


class Unbounded(Exception):
    """A shape that cannot be bounded before the graph runs, or inputs that make no sense; says which."""


@dataclass(frozen=True)
class Known:
    """What is known of a tensor before it exists.

    ``dims`` is its shape, or where ``exact`` is False a shape that holds it. ``low`` and ``high`` bound its values
    element by element; they are the same array where the values are known.
    """

    type: int
    dims: Shape
    low: NDArray | None = None
    high: NDArray | None = None
    exact: bool = True
    constant: bool = False  # made of stored tensors alone

    @property
    def elements(self) -> int:
        """How many elements it has at most."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """How many bytes it takes at most."""
        return -(-self.elements * (DATA_TYPES.get(self.type, ("", 64))[1] or 64) // 8)

    @property
    def values(self) -> NDArray | None:
        """Its values, if they are known."""
        return self.low if self.low is self.high else None


def known_values(values: NDArray, constant: bool = True) -> Known:
    """A tensor whose values are known; many of them are not kept."""
    few = values if values.size <= FEW else None
    return Known(TYPES.get(values.dtype, 0), values.shape, few, few, True, constant)


@dataclass(frozen=True)
class Call:
    """One node with what is known of its inputs; an input that is left out is None."""

    node: Node
    inputs: tuple[Known | None, ...]

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def __getitem__(self, index: int) -> Known:
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise Unbounded(f"lacks its input {index}")
        return found

    def number(self, name: str, default: int = 0) -> int:
        """A whole number among the attributes."""
        found = self.node.attributes.get(name)
        return default if found is None or found.i is None else found.i

    def ints(self, name: str) -> list[int] | None:
        """Whole numbers among the attributes."""
        found = self.node.attributes.get(name)
        return None if found is None else list(found.ints)

    def text(self, name: str, default: str) -> str:
        """A word among the attributes."""
        found = self.node.attributes.get(name)
        return default if found is None else found.s.decode(errors="replace")

    def numbers(self, index: int, attribute: str = "") -> list[float]:
        """The values of an input, or of the attribute that older opsets have in its place."""
        if attribute and (given := self.ints(attribute)) is not None:
            return [float(value) if value > 2**53 else value for value in given]
        values = self[index].values
        if values is None:
            raise Unbounded(f"depends on the values of {self.node.inputs[index]!r}, which are not known beforehand")
        found: list[float] = np.ravel(values).tolist()
        if not all(math.isfinite(value) for value in found):
            raise Unbounded("has inputs that are not finite")
        return found

    def whole(self, index: int, attribute: str = "", default: Sequence[int] | None = None) -> list[int]:
        """The same as whole numbers; the default, if there is one, where neither input nor attribute is given."""
        if default is not None and not self.has(index) and attribute not in self.node.attributes:
            return list(default)
        return [int(value) for value in self.numbers(index, attribute)]

    def most(self, index: int) -> tuple[list[int], bool]:
        """Upper bounds of an input's values, and whether they are the values."""
        known = self[index]
        if known.high is None:
            raise Unbounded(f"depends on the values of {self.node.inputs[index]!r}, which are not known beforehand")
        return [int(value) for value in np.ravel(known.high).tolist()], known.low is known.high

    @cached_property
    def constant(self) -> bool:
        """Whether all inputs are made of stored tensors alone."""
        return all(known.constant for known in self.inputs if known is not None)

    @cached_property
    def exact(self) -> bool:
        """Whether the shapes of all inputs are exact."""
        return all(known.exact for known in self.inputs if known is not None)

    def made(self, dims: Sequence[int], code: int | None = None, exact: bool = True) -> Known:
        """An output of this shape; of the first input's element type if no other is given."""
        if any(dim < 0 for dim in dims):
            raise Unbounded(f"would have the negative shape {list(dims)}")
        code = code if code is not None else next((known.type for known in self.inputs if known), FLOAT)
        return Known(code, tuple(dims), exact=exact and self.exact, constant=self.constant)


Made = list[Known]
