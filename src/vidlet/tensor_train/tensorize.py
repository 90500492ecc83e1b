"""A whole trained network into tensor-train form and back, with an account of every layer."""

from __future__ import annotations

import copy
import fnmatch
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError, VidletError
from ..runtime.train_plan import TrainPlan
from .conv import TTConv2d, TTConv3d
from .convert import check_recurrent, from_conv, from_linear, from_recurrent, to_conv, to_linear, to_recurrent
from .cores import channel_modes, conv_ranks, linear_modes, linear_ranks
from .layers import TTLinear
from .recurrent import TTGRU, TTLSTM

Modes = tuple[Sequence[int], Sequence[int]]
Ranks = int | Sequence[int]
Dense = nn.Linear | nn.Conv2d | nn.Conv3d | nn.LSTM | nn.GRU
Train = TTLinear | TTConv2d | TTConv3d | TTLSTM | TTGRU
DENSE = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LSTM, nn.GRU)
TRAIN = (TTLinear, TTConv2d, TTConv3d, TTLSTM, TTGRU)


@dataclass(frozen=True)
class LayerReport:
    """What one layer gained and lost. Times are expected, not measured (runtime/train_plan.py)."""

    name: str
    kind: str  # of the new layer, or of the old one where it stays
    shape: tuple[int, ...]  # of the dense weight
    in_modes: tuple[int, ...]
    out_modes: tuple[int, ...]
    ranks: tuple[int, ...]
    parameters_before: int
    parameters_after: int
    relative_error: float  # ||W - W_tt|| / ||W||
    flops_before: int
    flops_after: int
    ms_before: float
    ms_after: float
    note: str = ""  # why it stays dense, or that it is slower

    @property
    def factor(self) -> float:
        """How many times smaller."""
        return self.parameters_before / self.parameters_after


def tensorize(
    model: nn.Module,
    select: Callable[[str, nn.Module], bool] | Sequence[str] | None = None,
    ranks: Ranks | Mapping[str, Ranks] | None = None,
    error: float | None = None,
    *,
    modes: Mapping[str, Modes] | None = None,
    hidden: bool = False,
    example: Tensor | tuple[Any, ...] | None = None,
    batch: int = 1,
    training: bool = False,
) -> tuple[nn.Module, list[LayerReport]]:
    """Replace layers of a trained network by their tensor trains; the network given is not changed.

    Args:
        model: any network; linear layers, 2-D and 3-D convolutions and one-layer LSTMs and GRUs can be replaced.
        select: patterns of layer names ("fc*"), or a function of name and layer; by default all but the first
            convolution and the last layer, which the paper leaves dense.
        ranks: a cap for all layers, or by name; without ranks and error the paper's rule.
        error: relative error of each layer that must not be exceeded; with ranks, the tighter of the two counts.
        modes: (input modes, output modes) by name; otherwise balanced factors.
        hidden: hidden-to-hidden matrices of recurrent layers too.
        example: input of the network (or a tuple of inputs): tells the predictions how many rows each layer sees.
        batch: rows a linear layer sees, where there is no example.
        training: predict training steps instead of evaluation.

    Returns:
        A copy, and a row for each selected layer. A layer that a train would not make smaller stays as it is; its row
        says so. A layer that will be slower warns, with figures.

    Raises:
        RecipeError: a name or pattern that no layer has, modes or ranks that do not fit.
    """
    if isinstance(model, DENSE):
        raise RecipeError(f"tensorize: the network is a single {type(model).__name__}; use from_linear and its kin")
    result = copy.deepcopy(model)
    layers = {name: module for name, module in result.named_modules() if isinstance(module, DENSE)}
    chosen = _choose(layers, select)
    _check_names(layers, ranks if isinstance(ranks, Mapping) else {}, modes or {})
    sizes = _seen_sizes(result, chosen, example)
    rows = []
    for name in chosen:
        wanted = ranks.get(name) if isinstance(ranks, Mapping) else ranks
        given = (modes or {}).get(name)
        try:
            train = _train(name, layers[name], given, wanted, error, hidden)
        except RecipeError as problem:
            if given is not None or select is not None:
                raise
            rows.append(_kept(name, layers[name], str(problem)))
            continue
        if _count(train) >= _count(layers[name]):
            rows.append(_kept(name, layers[name], f"stays dense: {_count(train):,} parameters as a train"))
            continue
        row = _report(name, layers[name], train, sizes.get(name, (batch, 1)), training)
        if row.note:
            warnings.warn(row.note, stacklevel=2)
        _replace(result, name, train)
        rows.append(row)
    return result, rows


