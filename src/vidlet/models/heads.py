"""Heads: a sequence of frame features -> scores, as one function of (features, state).

Every head obeys one contract (tests/test_heads.py holds all of them to it):

    logits, next_state = head(features, state, mask)

``features`` is (B, T, *feature_shape); ``state`` maps each name of ``head.state_shapes`` to a float tensor (B, *shape),
zeros to begin with; ``mask`` (B, T), True on real frames, is for training on padded clips (real frames first). A whole
clip at once, or one frame at a time with the state handed on, gives the same logits (B, K), those after the last frame.

Sources: the recurrent classifiers, the single-frame one and their sizes are Chiche 2019 (KTH, "Video classification
with memory and computation-efficient convolutional neural network"); the grid head is ours (docs/lab-notes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..recipe import Head as HeadRecipe
from ..recipe import nearest

State = dict[str, Tensor]


class Head(nn.Module):
    """What all heads share: the names and shapes of their state, and zeros to begin with."""

    state_shapes: Mapping[str, tuple[int, ...]]

    def zero_state(self, batch: int, like: Tensor) -> State:
        """State of ``batch`` windows that have seen nothing, on the device of ``like``."""
        return {name: like.new_zeros(batch, *shape) for name, shape in self.state_shapes.items()}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """Learn the scale of the features: mean and deviation per channel, shape (feature_shape[0],)."""


class Standardize(nn.Module):
    """(x - mean) / std over the channel axis; the numbers come from the training clips, not from gradients."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, dims_after: int) -> None:
        super().__init__()
        shape = (channels, *([1] * dims_after))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and deviation (channels,) of the training features; constant channels keep the scale 1."""
        self.mean.copy_(mean.reshape(self.mean.shape))
        self.scale.copy_(torch.where(std > 1e-6, 1 / std.clamp(min=1e-6), 1.0).reshape(self.scale.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize (..., C, *spatial)."""
        return (x - self.mean) * self.scale


class Classifier(nn.Sequential):
    """Dense 512, batch norm, LeakyReLU 0.3, dropout, dense K: the last layers of Chiche 2019, Keras' constants."""

    def __init__(self, inputs: int, classes: int, units: int = 512, dropout: float = 0.5, norm_first: bool = False):
        layers: list[nn.Module] = [_keras_norm(inputs)] if norm_first else []
        if units:
            layers += [_keras_dense(inputs, units), _keras_norm(units), nn.LeakyReLU(0.3)]
        layers += [nn.Dropout(dropout), _keras_dense(units or inputs, classes)]
        super().__init__(*layers)


class SingleFrame(Head):
    """Each frame is classified alone; a clip's logits are the mean over its frames. State: their sum and count.

    In training one random frame of each clip is seen, as in Chiche 2019.
    """

    def __init__(self, feature_shape: tuple[int, ...], classes: int, units: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        size = _flat(feature_shape)
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1)
        self.classifier = Classifier(size, classes, units, dropout)
        self.state_shapes = {"sum": (classes,), "count": (1,)}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.standardize.set(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) frame by frame into mean logits (B, K)."""
        x = self.standardize(features).flatten(2)  # (B, T, D)
        if self.training and mask is not None:
            pick = (torch.rand(len(x), device=x.device) * mask.sum(1)).long()  # (B,)
            x, mask = x[torch.arange(len(x), device=x.device), pick][:, None], None
        logits = self.classifier(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, T, K)
        total, count = _add(logits, mask, state["sum"], state["count"])
        return total / count, {"sum": total, "count": count}


class Mean(Head):
    """The mean of the features over time, then a classifier. State: their sum and count."""

    def __init__(self, feature_shape: tuple[int, ...], classes: int, units: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        size = _flat(feature_shape)
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1)
        self.classifier = Classifier(size, classes, units, dropout)
        self.state_shapes = {"sum": (size,), "count": (1,)}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.standardize.set(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify the mean over time of features (B, T, *feature_shape) into logits (B, K)."""
        total, count = _add(self.standardize(features).flatten(2), mask, state["sum"], state["count"])
        return self.classifier(total / count), {"sum": total, "count": count}


