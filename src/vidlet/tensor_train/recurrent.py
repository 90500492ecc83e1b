"""LSTM and GRU whose input-to-hidden or hidden-to-hidden matrices, or both, are tensor trains.

Drop-in for ``nn.LSTM`` and ``nn.GRU`` with one layer and ``batch_first=True``: the same gate orders and state shapes.
Gates multiply the first output mode, so one train gives all of them. Source: Yang et al. 2017, arXiv:1707.01786; Cheng
et al., DEEPEYE.

The projections of all frames are one product with the train; the recurrence multiplies by the hidden matrix rebuilt
once a sequence. Under export the recurrence is one ONNX LSTM or GRU node, so the number of frames stays free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import TTLinear


class _TTRecurrent(nn.Module):
    """The two mappings of a recurrent layer, each a train or a dense matrix, and one bias for all gates."""

    gates: int

    def __init__(
        self,
        in_modes: Sequence[int],
        hidden_modes: Sequence[int],
        ranks: int | Sequence[int] | None = 4,
        hidden_ranks: int | Sequence[int] | None = None,
        *,
        clip: bool = True,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = math.prod(in_modes), math.prod(hidden_modes)
        gate_modes = (self.gates * hidden_modes[0], *hidden_modes[1:])
        self.input_map = _mapping(in_modes, gate_modes, ranks, clip)
        self.hidden_map = _mapping(hidden_modes, gate_modes, hidden_ranks, clip)
        self.bias = nn.Parameter(torch.zeros(self.gates * self.hidden_size))
        self._reset_hidden()

    def _reset_hidden(self) -> None:
        """A dense hidden matrix starts orthogonal, gate by gate; a train with variance 1 / hidden keeps the scale."""
        if isinstance(self.hidden_map, TTLinear):
            self.hidden_map.variance = 1 / self.hidden_size
            self.hidden_map.reset_parameters()
        else:
            for rows in self.hidden_map.weight.data.chunk(self.gates):
                nn.init.orthogonal_(rows)
        if isinstance(self.input_map, nn.Linear):
            nn.init.xavier_uniform_(self.input_map.weight)

    def extra_repr(self) -> str:
        """Sizes for ``print(model)``."""
        return f"{self.input_size} -> {self.hidden_size}"


class TTLSTM(_TTRecurrent):
    """LSTM with gates i, f, c (torch calls it g), o and forget bias 1.

    Args:
        in_modes: modes that multiply to the inputs a frame.
        hidden_modes: as many modes that multiply to the hidden units.
        ranks: of the input-to-hidden train; None makes it dense.
        hidden_ranks: of the hidden-to-hidden train; None, the default, leaves it dense.
        clip: as in TTLinear.

    Raises:
        RecipeError: modes or ranks that do not fit.
    """

    gates = 4

    def __init__(
        self,
        in_modes: Sequence[int],
        hidden_modes: Sequence[int],
        ranks: int | Sequence[int] | None = 4,
        hidden_ranks: int | Sequence[int] | None = None,
        *,
        clip: bool = True,
    ) -> None:
        super().__init__(in_modes, hidden_modes, ranks, hidden_ranks, clip=clip)
        nn.init.ones_(self.bias.data[self.hidden_size : 2 * self.hidden_size])

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x (B, T, D) and state (h, c), each (1, B, H), to outputs (B, T, H) and the state after the last frame.

        Without a state it starts from zeros.
        """
        if state is None:
            zeros = x.new_zeros(1, x.shape[0], self.hidden_size)
            state = (zeros, zeros)
        if torch.compiler.is_exporting():
            inputs, weights = _kernel_inputs(x, self)
            out, h, c = torch._VF.lstm(inputs, state, weights, True, 1, 0.0, False, False, True)
            return out, (h, c)
        hidden = _matrix(self.hidden_map)  # (H, 4 H)
        h, c = state[0][0], state[1][0]  # (B, H)
        outputs = []
        for frame in (self.input_map(x) + self.bias).unbind(1):  # (B, 4 H) each
            i, f, g, o = torch.addmm(frame, h, hidden).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h[None], c[None])


class TTGRU(_TTRecurrent):
    """GRU with gates r, z, n, the reset gate applied after the hidden product as in torch and cuDNN.

    ``hidden_bias`` (H,) is added inside the reset gate's product. Arguments and errors: see TTLSTM.
    """

    gates = 3

    def __init__(
        self,
        in_modes: Sequence[int],
        hidden_modes: Sequence[int],
        ranks: int | Sequence[int] | None = 4,
        hidden_ranks: int | Sequence[int] | None = None,
        *,
        clip: bool = True,
    ) -> None:
        super().__init__(in_modes, hidden_modes, ranks, hidden_ranks, clip=clip)
        self.hidden_bias = nn.Parameter(torch.zeros(self.hidden_size))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x (B, T, D) and state (1, B, H) to outputs (B, T, H) and the state after the last frame.

        Without a state it starts from zeros.
        """
        if state is None:
            state = x.new_zeros(1, x.shape[0], self.hidden_size)
        hidden_bias = torch.cat([self.hidden_bias.new_zeros(2 * self.hidden_size), self.hidden_bias])
        if torch.compiler.is_exporting():
            inputs, weights = _kernel_inputs(x, self)
            weights[3] = hidden_bias
            out, h = torch._VF.gru(inputs, state, weights, True, 1, 0.0, False, False, True)
            return out, h
        hidden, h = _matrix(self.hidden_map), state[0]  # (H, 3 H), (B, H)
        outputs = []
        for frame in (self.input_map(x) + self.bias).unbind(1):  # (B, 3 H) each
            from_hidden = torch.addmm(hidden_bias, h, hidden)  # (B, 3 H)
            r, z = (frame[:, : 2 * self.hidden_size] + from_hidden[:, : 2 * self.hidden_size]).sigmoid().chunk(2, dim=1)
            n = (frame[:, 2 * self.hidden_size :] + r * from_hidden[:, 2 * self.hidden_size :]).tanh()
            h = n + z * (h - n)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h[None]


def _mapping(
    in_modes: Sequence[int], out_modes: Sequence[int], ranks: int | Sequence[int] | None, clip: bool
) -> TTLinear | nn.Linear:
    if ranks is None:
        return nn.Linear(math.prod(in_modes), math.prod(out_modes), bias=False)
    return TTLinear(in_modes, out_modes, ranks, bias=False, clip=clip)


def _matrix(mapping: TTLinear | nn.Linear) -> Tensor:
    """The matrix (in, out) of a mapping, with gradients."""
    return mapping.matrix() if isinstance(mapping, TTLinear) else mapping.weight.t()


def _kernel_inputs(x: Tensor, layer: _TTRecurrent) -> tuple[Tensor, list[Tensor]]:
    """Inputs and weights of torch's own recurrent kernel, which multiplies its inputs with a dense matrix.

    Where the train's product and a product with the identity cost less than the dense matrix, the train comes first
    and the identity is that matrix; else the train becomes the matrix: a runtime multiplies constants when it loads.
    """
    hidden = _matrix(layer.hidden_map).t()  # (gates H, H)
    if isinstance(layer.input_map, TTLinear) and layer.input_size > 2 * layer.gates * layer.hidden_size:
        x = layer.input_map(x)  # (B, T, gates H)
        inputs = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    else:
        inputs = _matrix(layer.input_map).t()  # (gates H, D)
    return x, [inputs, hidden, layer.bias, torch.zeros_like(layer.bias)]
