"""What users add to vidlet from outside the package: heads, extractors, compression steps and readers of data sets.

A call adds one in a script (``vidlet.register_head("attention", AttentionHead)``); an installed package adds one by an
entry point of the group ``vidlet.plugins``, which is imported when its name is met, so that the command line knows it:

    [project.entry-points."vidlet.plugins"]
    "head:attention" = "my_package.heads:AttentionHead"

The kinds in front of the colon are those of ``KINDS``. What the built-in tables have goes first. Nothing is imported
and nothing is added when this module is imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import DependencyError

GROUP = "vidlet.plugins"
KINDS = {
    "head": "builders (feature_shape, classes, **options) -> Head",
    "extractor": "builders (recipe's extractor section, **options) -> FrameExtractor",
    "training-step": "compression steps (trained, amount, material) -> Trained",
    "step": "compression steps (graph, amount, clips) -> graph",
    "data": "readers path -> ClipTable, or None for a path that is not theirs",
}
_ADDED: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in KINDS}
_CALLED: dict[str, None] = {}  # names that calls added, in their order


def register_head(name: str, builder: Callable[..., Any]) -> None:
    """Let recipes name a head of yours.

    Args:
        name: what ``head.name`` of a recipe says.
        builder: (feature_shape, classes, **options) -> ``vidlet.models.Head``; a class that inherits it will do. Its
            further parameters and their defaults are the options of ``[head.options]``.
    """
    _add("head", name, builder)


def register_extractor(name: str, builder: Callable[..., Any]) -> None:
    """Let recipes name an extractor of yours.

    Args:
        name: what ``extractor.name`` of a recipe says.
        builder: (the ``Extractor`` section of the recipe, **options) -> ``vidlet.models.FrameExtractor``. Its further
            parameters and their defaults are the options of ``[extractor.options]``.
    """
    _add("extractor", name, builder)


def register_step(name: str, step: Callable[..., Any], trains: bool = False) -> None:
    """Let chains of compression name a step of yours.

    Args:
        name: what a chain says, as in "units:0.5+NAME".
        step: (float32 graph, amount or None, calibration clips) -> graph; it returns a copy.
        trains: the step is (Trained, amount or None, Material) -> Trained instead, before the graph is exported.
    """
    _add("training-step" if trains else "step", name, step)


def register_data(name: str, reader: Callable[..., Any]) -> None:
    """Let every command that takes DATA read a layout of yours.

    Args:
        name: of the layout, for messages.
        reader: path -> ``vidlet.datasets.ClipTable``, or None where the path is not of this layout. It is asked before
            the built-in readers.
    """
    _add("data", name, reader)


def _add(kind: str, name: str, made: Callable[..., Any]) -> None:
    _ADDED[kind][name] = made
    _CALLED[f"{kind} {name}"] = None


def added_by_calls() -> list[str]:
    """What a script added by calls, which another process does not know unless it runs the script: "head NAME"."""
    return [own for own in _CALLED if own.partition(" ")[2] in _ADDED[own.partition(" ")[0]]]


def find(kind: str, name: str) -> Callable[..., Any] | None:
    """What was added under this name, imported now if a package brings it; None if nothing was.

    Raises:
        DependencyError: a package brings it and cannot be imported.
    """
    if name not in _ADDED[kind] and (entry := _installed().get(f"{kind}:{name}")) is not None:
        try:
            _ADDED[kind][name] = entry.load()
        except Exception as error:  # whatever the code of another package does
            raise DependencyError(f"{kind} {name}: {entry.value} cannot be imported ({error})") from error
    return _ADDED[kind].get(name)


def names(kind: str) -> list[str]:
    """Names of all that was added of a kind; nothing is imported."""
    brought = (name.partition(":")[2] for name in _installed() if name.startswith(f"{kind}:"))
    return sorted({*_ADDED[kind], *brought})


@functools.cache
def _installed() -> Mapping[str, EntryPoint]:
    """The entry points of installed packages, by "kind:name"."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}
