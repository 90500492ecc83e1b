"""A PyTorch module as a small, clean, reproducible ONNX graph in memory.

Everything that vidlet exports goes through ``to_onnx_graph``. It works around what torch.onnx's exporter is known for:
named dynamic dimensions that a second export in one process silently fixes, external data, debug records in every
node; and it proves that what should be dynamic is.

The exporter takes seconds, and most of what is exported differs from something before in its weights only: a search
writes hundreds of files of a dozen structures. So a module is exported with its weights as inputs, which no node can
depend on, the graph is kept for the structure (``kept_graphs``), and the weights are put in and folded for each module.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnxscript import opset20
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ExportError, ModelError
from ..models.mobilenets import fuse_batch_norm
from ..onnx_graph import Graph, clean, fold_pads
from ..progress import working
from ..runtime import open_session
from .kept_graphs import kept, structure_of

OPSET = 20
IR_VERSION = 10  # the highest that ONNX Runtime 1.20 reads


# Recurrent layers as one operator each while a module is exported.
#
# To find the shape of what ``torch.gru`` and ``torch.lstm`` return for any number of frames, torch.export traces a loop
# over the frames, though one node comes of it in the end; that is a third of the time that a small network takes. Here
# they are operators of our own, whose shapes are known, and which become one node with what orders its weights.
op: Any = opset20  # numbers given to its operators become constants, which its types do not know
ONE_LAYER = (True, 1, 0.0, False, False, True)
"""Biases, layers, dropout, training, two directions, batch first: of the layers that heads have, in eval mode."""


@torch.library.custom_op("vidlet::gru", mutates_args=())
def gru(x: Tensor, h: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H) and the last state (1, B, H) of x (B, T, D) from the state h (1, B, H)."""
    out, last = torch._VF.gru(x, h, weights, *ONE_LAYER)
    return out, last.clone()


@torch.library.custom_op("vidlet::lstm", mutates_args=())
def lstm(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, H) and the last states (1, B, H) of x (B, T, D) from the states h and c (1, B, H)."""
    out, last, cell = torch._VF.lstm(x, (h, c), weights, *ONE_LAYER)
    return out, last.clone(), cell.clone()


@gru.register_fake
def _(x: Tensor, h: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    return x.new_empty(*x.shape[:2], h.shape[2]), torch.empty_like(h)


@lstm.register_fake
def _(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(*x.shape[:2], h.shape[2]), torch.empty_like(h), torch.empty_like(c)


def _gru_node(x: Any, h: Any, weights: Sequence[Any]) -> Any:
    """Gates r, z, n as ONNX orders them: z, r, n."""
    size = h.shape[2]
    out, last = op.GRU(
        op.Transpose(x, perm=[1, 0, 2]), *_ordered(weights, size, (1, 0, 2)), initial_h=h, hidden_size=size,
        linear_before_reset=1,
    )  # fmt: skip
    return _batch_first(out), last


def _lstm_node(x: Any, h: Any, c: Any, weights: Sequence[Any]) -> Any:
    """Gates i, f, g, o as ONNX orders them: i, o, f, g."""
    size = h.shape[2]
    out, last, cell = op.LSTM(
        op.Transpose(x, perm=[1, 0, 2]), *_ordered(weights, size, (0, 3, 1, 2)), initial_h=h, initial_c=c,
        hidden_size=size,
    )  # fmt: skip
    return _batch_first(out), last, cell


def _ordered(weights: Sequence[Any], size: int, gates: Sequence[int]) -> list[Any]:
    """W (1, G H, D), R (1, G H, H) and B (1, 2 G H) of ONNX from the four weights of torch, whose gates are ordered."""
    given, hidden, *biases = (
        op.Concat(*(op.Slice(weight, [gate * size], [(gate + 1) * size], [0]) for gate in gates), axis=0)
        for weight in weights
    )
    return [op.Unsqueeze(weight, [0]) for weight in (given, hidden, op.Concat(*biases, axis=0))]


def _batch_first(out: Any) -> Any:
    """(T, 1, B, H) -> (B, T, H)."""
    return op.Transpose(op.Squeeze(out, [1]), perm=[1, 0, 2])


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.vidlet.gru.default: _gru_node,
    torch.ops.vidlet.lstm.default: _lstm_node,
}
"""What becomes of the operators, for ``torch.onnx.export``."""


class WholeRecurrent(TorchFunctionMode):
    """Within it, ``torch.gru`` and ``torch.lstm`` of one layer are the operators above."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch._VF.gru, torch._VF.lstm) and tuple(args[3:]) == ONE_LAYER:
            x, state, weights = args[:3]
            return gru(x, state, weights) if func is torch._VF.gru else lstm(x, *state, weights)
        return func(*args, **(kwargs or {}))


