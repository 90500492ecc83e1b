"""What is computed from cores, kept for evaluation until a core changes.

Cores are compared by value, not by version counters: those miss writes through ``.data``. Cores are so small that the
comparison costs microseconds; where it would stop an accelerator, address and version are compared instead.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
KEPT = 4  # values of different keys, as plans of different batch sizes


class CoreCache(Generic[Value]):
    """Values made from cores, by key; all are dropped when a core changes. Never saved with the module."""

    def __init__(self) -> None:
        self._seen: list[Tensor] | list[tuple[int, int]] = []
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, cores: Sequence[Tensor], make: Callable[[], Value]) -> Value:
        """The value of ``key``, made anew if a core changed, if a gradient must reach the cores, or under export."""
        if exporting() or needs_gradient(cores):
            return make()
        if not self._current(cores):
            self._values.clear()
            self._seen = _fingerprints(cores)
        if key not in self._values:
            if len(self._values) >= KEPT:
                del self._values[next(iter(self._values))]
            with torch.inference_mode(False), torch.no_grad():
                self._values[key] = make()
        return self._values[key]

    def _current(self, cores: Sequence[Tensor]) -> bool:
        if len(self._seen) != len(cores):
            return False
        return all(_same(seen, core) for seen, core in zip(self._seen, cores, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {"_seen": [], "_values": {}}

    def __deepcopy__(self, memo: object) -> CoreCache[Value]:
        return CoreCache()


def exporting() -> bool:
    """Whether a graph is being traced: it must hold the cores, not what was made from them."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def needs_gradient(cores: Sequence[Tensor]) -> bool:
    """Whether gradients must reach the cores."""
    return torch.is_grad_enabled() and any(core.requires_grad for core in cores)


def _fingerprints(cores: Sequence[Tensor]) -> list[Any]:
    with torch.inference_mode(False), torch.no_grad():
        return [core.detach().clone() if core.device.type == "cpu" else _place(core) for core in cores]


def _same(seen: Any, core: Tensor) -> bool:
    if isinstance(seen, Tensor):
        return (
            core.device == seen.device
            and core.dtype == seen.dtype
            and core.shape == seen.shape
            and torch.equal(seen, core.detach())
        )
    return core.device.type != "cpu" and bool(seen == _place(core))


def _place(core: Tensor) -> tuple[Any, ...]:
    return (core.data_ptr(), core._version, core.dtype, core.device)
