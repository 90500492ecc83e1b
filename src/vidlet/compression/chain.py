"""Chains of compression steps, as recipes write them: "int8", "units:0.5+int8", "prune:0.75+int8+sparse".

A chain is data. Its steps are applied from left to right: first those that change the network (and train it on), then
those that change the graph it is exported to. A step may have an amount behind a colon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def _never(amount: float | None) -> bool:
    return False


@dataclass(frozen=True)
class StepEntry:
    """What a step of a name does, and what others have to know of it.

    Attributes:
        apply: of a step that trains, (trained, amount, material) -> trained; of any other, (graph, amount, calibration
            clips) -> graph.
        trains: whether it changes the network, and trains it on, before that is exported.
        integers: (amount) -> whether the extractor computes in integers behind it, in a way that does not depend on
            the head.
        lossless: whether no score changes.
        heads: how many heads it leaves where the chain gives no amount; 1: it does not change their number.
    """

    apply: Callable[..., Any]
    trains: bool = False
    integers: Callable[[float | None], bool] = _never
    lossless: bool = False
    heads: int = 1


Steps = Mapping[str, StepEntry]  # a task's table of steps, by name


def parse_chain(text: str, steps: Steps, also: Sequence[str] = ()) -> Chain:
    """Read a chain such as "units:0.5+int8".

    Args:
        steps: the steps of a task.
        also: further names that an error tells, of steps that are added when their name is met.

    Raises:
        RecipeError: an unknown step (with the nearest known), an amount that is no positive number, or a step that
            trains the network behind one that changes its graph.
    """
    chain: list[Step] = []
    for part in text.split("+"):
        name, colon, amount = part.strip().partition(":")
        if name not in steps:
            known = sorted({*steps, *also})
            raise RecipeError(f"compress: unknown step {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        if steps[name].trains and any(not steps[step.name].trains for step in chain):
            raise RecipeError(f"compress: {text!r}: {name} changes the network and must stand before {chain[-1].name}")
        chain.append(Step(name, _amount(text, amount) if colon else None))
    return tuple(chain)


def split_chain(chain: Chain, steps: Steps) -> tuple[Chain, Chain]:
    """The steps of a chain that train the network, and those that change its graph."""
    return (
        tuple(step for step in chain if steps[step.name].trains),
        tuple(step for step in chain if not steps[step.name].trains),
    )


def integer_steps(chain: Chain, steps: Steps) -> Chain:
    """The steps of a chain that make the extractor compute in integers, whatever the head is."""
    return tuple(step for step in chain if steps[step.name].integers(step.amount))


def apply_training(chain: Chain, steps: Steps, trained: Any, material: Any) -> Any:
    """Apply the steps of a chain that train the network."""
    for step in split_chain(chain, steps)[0]:
        trained = steps[step.name].apply(trained, step.amount, material)
    return trained


def apply_storage(chain: Chain, steps: Steps, graph: Any, clips: Sequence[Any]) -> Any:
    """Apply the steps of a chain that change the graph."""
    for step in split_chain(chain, steps)[1]:
        graph = steps[step.name].apply(graph, step.amount, clips)
    return graph


def chain_text(chain: Chain) -> str:
    """The chain as a recipe writes it."""
    return "+".join(str(step) for step in chain)


def file_name(chain: Chain, stem: str = "model") -> str:
    """The file that a chain makes: model.onnx, model.int8.onnx, model.units0.5-int8.onnx."""
    return ".".join([stem, *(["-".join(str(step).replace(":", "") for step in chain)] if chain else []), "onnx"])


def _amount(text: str, amount: str) -> float:
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise RecipeError(f"compress: {text!r}: the amount of a step is a positive number, got {amount!r}")
    return value