def to_onnx_graph(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> onnx.ModelProto:
    """Export ``module(*examples)`` under the given names; the same module gives the same bytes.

    The module is exported in eval mode, batch normalizations folded into their convolutions; it is not changed. Cores
    of tensor trains (parameters named "....cores.0") stay initializers of that name: what is multiplied from them is
    computed by nodes, which runtimes fold when they load the file.

    Args:
        examples: input name -> example, in the order of the module's arguments. Sizes of dynamic axes must be at
            least 2 and differ between dimensions of different names, or they cannot be told apart.
        outputs: names of the outputs, in the order in which the module returns them (nested tuples flattened).
        dynamic: input name -> {axis: dimension name}, as in {"frames": {0: "T"}, "state.h": {0: "N"}}.

    Raises:
        ExportError: the module fixes a dimension that should be dynamic, or cannot be exported.
    """
    for name, axes in dynamic.items():
        for axis, dimension in axes.items():
            assert examples[name].shape[axis] >= 2, f"{name}: axis {axis} ({dimension}) needs an example of 2 or more"
    network = fuse_batch_norm(module)
    weights = {name: tensor.detach() for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    model = _exported(network, weights, examples, outputs, dynamic, type(module).__name__)
    _store_inputs(model, {name: tensor for name, tensor in weights.items() if not _CORE.search(name)})
    model = onnxscript.optimizer.optimize(model)
    _store_inputs(model, {name: tensor for name, tensor in weights.items() if _CORE.search(name)})
    _name_dimensions(model, dynamic, type(module).__name__)
    fold_pads(model, "Conv", 0.0)
    clean(model)
    onnx.checker.check_model(model)
    _run_at_other_sizes(model, examples, dynamic, type(module).__name__)
    return model


def _exported(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    what: str,
) -> onnx.ModelProto:
    """The graph of a network whose weights are inputs too; the caller may change it."""

    def export() -> onnx.ModelProto:
        axes_of = [
            dict.fromkeys(dynamic.get(name, {}), torch.export.Dim.AUTO) or None for name in (*examples, *weights)
        ]
        opened: nn.Module = _WeightsAsInputs(network, tuple(weights))
        with working("write the graph"), _silent(), torch.no_grad():
            try:
                program = torch.onnx.export(
                    opened, (*examples.values(), *weights.values()), dynamo=True, external_data=False,
                    opset_version=OPSET, input_names=[*examples, *weights], output_names=list(outputs),
                    dynamic_shapes=_as_signature(opened, axes_of), verbose=False, custom_translation_table=TRANSLATIONS,
                )  # fmt: skip
            except torch.onnx.errors.OnnxExporterError as error:
                raise ExportError(f"{what}: cannot be exported ({_line(error)})") from error
        assert program is not None
        model: onnx.ModelProto = program.model_proto
        model.ir_version = min(model.ir_version, IR_VERSION)
        return model

    structure = structure_of(network)
    if structure is None:
        return export()
    shapes = tuple((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in examples.items())
    axes = tuple((name, tuple(of.items())) for name, of in dynamic.items())
    return kept(structure, (tuple(weights), shapes, tuple(outputs), axes), export)


_CORE = re.compile(r"(^|\.)cores\.\d+$")


class _WeightsAsInputs(nn.Module):
    """A module whose parameters and buffers are arguments: what is computed of them stays in the graph as nodes."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: Tensor) -> object:
        arguments, weights = values[: len(values) - len(self.names)], values[len(values) - len(self.names) :]
        with WholeRecurrent():
            return torch.func.functional_call(self.module, dict(zip(self.names, weights, strict=True)), arguments)


def _store_inputs(model: onnx.ModelProto, tensors: Mapping[str, Tensor]) -> None:
    """Make inputs of these names initializers."""
    graph = Graph(model)
    graph.set_inputs(value for value in model.graph.input if value.name not in tensors)
    for name, tensor in tensors.items():
        graph.store(name, tensor.cpu().contiguous().numpy())


def _as_signature(module: nn.Module, shapes: list[dict[int, object] | None]) -> tuple[object, ...]:
    """Shapes as torch.export wants them: those of a ``*rest`` argument as one tuple."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    single = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:single], tuple(shapes[single:]))


def _name_dimensions(model: onnx.ModelProto, dynamic: Mapping[str, Mapping[int, str]], what: str) -> None:
    """Give symbolic sizes the names wanted; a size that became a number is an error."""
    names: dict[str, str] = {}
    for value in model.graph.input:
        axes = dynamic.get(value.name, {})
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if axis not in axes:
                continue
            if not size.dim_param:
                raise ExportError(
                    f"{what}: input {value.name} has axis {axis} fixed at {size.dim_value}, "
                    f"expected it to be free ({axes[axis]})"
                )
            if names.setdefault(size.dim_param, axes[axis]) != axes[axis]:
                raise ExportError(
                    f"{what}: dimensions {names[size.dim_param]} and {axes[axis]} became one in the graph"
                )
    for value in [*model.graph.input, *model.graph.output]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = names.get(size.dim_param, size.dim_param)


def _run_at_other_sizes(
    model: onnx.ModelProto, examples: Mapping[str, Tensor], dynamic: Mapping[str, Mapping[int, str]], what: str
) -> None:
    """Run the graph with other sizes, 1 and one more than the example: a reshape may have fixed them inside."""
    if not any(dynamic.values()):
        return
    session = open_session(model, what, threads=1)
    for single in (True, False):
        feeds: dict[str, np.ndarray] = {}
        sizes: dict[str, int] = {}
        for name, example in examples.items():
            shape = list(example.shape)
            for axis, dimension in dynamic.get(name, {}).items():
                sizes[dimension] = shape[axis] = 1 if single else shape[axis] + 1
            if name in session.inputs:
                feeds[name] = np.zeros(shape, example.numpy().dtype)
        try:
            session.run(None, feeds)
        except ModelError as error:
            raise ExportError(
                f"{what}: the graph fixes a free dimension: it fails at {sizes} ({_line(error)})"
            ) from error


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter's remarks on itself (deprecations inside torch, absent torchvision) are nobody's concern here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
