"""Chains of compression steps, as recipes write them: "int8", "units:0.5+int8", "prune:0.75+int8+sparse".

A chain is data. Its steps are applied from left to right: first those that change the network (and train it on), then
those that change the graph it is exported to. A step may have an amount behind a colon.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import RecipeError
from ..recipe import nearest


@dataclass(frozen=True)
class Step:
    """A step's name and amount; None is the step's own default."""

    name: str
    amount: float | None = None

    def __str__(self) -> str:
        return self.name if self.amount is None else f"{self.name}:{self.amount:g}"


Chain = tuple[Step, ...]


def parse_chain(text: str, network: Collection[str], graph: Collection[str]) -> Chain:
    """Read a chain such as "units:0.5+int8".

    Args:
        network, graph: names of the steps that change the network, and of those that change its graph.

    Raises:
        RecipeError: an unknown step (with the nearest known), an amount that is no positive number, or a network step
            behind a graph step.
    """
    steps: list[Step] = []
    for part in text.split("+"):
        name, colon, amount = part.strip().partition(":")
        if name not in network and name not in graph:
            known = sorted({*network, *graph})
            raise RecipeError(f"compress: unknown step {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        if name in network and any(step.name in graph for step in steps):
            raise RecipeError(f"compress: {text!r}: {name} changes the network and must stand before {steps[-1].name}")
        steps.append(Step(name, _amount(text, amount) if colon else None))
    return tuple(steps)


def chain_text(chain: Chain) -> str:
    """The chain as a recipe writes it."""
    return "+".join(str(step) for step in chain)


def file_name(chain: Chain) -> str:
    """The file that a chain makes: model.onnx, model.int8.onnx, model.units0.5-int8.onnx."""
    return ".".join(["model", *(["-".join(str(step).replace(":", "") for step in chain)] if chain else []), "onnx"])


def _amount(text: str, amount: str) -> float:
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise RecipeError(f"compress: {text!r}: the amount of a step is a positive number, got {amount!r}")
    return value