def densify(model: nn.Module) -> nn.Module:
    """A copy in which every tensor-train layer is the dense layer of the same function."""
    if isinstance(model, TRAIN):
        return _dense(model)
    result = copy.deepcopy(model)
    trains = [(name, module) for name, module in result.named_modules() if isinstance(module, TRAIN)]
    inside = [name for name, module in trains if isinstance(module, TTLSTM | TTGRU)]
    for name, module in trains:
        if not any(name.startswith(f"{outer}.") for outer in inside):
            _replace(result, name, _dense(module))
    return result


def slow_trains(module: nn.Module, run: Callable[[nn.Module], object], training: bool = True) -> list[str]:
    """A sentence with figures for each train that should be slower than the dense layer it stands for.

    Args:
        module: any network; it is not run, but a copy of it without memory ("meta") is.
        run: calls that copy with inputs of the shapes it will see, on the device "meta".
        training: price whole steps, gradients and rebuilding included.
    """
    shadow = copy.deepcopy(module).to("meta").train(training)
    trains = {
        name: layer for name, layer in shadow.named_modules() if isinstance(layer, TTLinear | TTConv2d | TTConv3d)
    }
    if not trains:
        return []
    seen = _watch(trains, lambda: run(shadow))
    found = {name: slower_than_dense(trains[name], rows, training, at) for name, (rows, at) in seen.items()}
    return [f"{name}: {text}" for name, text in found.items() if text]


def slower_than_dense(layer: Train, batch: int, training: bool = False, positions: int = 1) -> str | None:
    """A sentence with figures if this layer should be slower than its dense form, else None.

    ``batch`` counts rows (B T of a sequence), for convolutions clips; ``positions`` output positions a clip.
    """
    plan = layer_plan(layer, batch, training, positions)
    if plan.us <= 1.02 * plan.dense_us:
        return None
    return (
        f"{type(layer).__name__} is slower than dense at batch {batch} in {'training' if training else 'evaluation'}: "
        f"{plan.us / 1e3:.3g} ms against {plan.dense_us / 1e3:.3g} ms expected ({plan.form})"
    )


def layer_plan(layer: Train, batch: int, training: bool = False, positions: int = 1) -> TrainPlan:
    """The plan of any tensor-train layer; that of a recurrent one is its input-to-hidden product's.

    Raises:
        VidletError: a recurrent layer whose input mapping is dense.
    """
    if isinstance(layer, TTConv2d | TTConv3d):
        return layer.plan(batch, positions, training)
    mapping = layer if isinstance(layer, TTLinear) else layer.input_map
    if not isinstance(mapping, TTLinear):
        raise VidletError(f"{type(layer).__name__}: its input mapping is dense, so there is nothing to plan")
    return mapping.plan(batch, training)


