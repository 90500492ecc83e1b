"""Recurrent heads whose large matrices are tensor trains: tt-lstm, tt-gru, and the default head in this form.

The first two are Yang et al.'s (2017, arXiv:1707.01786) classifier, which is also DEEPEYE's T-RNN (Cheng et al.): one
recurrent layer on all numbers of a frame, its last state, a linear classifier. They take any features: stored grids or
vectors, a detector's map, or the pixels themselves. The contract they obey is in head.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError
from ..tensor_train import TTGRU, TTLSTM, TTLinear
from ..tensor_train.cores import factor
from .head import Head, Standardize, State, flat_size, last_of
from .own_heads import GridGRU


class TTRecurrent(Head):
    """Standardize -> dropout -> TT-LSTM or TT-GRU with recurrent dropout -> linear K. State: h, and c of an LSTM.

    Args:
        in_modes: modes of the features of a frame, flattened channels first (see ``groups``); by default as many
            factors of their number as ``out_modes`` has.
        out_modes: modes of the hidden units; the gates multiply the first one inside.
        ranks: of input-to-hidden: one number for all bonds, or the inner bonds; none: a dense matrix.
        recurrent_ranks: of hidden-to-hidden, likewise; none: a dense matrix, which starts orthogonal.
        dropout, recurrent_dropout: shares of a frame's numbers and of h that are dropped on their way into the gates,
            the same ones at all frames of a clip (as in Keras, which Yang et al. used).
        groups: channels (C, ...) are read as (groups, C / groups, ...) and the groups moved behind the positions. 1:
            channels first; C: channels last; 25 of a tiny-YOLOv2's 425 x 19 x 19: 17 x 19 x 19 x 25, DEEPEYE's modes.
            0: modes of that kind for any map, of the smallest divisor of C not below its square root (25 of 425).
        changes: what is read of a frame is its difference to the one before, every channel to scale; the first frame
            has none. Not the papers': on gestures it is what the map tells them by (docs/lab-notes.md). State: previous
            (the frame's features) and count (1,), too.
    """

    name: str
    layer: type[TTLSTM] | type[TTGRU]
    shares_frames = True

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        in_modes: tuple[int, ...] = (),
        out_modes: tuple[int, ...] = (4, 4, 4, 4),
        ranks: tuple[int, ...] = (4,),
        recurrent_ranks: tuple[int, ...] = (),
        dropout: float = 0.25,
        recurrent_dropout: float = 0.25,
        groups: int = 1,
        changes: bool = False,
    ) -> None:
        super().__init__()
        if not groups:
            groups, in_modes = map_modes(self.name, feature_shape, in_modes)
        self.groups, self.dropout, self.recurrent_dropout = groups, dropout, recurrent_dropout
        in_modes = _input_modes(self.name, feature_shape, in_modes, len(out_modes), groups)
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1)
        maps = [_ranks(bonds) if bonds else None for bonds in (ranks, recurrent_ranks)]
        self.rnn = self.layer(in_modes, out_modes, *maps)
        self.classify = nn.Linear(math.prod(out_modes), classes)
        self.recurrent = ("h", "c")[: 2 if self.layer is TTLSTM else 1]
        self.state_shapes = dict.fromkeys(self.recurrent, (math.prod(out_modes),))
        self.scale = nn.BatchNorm1d(feature_shape[0], affine=False) if changes else None
        if changes:
            self.state_shapes |= {"previous": feature_shape, "count": (1,)}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) by h at the last frame into logits (B, K).

        With a mask (training) the returned c of an LSTM is that after the padding: start from zeros then.
        """
        x = self.standardize(features)
        seen = {} if self.scale is None else _last_seen(x, state, mask)
        x = group_last(x if self.scale is None else self._changes(x, state), self.groups)  # (B, T, D)
        hidden_mask = None
        if self.training:
            x = x * functional.dropout(torch.ones_like(x[:, :1]), self.dropout)
            hidden_mask = functional.dropout(torch.ones_like(state["h"]), self.recurrent_dropout)
        start = tuple(state[name].unsqueeze(0) for name in self.recurrent)  # (1, B, H) each
        if isinstance(self.rnn, TTLSTM):
            out, after = self.rnn(x, (start[0], start[1]), hidden_mask)
            c = {"c": after[1].squeeze(0)}
        else:
            out, _ = self.rnn(x, start[0], hidden_mask)
            c = {}
        h = last_of(out, mask)  # (B, H)
        return self.classify(h), {"h": h, **c, **seen}

    def _changes(self, x: Tensor, state: State) -> Tensor:
        """Each frame less the one before, every channel to scale: (B, T, C, ...), batch 1 of x with the state's."""
        assert self.scale is not None
        x = x.expand(state["count"].shape[0], *x.shape[1:])
        before = torch.cat([state["previous"].unsqueeze(1), x[:, :-1]], dim=1)
        known = (state["count"] > 0).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))  # is there one before the first?
        known = torch.cat([known.expand(-1, -1, *x.shape[2:]), torch.ones_like(x[:, :-1])], dim=1)
        change = ((x - before) * known).flatten(0, 1)  # (B T, C, ...)
        scaled: Tensor = self.scale(change.flatten(2) if change.ndim > 2 else change)
        return scaled.reshape(x.shape)