class PaperRNN(Head):
    """Chiche 2019: input dropout 0.5, a recurrent layer D -> D, its last output, batch norm, then Classifier.

    ``hidden`` 0 means D. ``scale``: the thesis divides the uint8 embedding by 255; 0..6 of a ReLU6 is 0..255 there.
    State: h, and c of an LSTM.
    """

    layer: type[nn.GRU] | type[nn.LSTM]

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        hidden: int = 0,
        units: int = 512,
        dropout: float = 0.5,
        scale: float = 1 / 6,
    ) -> None:
        super().__init__()
        size = _flat(feature_shape)
        hidden = hidden or size
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.rnn = self.layer(size, hidden, batch_first=True)
        _keras_recurrent_(self.rnn)
        self.classifier = Classifier(hidden, classes, units, dropout, norm_first=True)
        self.state_shapes = dict.fromkeys(("h", "c")[: 2 if self.layer is nn.LSTM else 1], (hidden,))

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) by the layer's output at the last frame into logits (B, K).

        With a mask (training) the returned c of an LSTM is that after the padding: start from zeros then.
        """
        start = tuple(state[name].unsqueeze(0) for name in self.state_shapes)  # (1, B, H) each
        out, after = self.rnn(self.dropout(features.flatten(2) * self.scale), start if len(start) > 1 else start[0])
        last = _last(out, mask)  # (B, H)
        return self.classifier(last), {"h": last, **({"c": after[1].squeeze(0)} if len(start) > 1 else {})}


class PaperGRU(PaperRNN):
    """Chiche 2019 with a GRU, the better one of its two."""

    layer = nn.GRU


class PaperLSTM(PaperRNN):
    """Chiche 2019 with an LSTM."""

    layer = nn.LSTM


class GridGRU(Head):
    """A coarse grid, what changes in it, and a small GRU: where things are and how they move.

    features (C, G, G) -> standardize -> 1x1 to ``channels`` -> the change since the previous frame, beside the map
    itself if ``appearance`` -> linear to ``project``, ReLU -> GRU ``hidden`` -> dropout -> linear K. The first frame
    has no change: the state keeps a count. State: previous (channels, G, G), count (1,), h (hidden,).
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        channels: int = 32,
        project: int = 96,
        hidden: int = 128,
        dropout: float = 0.3,
        appearance: bool = False,
    ) -> None:
        super().__init__()
        if len(feature_shape) != 3:
            raise RecipeError(f"head grid-gru needs features (C, G, G); the extractor gives {feature_shape}: set grid")
        c, g, _ = feature_shape
        self.appearance = appearance
        self.standardize = Standardize(c, 2)
        self.reduce = nn.Linear(c, channels, bias=False)  # a 1x1 convolution
        self.project = nn.Linear(channels * g * g * (2 if appearance else 1), project)
        self.rnn = nn.GRU(project, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden, classes)
        self.state_shapes = {"previous": (g * g, channels), "count": (1,), "h": (hidden,)}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.standardize.set(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, C, G, G) into logits (B, K) after the last frame."""
        x = self.standardize(features).flatten(3).transpose(2, 3)  # (B, T, G*G, C)
        x = self.reduce(x)  # (B, T, G*G, channels)
        before = torch.cat([state["previous"].unsqueeze(1), x[:, :-1]], dim=1)
        known = (state["count"] > 0).to(x.dtype)[:, None, None]  # (B, 1, 1, 1)
        known = torch.cat([known.expand(-1, -1, *x.shape[2:]), torch.ones_like(x[:, :-1])], dim=1)
        change = (x - before) * known
        seen = torch.cat([change, x], dim=-1) if self.appearance else change
        out, _ = self.rnn(self.dropout(self.project(seen.flatten(2)).relu()), state["h"].unsqueeze(0))
        last = _last(out, mask)
        frames = x.shape[1] * torch.ones_like(state["count"]) if mask is None else mask.sum(1, keepdim=True)
        return self.classify(self.dropout(last)), {
            "previous": _last(x, mask),
            "count": state["count"] + frames,
            "h": last,
        }


HEADS: dict[str, Callable[..., Head]] = {
    "single": SingleFrame,
    "mean": Mean,
    "gru": PaperGRU,
    "lstm": PaperLSTM,
    "grid-gru": GridGRU,
}


def build_head(recipe: HeadRecipe, feature_shape: tuple[int, ...], classes: int) -> Head:
    """Build the head that a recipe names.

    Raises:
        RecipeError: unknown name or option, with the nearest valid one; features of a shape that the head cannot take.
    """
    if recipe.name not in HEADS:
        raise RecipeError(f"unknown head {recipe.name!r}{nearest(recipe.name, HEADS)}; known: {', '.join(HEADS)}")
    builder = HEADS[recipe.name]
    valid = _options(builder)
    for key, value in recipe.options.items():
        if key not in valid:
            raise RecipeError(
                f"head {recipe.name}: unknown option {key!r}{nearest(key, valid)}; known: {', '.join(valid)}"
            )
        if type(value) is not type(valid[key]) and not (isinstance(valid[key], float) and type(value) is int):
            raise RecipeError(f"head {recipe.name}: option {key} must be {type(valid[key]).__name__}, got {value!r}")
    return builder(feature_shape, classes, **recipe.options)


def _options(builder: Callable[..., Head]) -> dict[str, Any]:
    import inspect

    parameters = list(inspect.signature(builder).parameters.values())[2:]
    return {p.name: p.default for p in parameters}


def _flat(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _last(x: Tensor, mask: Tensor | None) -> Tensor:
    """The entry of x (B, T, ...) at each clip's last real frame: (B, ...)."""
    if mask is None:
        return x[:, -1]
    return x[torch.arange(len(x), device=x.device), mask.sum(1).clamp(min=1) - 1]


def _add(x: Tensor, mask: Tensor | None, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Add the real frames of x (B, T, D) to total (B, D) and their number to count (B, 1)."""
    if mask is None:
        return total + x.sum(1), count + x.shape[1]
    return total + (x * mask.unsqueeze(-1)).sum(1), count + mask.sum(1, keepdim=True)


def _keras_norm(size: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(size, eps=1e-3, momentum=0.01)


def _keras_dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _keras_recurrent_(rnn: nn.GRU | nn.LSTM) -> None:
    """Keras' initialization: Glorot uniform input weights, orthogonal recurrent ones, zero biases, forget bias 1."""
    parameters = dict(rnn.named_parameters())
    gates = 4 if isinstance(rnn, nn.LSTM) else 3
    bound = (6 / (rnn.input_size + gates * rnn.hidden_size)) ** 0.5  # Keras: fan_out spans all gates
    nn.init.uniform_(parameters["weight_ih_l0"], -bound, bound)
    for rows in parameters["weight_hh_l0"].data.chunk(gates):
        nn.init.orthogonal_(rows)
    nn.init.zeros_(parameters["bias_ih_l0"])
    nn.init.zeros_(parameters["bias_hh_l0"])
    if gates == 4:  # torch's order: i, f, g, o
        nn.init.ones_(parameters["bias_ih_l0"].data[rnn.hidden_size : 2 * rnn.hidden_size])
