"""LSTM and GRU whose input-to-hidden or hidden-to-hidden matrices, or both, are tensor trains.

Drop-in for ``nn.LSTM`` and ``nn.GRU`` with one layer and ``batch_first=True``: the same gate orders and state shapes.
Gates multiply the first output mode, so one train gives all of them. Source: Yang et al. 2017, arXiv:1707.01786; Cheng
et al., DEEPEYE.

The projections of all frames are one product with the train; the recurrence multiplies by the hidden matrix rebuilt
once a sequence. Under export the train is contracted by the plan for one frame (layers.py) and the recurrence is one
Scan node, so the number of frames stays free and the file holds cores. (ONNX's own LSTM node needs dense matrices: for
1,536 inputs and 256 units it takes 0.11 ms a frame, the train and the scan 0.04.) Where both plans are the whole matrix
that node is used, its matrices multiplied from the cores when the file is loaded: a frame costs what it costs dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .layers import TTLinear, frame_plan, planned_product, scan


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
        self._start_gates()

    def _start_gates(self) -> None:
        """Set what biases of single gates begin with."""

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

    def _project(self, x: Tensor) -> Tensor:
        """The share of the inputs x (B, T, D) in the gates: (B, T, gates H)."""
        projected: Tensor = self.input_map(x) + self.bias
        return projected

    def _as_node(self) -> bool:
        """Whether an export uses the runtime's own recurrent node: for matrices so small that no train is faster."""
        return torch.compiler.is_exporting() and _is_whole(self.input_map) and _is_whole(self.hidden_map)

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

    def _start_gates(self) -> None:
        nn.init.ones_(self.bias.data[self.hidden_size : 2 * self.hidden_size])

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, hidden_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x (B, T, D) and state (h, c), each (1, B, H), to outputs (B, T, H) and the state after the last frame.

        Without a state it starts from zeros. ``hidden_mask`` (B, H) multiplies h on its way into the gates, the same
        at every frame: dropout of the recurrence. x of batch 1 goes with a state of any batch.
        """
        if state is None:
            zeros = x.new_zeros(1, x.shape[0], self.hidden_size)
            state = (zeros, zeros)
        if self._as_node():
            weights = [
                dense_matrix(self.input_map),
                dense_matrix(self.hidden_map),
                self.bias,
                torch.zeros_like(self.bias),
            ]
            x = x.expand(state[0].shape[1], -1, -1)
            out, h, c = torch._VF.lstm(x, state, weights, True, 1, 0.0, False, False, True)
            return out, (h, c)
        hidden = _product(self.hidden_map)  # (B, H) -> (B, 4 H)

        def cell(frame: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = state  # (B, H)
            i, f, g, o = (frame + hidden(h if hidden_mask is None else h * hidden_mask)).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            return o.sigmoid() * c.tanh(), c

        outputs, (h, c) = _recur(cell, self._project(x), (state[0][0], state[1][0]))
        return outputs, (h[None], c[None])


class TTGRU(_TTRecurrent):
    """GRU with gates r, z, n, the reset gate applied after the hidden product as in torch and cuDNN.

    ``hidden_bias`` (H,) is added inside the reset gate's product. Arguments and errors: see TTLSTM.
    """

    gates = 3

    def _start_gates(self) -> None:
        self.hidden_bias = nn.Parameter(torch.zeros(self.hidden_size))

    def forward(
        self, x: Tensor, state: Tensor | None = None, hidden_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map x (B, T, D) and state (1, B, H) to outputs (B, T, H) and the state after the last frame.

        ``hidden_mask``, and where state or batch are left out: see TTLSTM.
        """
        if state is None:
            state = x.new_zeros(1, x.shape[0], self.hidden_size)
        hidden, size = _product(self.hidden_map), 2 * self.hidden_size  # (B, H) -> (B, 3 H)
        if self._as_node():
            bias = torch.cat([self.hidden_bias.new_zeros(size), self.hidden_bias])
            weights = [dense_matrix(self.input_map), dense_matrix(self.hidden_map), self.bias, bias]
            out, after = torch._VF.gru(
                x.expand(state.shape[1], -1, -1), state, weights, True, 1, 0.0, False, False, True
            )
            return out, after

        def cell(frame: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h = state[0]  # (B, H)
            from_hidden = hidden(h if hidden_mask is None else h * hidden_mask)  # (B, 3 H)
            r, z = (frame[:, :size] + from_hidden[:, :size]).sigmoid().chunk(2, dim=1)
            n = (frame[:, size:] + r * (from_hidden[:, size:] + self.hidden_bias)).tanh()
            return (n + z * (h - n),)

        outputs, (h,) = _recur(cell, self._project(x), (state[0],))
        return outputs, h[None]


def _recur(
    cell: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]], frames: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Apply ``cell(frame (B, G), state) -> state`` to frames (B, T, G): all outputs (B, T, H) and the last state."""
    if torch.compiler.is_exporting():
        return scan(cell, frames, state)
    outputs = []
    for frame in frames.unbind(1):
        state = cell(frame, state)
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state


def _mapping(
    in_modes: Sequence[int], out_modes: Sequence[int], ranks: int | Sequence[int] | None, clip: bool
) -> TTLinear | nn.Linear:
    if ranks is None:
        return nn.Linear(math.prod(in_modes), math.prod(out_modes), bias=False)
    return TTLinear(in_modes, out_modes, ranks, bias=False, clip=clip)


def _product(mapping: TTLinear | nn.Linear) -> Callable[[Tensor], Tensor]:
    """x (B, in) -> (B, out) for many calls: by the rebuilt matrix; under export by the plan for one row."""
    if isinstance(mapping, nn.Linear):
        return mapping
    if torch.compiler.is_exporting():
        cores = list(mapping.cores)
        return planned_product(cores, frame_plan(cores))
    matrix = mapping.matrix()
    return lambda x: x @ matrix


def _is_whole(mapping: TTLinear | nn.Linear) -> bool:
    """Whether one row is fastest multiplied with the whole matrix."""
    return isinstance(mapping, nn.Linear) or frame_plan(list(mapping.cores)).form == "rebuilt"


def dense_matrix(mapping: TTLinear | nn.Linear) -> Tensor:
    """The weights (out, in), as torch's recurrent kernels take them."""
    return mapping.matrix().t() if isinstance(mapping, TTLinear) else mapping.weight