class TTLSTMHead(TTRecurrent):
    """Yang et al.'s and DEEPEYE's TT-LSTM."""

    name, layer = "tt-lstm", TTLSTM


class TTGRUHead(TTRecurrent):
    """Yang et al.'s TT-GRU."""

    name, layer = "tt-gru", TTGRU


class TTGridGRU(GridGRU):
    """The default head with its projection and both matrices of its GRU as tensor trains, of three modes each.

    Args:
        project, hidden: see GridGRU; their modes are their three most equal factors.
        ranks: of all trains: one number for all bonds, or the two inner bonds.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        channels: int = 32,
        project: int = 96,
        hidden: int = 128,
        ranks: tuple[int, ...] = (8,),
        dropout: float = 0.3,
        appearance: bool = False,
    ) -> None:
        super().__init__(feature_shape, classes, channels, project, hidden, dropout, appearance)
        inputs = channels * flat_size(feature_shape[1:]) * (2 if appearance else 1)
        bonds = _ranks(ranks)
        self.project = TTLinear(factor(inputs, 3), factor(project, 3), bonds)
        self.rnn = TTGRU(factor(project, 3), factor(hidden, 3), bonds, bonds)


def _last_seen(x: Tensor, state: State, mask: Tensor | None) -> State:
    """The last real frame of x (B, T, ...), and how many frames were seen."""
    rows = state["count"].shape[0]
    frames = x.shape[1] * torch.ones_like(state["count"]) if mask is None else mask.sum(1, keepdim=True)
    last = last_of(x, mask)
    return {"previous": last.expand(rows, *last.shape[1:]), "count": state["count"] + frames}


def group_last(features: Tensor, groups: int) -> Tensor:
    """Flatten features (B, T, C, ...) to (B, T, D), the ``groups`` of their channels behind the positions."""
    apart = features.unflatten(2, (groups, features.shape[2] // groups))  # (B, T, groups, C / groups, ...)
    return apart.movedim(2, -1).flatten(2) if groups > 1 else apart.flatten(2)


def map_modes(head: str, feature_shape: tuple[int, ...], in_modes: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Groups g and modes (C / g, h, w, g) of a map (C, h, w), as DEEPEYE reads it; or ``in_modes``."""
    if len(feature_shape) != 3:
        raise RecipeError(f"head {head}: groups = 0 takes maps (C, h, w), features are {feature_shape}")
    channels = feature_shape[0]
    groups = next(g for g in range(1, channels + 1) if channels % g == 0 and g * g >= channels)
    return groups, in_modes or (channels // groups, *feature_shape[1:], groups)


def _input_modes(
    head: str, feature_shape: tuple[int, ...], in_modes: tuple[int, ...], count: int, groups: int
) -> tuple[int, ...]:
    """The modes of a frame's features, checked."""
    size = flat_size(feature_shape)
    if groups < 1 or feature_shape[0] % groups:
        raise RecipeError(
            f"head {head}: groups must divide the {feature_shape[0]} channels of {feature_shape}, got {groups}"
        )
    if in_modes and math.prod(in_modes) != size:
        raise RecipeError(
            f"head {head}: in_modes {list(in_modes)} multiply to {math.prod(in_modes)}, features {feature_shape} "
            f"have {size} numbers; {list(factor(size, count))} would fit"
        )
    return in_modes or factor(size, count)


def _ranks(ranks: tuple[int, ...]) -> int | tuple[int, ...]:
    """One rank stands for all bonds."""
    return ranks[0] if len(ranks) == 1 else ranks