def _choose(
    layers: Mapping[str, nn.Module], select: Callable[[str, nn.Module], bool] | Sequence[str] | None
) -> list[str]:
    """Names of the layers to replace."""
    if callable(select):
        return [name for name, layer in layers.items() if select(name, layer)]
    if select is None:
        convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
        spared = {*convolutions[:1], *list(layers)[-1:]}
        return [name for name in layers if name not in spared]
    patterns = [select] if isinstance(select, str) else list(select)
    for pattern in patterns:
        if not fnmatch.filter(layers, pattern):
            raise RecipeError(f"tensorize: no layer is called {pattern!r}; there are {', '.join(layers) or 'none'}")
    return [name for name in layers if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _check_names(layers: Mapping[str, nn.Module], *given: Mapping[str, Any]) -> None:
    for name in (name for names in given for name in names):
        if name not in layers:
            raise RecipeError(f"tensorize: no layer is called {name!r}; there are {', '.join(layers) or 'none'}")


def _seen_sizes(model: nn.Module, names: Sequence[str], example: object) -> dict[str, tuple[int, int]]:
    """What each layer sees when the network runs on the example."""
    if example is None:
        return {}
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()
            layers = {name: model.get_submodule(name) for name in names}
            return _watch(layers, lambda: model(*example if isinstance(example, tuple) else (example,)))
    finally:
        model.train(was_training)


def _watch(layers: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, tuple[int, int]]:
    """(rows or clips, output positions) that each layer sees in a run."""
    seen: dict[str, tuple[int, int]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(layer, nn.Conv2d | nn.Conv3d | TTConv2d | TTConv3d):
                seen[name] = (inputs[0].shape[0], math.prod(output.shape[2:]))
            else:
                seen[name] = (math.prod(inputs[0].shape[:-1]), 1)

        return note

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _train(
    name: str, layer: nn.Module, modes: Modes | None, ranks: Ranks | None, error: float | None, hidden: bool
) -> Train:
    """The tensor train of one layer; by the paper's rules where modes or ranks are not given."""
    label = f"{name or 'model'} ({type(layer).__name__})"
    by_rule = ranks is None and error is None
    if isinstance(layer, nn.Linear):
        in_modes, out_modes = modes or linear_modes(layer.in_features, layer.out_features)
        caps = linear_ranks(in_modes, out_modes) if by_rule else ranks
        return from_linear(layer, in_modes, out_modes, caps, error, label)
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        in_modes, out_modes = modes or channel_modes(layer.in_channels, layer.out_channels)
        caps = conv_ranks(in_modes, out_modes)[1] if by_rule else ranks
        return from_conv(layer, in_modes, out_modes, caps, error, label)
    assert isinstance(layer, nn.LSTM | nn.GRU)
    check_recurrent(layer, label)
    in_modes, out_modes = modes or linear_modes(layer.input_size, layer.hidden_size)
    gates = 4 if isinstance(layer, nn.LSTM) else 3
    gate_modes = (gates * out_modes[0], *out_modes[1:])
    caps = linear_ranks(in_modes, gate_modes) if by_rule else ranks
    hidden_caps = linear_ranks(out_modes, gate_modes) if by_rule else ranks
    return from_recurrent(layer, in_modes, out_modes, caps, hidden_caps, error, label, hidden_train=hidden)


def _report(name: str, dense: nn.Module, train: Train, seen: tuple[int, int], training: bool) -> LayerReport:
    plan = layer_plan(train, seen[0], training, seen[1])
    first = train.input_map if isinstance(train, TTLSTM | TTGRU) else train
    assert isinstance(first, TTLinear | TTConv2d | TTConv3d)
    slower = slower_than_dense(train, seen[0], training, seen[1])
    return LayerReport(
        name, type(train).__name__, tuple(_weights(dense)[0].shape), first.in_modes, first.out_modes, first.ranks,
        _count(dense), _count(train), _difference(dense, train), plan.dense_flops, plan.flops, plan.dense_us / 1e3,
        plan.us / 1e3, f"{name}: {slower}" if slower else "",
    )  # fmt: skip


def _kept(name: str, layer: nn.Module, why: str) -> LayerReport:
    """The row of a layer that stays as it is."""
    count, shape = _count(layer), tuple(_weights(layer)[0].shape)
    return LayerReport(name, type(layer).__name__, shape, (), (), (), count, count, 0.0, 0, 0, 0.0, 0.0, why)


def _weights(layer: nn.Module) -> list[Tensor]:
    """The matrices or the kernel of a dense layer."""
    return [parameter.detach() for name, parameter in layer.named_parameters() if name.startswith("weight")]


def _difference(dense: nn.Module, train: Train) -> float:
    """||W - W_tt|| / ||W|| over all matrices of the layer."""
    pairs = list(zip(_weights(dense), _weights(_dense(train)), strict=True))
    lost = sum(float((a - b).double().square().sum()) for a, b in pairs)
    whole = sum(float(a.double().square().sum()) for a, _ in pairs)
    return math.sqrt(lost / whole) if whole else 0.0


def _dense(layer: nn.Module) -> nn.Module:
    if isinstance(layer, TTLinear):
        return to_linear(layer)
    if isinstance(layer, TTConv2d | TTConv3d):
        return to_conv(layer)
    assert isinstance(layer, TTLSTM | TTGRU)
    return to_recurrent(layer)


def _count(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put ``new`` wherever the layer of this name stands."""
    old = model.get_submodule(name)
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, last = path.rpartition(".")
            setattr(model.get_submodule(parent), last, new)
