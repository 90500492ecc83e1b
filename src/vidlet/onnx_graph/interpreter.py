"""A graph, or the part of it between two tensors, as a module of PyTorch: for any number of pictures, and trainable.

A graph is read as what it computes of one picture (its batch is 1 or free); here T pictures are computed at once. A
value is kept as the file has it, with T in the place of a first axis of 1. Where an operator moves or splits the first
axis (the shuffles of ShuffleNet), T stands in front of the file's axes until a first axis of 1 is there again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import ModelError
from .graph import Graph
from .normal import Operation, one_picture, operations_between, shapes_of
from .operators import ALONG_AXES, BROADCAST, KNOWN, PER_ROW, SHAPED, axes_touched, resized

WEIGHTED = ("Conv", "ConvTranspose", "Gemm")


class GraphNetwork(nn.Module):
    """The tensor ``until`` of a graph as a function of its tensor ``source``.

    Matrices and kernels that ``WEIGHTED`` operators read are parameters, biases too; other constants are buffers. Both
    have the names of ``keys``. Tensors keep the graph's names, so that a heir can replace each of them (``observe``)
    and the kernels (``kernel``) by what a file in fewer bits has.

    Args:
        model: float32, of operator set 9 or later; its normalizations may stand alone or in their convolutions.
        size: of the dimensions behind the first of its inputs, where the file leaves them free.

    Raises:
        ModelError: an operator that is not read, ``until`` depends on another input, or a size that is not known.
    """

    def __init__(self, model: onnx.ModelProto, source: str, until: str, size: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.source, self.until = source, until
        single = one_picture(model, size)
        graph = Graph(single)
        self.shapes = shapes_of(single)
        self.operations = operations_between(graph, source, until, self.shapes, KNOWN)
        self.computed = {source, *(name for operation in self.operations for name in operation.outputs if name)}
        self.last = {name: i for i, operation in enumerate(self.operations) for name in operation.inputs}
        self.fronts = {operation.outputs[0]: self._front(operation) for operation in self.operations}
        self.fixed: dict[str, np.ndarray] = {}
        self.keys: dict[str, str] = {}
        self.weights = nn.ParameterDict()
        self._store(graph)

    def forward(self, x: Tensor) -> Tensor:
        """``source``'s values (T, ...) -> ``until``'s (T, ...); both as the graph has them for one picture."""
        return self.trace(x, (self.until,))[self.until]

    def trace(self, x: Tensor, keep: tuple[str, ...]) -> dict[str, Tensor]:
        """The values of several tensors."""
        values = {self.source: self.observe(self.source, x)}
        for i, operation in enumerate(self.operations):
            for name, value in zip(operation.outputs, self.run(operation, values), strict=False):
                values[name] = self.observe(name, value)
            for read in operation.inputs:
                if self.last[read] == i and read not in keep:
                    values.pop(read, None)
        return {name: values[name] for name in keep}

    def observe(self, name: str, value: Tensor) -> Tensor:
        """What a computed tensor is replaced by: here, itself."""
        return value

    def kernel(self, operation: Operation) -> tuple[Tensor, Tensor | None]:
        """Weight (O, I / groups, ...) and bias (O,) that a convolution computes with: here, the parameters."""
        weight, bias = (*operation.inputs[1:], "")[:2]
        return self.constant(weight), self.constant(bias) if bias else None

    def constant(self, name: str) -> Any:
        """A parameter, a buffer, or (what Gather takes) a NumPy array of whole numbers."""
        if name in self.fixed:
            return self.fixed[name]
        key = self.keys[name]
        return self.weights[key] if key in self.weights else getattr(self, key)

    def whole(self, name: str) -> bool:
        """Whether T stands in the place of a first axis of 1; else it stands in front."""
        return self.shapes[name][:1] == (1,)

    def add_weight(self, name: str, value: Tensor) -> None:
        """Add a parameter that the graph does not have, under a name that it could have had."""
        self.keys[name] = _key(name, self.keys.values())
        self.weights[self.keys[name]] = nn.Parameter(value)

    def _store(self, graph: Graph) -> None:
        """Take the constants that the operations read."""
        trained = {name for operation in self.operations if operation.kind in WEIGHTED for name in operation.inputs[1:]}
        read = {name for operation in self.operations for name in operation.inputs} & set(graph.constants)
        places = {operation.inputs[1] for operation in self.operations if operation.kind == "Gather"}
        for name in sorted(read):
            if name in places:
                self.fixed[name] = graph.value(name)
                continue
            tensor = torch.from_numpy(graph.value(name).astype(np.float32))
            if name in trained:
                self.add_weight(name, tensor)
            else:
                self.keys[name] = _key(name, self.keys.values())
                self.register_buffer(self.keys[name], tensor)

    def _front(self, operation: Operation) -> int:
        """How many axes stand before the file's while an operation is computed.

        Raises:
            ModelError: the operation is not read in the way in which the graph uses it.
        """
        kind = operation.kind
        computed = [name for name in operation.inputs if name in self.computed]
        for name in (*computed, *(name for name in operation.outputs[:1])):
            if 0 in self.shapes.get(name, (0,)):
                raise ModelError(f"the shape of {name} ({kind}) is not known; expected pictures of a fixed size")
        if kind not in BROADCAST and kind != "Concat" and computed != [operation.inputs[0]]:
            raise ModelError(f"{kind} ({operation.outputs[0]}): its weights are computed; expected stored ones")
        if kind != "Split" and any(name in self.last for name in operation.outputs[1:]):
            raise ModelError(f"{kind} ({operation.outputs[0]}): only the first of its results is read")
        if kind in PER_ROW or kind in ("Resize", "Upsample"):
            return int(not self.whole(computed[0]))
        ranks = {len(self.shapes[name]) for name in computed}
        outputs = [name for name in operation.outputs if name in self.shapes]
        plain = all(self.whole(name) for name in (*computed, *outputs)) and len(ranks) == 1
        rank = max(ranks)
        if kind in ALONG_AXES or kind == "Split":
            return int(not plain or 0 in axes_touched(kind, operation.options, rank))
        if kind == "MatMul" and rank < 3 and operation.inputs[1] in self.computed:
            return 1
        return int(not plain or rank != len(self.shapes[outputs[0]]))

    def run(self, operation: Operation, values: Mapping[str, Tensor]) -> list[Tensor]:
        """What one operation makes of the values of the tensors that it reads."""
        kind, output = operation.kind, operation.outputs[0]
        front = self.fronts[output]
        if kind in PER_ROW or kind in ("Resize", "Upsample"):
            x = values[operation.inputs[0]]
            made = self._per_row(operation, x.flatten(0, 1) if front else x)
            return [made.unflatten(0, (-1, x.shape[1])) if front else made]
        shape = self.shapes[output]
        if kind in SHAPED:
            return [values[operation.inputs[0]].reshape(-1, *(shape[1:] if self.whole(output) else shape))]
        rank = len(shape) if kind in BROADCAST or kind == "Expand" else 0
        inputs = [self._placed(name, front, rank, values) for name in operation.inputs]
        if kind == "Split":
            axis = operation.options["axis"]
            parts = inputs[0].split([self.shapes[name][axis] for name in operation.outputs], axis + front)
        elif kind == "Expand":
            parts = (inputs[0].expand(-1, *(shape if front else shape[1:])),)
        else:
            if kind == "Concat":
                inputs = self._repeated(operation, inputs, front)
            parts = ((ALONG_AXES.get(kind) or BROADCAST[kind])(operation.options, front, *inputs),)
        names = zip(operation.outputs, parts, strict=False)
        return [part.squeeze(1) if front and self.whole(name) else part for name, part in names]

    def _per_row(self, operation: Operation, x: Tensor) -> Tensor:
        kind = operation.kind
        if kind in ("Resize", "Upsample"):
            return resized(operation.options, x, self.shapes[operation.outputs[0]][2:])
        if kind == "Conv":
            return PER_ROW[kind](operation.options, x, *self.kernel(operation))
        return PER_ROW[kind](operation.options, x, *(self.constant(name) for name in operation.inputs[1:]))

    def _placed(self, name: str, front: int, rank: int, values: Mapping[str, Tensor]) -> Any:
        """An input with T in front of the file's axes where ``front``, and of at least ``rank`` axes of the file."""
        if not name:
            return None
        if name not in values:
            return self.constant(name)
        value = values[name]
        if not front:
            return value
        value = value.unsqueeze(1) if self.whole(name) else value
        missing = rank - len(self.shapes[name])
        return value.reshape(value.shape[0], *[1] * missing, *self.shapes[name]) if missing > 0 else value

    def _repeated(self, operation: Operation, inputs: list[Tensor], front: int) -> list[Tensor]:
        """The parts of a Concat, stored ones once for each row."""
        rows = next(part.shape[0] for part, name in zip(inputs, operation.inputs, strict=True) if name in self.computed)
        return [
            part if name in self.computed else part.expand(rows, *(part.shape if front else part.shape[1:]))
            for part, name in zip(inputs, operation.inputs, strict=True)
        ]


def _key(name: str, taken: Collection[str]) -> str:
    """A name that PyTorch takes for a tensor of a module, and that no other has."""
    key = "t_" + "".join(c if c.isalnum() else "_" for c in name)
    return key if key not in taken else f"{key}_{len(taken)}"
