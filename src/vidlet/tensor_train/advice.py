"""Which trains of a network cost more than the dense layers they stand for, on this machine."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .conv import TTConv2d, TTConv3d
from .layers import TTLinear
from .machine import EPYC, Machine
from .tensorize import slower_than_dense


def slow_trains(
    module: nn.Module, run: Callable[[nn.Module], object], training: bool = True, machine: Machine = EPYC
) -> list[str]:
    """A sentence with figures for each train that the planner expects to be slower than dense.

    Args:
        module: any network; it is not run, but a copy of it without memory ("meta") is.
        run: calls that copy with inputs of the shapes it will see, on the device "meta".
        training: price whole steps, gradients and rebuilding included.
        machine: what steps cost; ``measure_machine()`` gives the constants of this one.
    """
    shadow = copy.deepcopy(module).to("meta").train(training)
    seen: dict[str, tuple[int, int]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(layer, TTLinear):
                seen[name] = (math.prod(inputs[0].shape[:-1]), 1)
            else:
                seen[name] = (inputs[0].shape[0], math.prod(output.shape[2:]))

        return note

    trains = {
        name: layer for name, layer in shadow.named_modules() if isinstance(layer, TTLinear | TTConv2d | TTConv3d)
    }
    if not trains:
        return []
    for name, layer in trains.items():
        layer.register_forward_hook(watch(name))
    run(shadow)
    found = {name: slower_than_dense(trains[name], rows, training, at, machine) for name, (rows, at) in seen.items()}
    return [f"{name}: {text}" for name, text in found.items() if text]
