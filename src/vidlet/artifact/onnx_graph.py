"""A PyTorch module as a small, clean, reproducible ONNX graph in memory.

Everything that vidlet exports goes through ``to_onnx_graph``. It works around what torch.onnx's exporter is known for:
named dynamic dimensions that a second export in one process silently fixes, external data, debug records in every
node; and it proves that what should be dynamic is.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..errors import ExportError, ModelError
from ..models.mobilenetv2 import fuse_batch_norm
from ..runtime import open_session

OPSET = 20
IR_VERSION = 10  # the highest that ONNX Runtime 1.20 reads


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
    network: nn.Module = fuse_batch_norm(module)
    cores = {name: p.detach() for name, p in network.named_parameters() if _CORE.search(name)}
    axes_of = [dict.fromkeys(dynamic.get(name, {}), torch.export.Dim.AUTO) or None for name in (*examples, *cores)]
    if cores:
        network = _CoresAsInputs(network, tuple(cores))
    shapes = _as_signature(network, axes_of)
    with _silent(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network, (*examples.values(), *cores.values()), dynamo=True, external_data=False,
                opset_version=OPSET, input_names=[*examples, *cores], output_names=list(outputs),
                dynamic_shapes=shapes, verbose=False,
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"{type(module).__name__}: cannot be exported ({_line(error)})") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.ir_version = min(model.ir_version, IR_VERSION)
    if cores:
        _store_inputs(model, cores)
    _name_dimensions(model, dynamic, type(module).__name__)
    fold_pad_into_conv(model)
    clean(model)
    onnx.checker.check_model(model)
    _run_at_other_sizes(model, examples, dynamic, type(module).__name__)
    return model


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor wherever a node reads it, in the bodies of subgraphs too."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, old, new)


_CORE = re.compile(r"(^|\.)cores\.\d+$")


class _CoresAsInputs(nn.Module):
    """A module whose cores are arguments: as constants the exporter would multiply them out and lose their names."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: Tensor) -> object:
        arguments, cores = values[: -len(self.names)], values[-len(self.names) :]
        return torch.func.functional_call(self.module, dict(zip(self.names, cores, strict=True)), arguments)


def _store_inputs(model: onnx.ModelProto, tensors: Mapping[str, Tensor]) -> None:
    """Make inputs of these names initializers, and give the others the names that they have in the module itself."""
    for tensor in model.graph.initializer:
        if tensor.name.startswith("module."):
            _rename(model.graph, tensor.name, tensor.name.removeprefix("module."))
            tensor.name = tensor.name.removeprefix("module.")
    rest = [value for value in model.graph.input if value.name not in tensors]
    del model.graph.input[:]
    model.graph.input.extend(rest)
    model.graph.initializer.extend(
        numpy_helper.from_array(tensor.cpu().contiguous().numpy(), name) for name, tensor in tensors.items()
    )


def _as_signature(module: nn.Module, shapes: list[dict[int, object] | None]) -> tuple[object, ...]:
    """Shapes as torch.export wants them: those of a ``*rest`` argument as one tuple."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    single = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:single], tuple(shapes[single:]))


def hide_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Make outputs inner tensors again, under their names: a way to name a tensor inside an exported module."""
    kept = [output for output in model.graph.output if output.name not in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def fold_pad_into_conv(model: onnx.ModelProto) -> int:
    """Move zero paddings of height and width into the convolutions that alone read them; returns how many."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    folded = []
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        after = readers.get(pad.output[0], [])
        pads = _spatial_pads(pad, constants)
        if pads is None or len(after) != 1 or after[0].op_type != "Conv" or after[0].input[0] != pad.output[0]:
            continue
        _add_pads(after[0], pads)
        after[0].input[0] = pad.input[0]
        folded.append(pad)
    for pad in folded:
        graph.node.remove(pad)
    return len(folded)


def clean(model: onnx.ModelProto) -> None:
    """Drop what a runtime does not need: debug records, inferred shapes, unused initializers, default attributes."""
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:], model.functions[:]
    graph.doc_string = model.doc_string = model.producer_version = ""
    graph.name, model.producer_name = "vidlet", "vidlet"
    used = {name for node in graph.node for name in names_read(node)} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for item in [*graph.node, *graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.type == onnx.AttributeProto.GRAPH:
                for inner in attribute.g.node:
                    inner.doc_string = ""
                    del inner.metadata_props[:]
                del attribute.g.value_info[:]


def names_read(node: onnx.NodeProto) -> set[str]:
    """Tensors that a node reads, in the bodies of its subgraphs too."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            names.update(name for inner in attribute.g.node for name in names_read(inner))
    return names


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


def _spatial_pads(pad: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> list[int] | None:
    """[top, left, bottom, right] of a constant zero padding of (B, C, H, W), else None."""
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    if mode != b"constant" or len(pad.input) < 2 or pad.input[1] not in constants or any(pad.input[3:]):
        return None
    if len(pad.input) > 2 and pad.input[2]:
        fill = constants.get(pad.input[2])
        if fill is None or numpy_helper.to_array(fill).any():
            return None
    amounts = numpy_helper.to_array(constants[pad.input[1]]).tolist()
    if len(amounts) != 8 or amounts[0] or amounts[1] or amounts[4] or amounts[5] or min(amounts) < 0:
        return None
    return [*amounts[2:4], *amounts[6:8]]


def _add_pads(conv: onnx.NodeProto, pads: list[int]) -> None:
    for attribute in list(conv.attribute):
        if attribute.name == "pads":
            pads = [a + b for a, b in zip(pads, attribute.ints, strict=True)]
            conv.attribute.remove(attribute)
        elif attribute.name == "auto_pad":
            conv.attribute.remove(attribute)
    conv.attribute.append(onnx.helper.make_attribute("pads", pads))


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
