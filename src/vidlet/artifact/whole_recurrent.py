"""Recurrent layers as one operator each while a module is exported.

To find the shape of what ``torch.gru`` and ``torch.lstm`` return for any number of frames, torch.export traces a loop
over the frames, though one node comes of it in the end; that is a third of the time that a small network takes. Here
they are operators of our own, whose shapes are known, and which become one node with what orders its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset20
from torch import Tensor
from torch.overrides import TorchFunctionMode

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
