"""The thesis' classifiers of a sequence of frame features: single frame, mean over time, GRU and LSTM.

Source of the classifiers and their sizes: Chiche 2019 (KTH, "Video classification with memory and computation-efficient
convolutional neural network"). The contract they obey is in head.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from .head import Head, Standardize, State, add_frames, draw_frame, flat_size, last_of


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

    ``scale``: features are multiplied by it, as there (see PaperRNN); 0: they are standardized.
    """

    def __init__(
        self, feature_shape: tuple[int, ...], classes: int, units: int = 512, dropout: float = 0.5, scale: float = 0.0
    ) -> None:
        super().__init__()
        size = flat_size(feature_shape)
        self.scale = scale
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1)
        if scale:
            self.standardize.scale.fill_(scale)
        self.classifier = Classifier(size, classes, units, dropout)
        self.state_shapes = {"sum": (classes,), "count": (1,)}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) frame by frame into mean logits (B, K)."""
        x = self.standardize(features).flatten(2)  # (B, T, D)
        if self.training and mask is not None:
            x, mask = draw_frame(x, mask), None
        logits = self.classifier(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, T, K)
        total, count = add_frames(logits, mask, state["sum"], state["count"])
        return total / count, {"sum": total, "count": count}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate; a scale that was given stays."""
        if not self.scale:
            super().calibrate(mean, std)


class Mean(Head):
    """The mean of the features over time, then a classifier. State: their sum and count."""

    def __init__(self, feature_shape: tuple[int, ...], classes: int, units: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        size = flat_size(feature_shape)
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1)
        self.classifier = Classifier(size, classes, units, dropout)
        self.state_shapes = {"sum": (size,), "count": (1,)}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify the mean over time of features (B, T, *feature_shape) into logits (B, K)."""
        total, count = add_frames(self.standardize(features).flatten(2), mask, state["sum"], state["count"])
        return self.classifier(total / count), {"sum": total, "count": count}


class PaperRNN(Head):
    """Chiche 2019: input dropout 0.5, a recurrent layer D -> D, its last output, batch norm, then Classifier.

    ``hidden`` 0 means D. ``scale``: the thesis divides the uint8 embedding by 255; 0..6 of a ReLU6 is 0..255 there.
    ``input_dropout``: below 0 it is ``dropout``; the thesis prints "0.5 %", where it must mean .5. State: h, and c of
    an LSTM.
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
        input_dropout: float = -1.0,
    ) -> None:
        super().__init__()
        size = flat_size(feature_shape)
        hidden = hidden or size
        self.scale = scale
        self.dropout = nn.Dropout(dropout if input_dropout < 0 else input_dropout)
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
        last = last_of(out, mask)  # (B, H)
        return self.classifier(last), {"h": last, **({"c": after[1].squeeze(0)} if len(start) > 1 else {})}


class PaperGRU(PaperRNN):
    """Chiche 2019 with a GRU, the better one of its two."""

    layer = nn.GRU


class PaperLSTM(PaperRNN):
    """Chiche 2019 with an LSTM."""

    layer = nn.LSTM


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
