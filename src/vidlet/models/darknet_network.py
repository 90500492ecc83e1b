"""Detectors of YOLOv3's kind as darknet's .cfg describes them: convolutions, sums, joins, and layers [yolo].

Source: Redmon and Farhadi 2018, arXiv:1804.02767; darknet's parser.c and yolo_layer.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from .darknet import Section, filled_state, number_of, option_of, parse_cfg, read_weights
from .region import MAX_LOG


class DarknetNetwork(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> rows (B, N, 5 + K): x y w h relative to the picture, objectness, classes.

    The cells of the coarsest map stand last.

    Args:
        sections: of the .cfg at ``path``.

    Raises:
        WeightsError: a section that is not known, or one that does not fit; names the line.
    """

    def __init__(self, sections: Sequence[Section], path: str | Path) -> None:
        super().__init__()
        net, *self.sections = sections
        self.input_size = (number_of(net, "height", path), number_of(net, "width", path))
        self.classes = 0
        self.layers = nn.ModuleList()
        self.reads: list[list[int]] = []  # of each section, the layers whose results it gets beside the last one
        channels: list[int] = []
        for index, section in enumerate(self.sections):
            inputs = channels[-1] if channels else 3
            where = f"{path}: line {section.line}: [{section.name}]"
            if section.name not in _LAYERS:
                raise WeightsError(f"{where} is not read; known are {', '.join(_LAYERS)}")
            self.reads.append(_places(section, index, where))
            try:
                self.layers.append(_LAYERS[section.name](section, inputs, path, self.input_size))
            except (ValueError, IndexError) as error:
                raise WeightsError(f"{where}: its numbers make no layer ({error})") from error
            if isinstance(self.layers[-1], _Yolo):
                self.classes = self.classes or self.layers[-1].classes
                if inputs != len(self.layers[-1].shares) * (5 + self.classes):
                    boxes = len(self.layers[-1].shares)
                    raise WeightsError(f"{where} gets {inputs} channels, not {boxes} times 5 + {self.classes} classes")
            joined = sum(channels[place] for place in self.reads[-1])
            convolved = section.name == "convolutional"
            channels.append(number_of(section, "filters", path) if convolved else
                            joined if section.name == "route" else inputs)  # fmt: skip
        if not self.classes:
            raise WeightsError(f"{path}: has no layer [yolo]: not a detector of YOLOv3's kind")

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        made: list[Tensor] = []
        found: list[Tensor] = []
        for layer, reads in zip(self.layers, self.reads, strict=True):
            if isinstance(layer, _Yolo):
                found.append(layer(x))
            else:
                x = layer(x, *(made[place] for place in reads))
            made.append(x)
        return torch.cat(sorted(found, key=lambda rows: -rows.shape[1]), 1)


class _Convolution(nn.Module):
    """[convolutional]: a convolution with a bias or with batch normalization, and its activation."""

    def __init__(self, section: Section, inputs: int, path: str | Path, size: tuple[int, int]) -> None:
        super().__init__()
        side, groups = int(option_of(section, "size")), int(option_of(section, "groups"))
        stride, padding = int(option_of(section, "stride")), side // 2 if option_of(section, "pad") == "1" else 0
        outputs, self.normalized = number_of(section, "filters", path), option_of(section, "batch_normalize") == "1"
        name = option_of(section, "activation")
        if name not in _ACTIVATIONS:
            raise ValueError(f"activation {name!r}; known are {', '.join(_ACTIVATIONS)}")
        self.conv = nn.Conv2d(inputs, outputs, side, stride, padding, groups=groups, bias=not self.normalized)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-5) if self.normalized else nn.Identity()
        self.act = _ACTIVATIONS[name]()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return self.act(self.norm(self.conv(x)))

    def stored(self) -> list[str]:
        """Its tensors in the order of the file."""
        norm = [f"norm.{key}" for key in ("bias", "weight", "running_mean", "running_var")]
        return [*(norm if self.normalized else ["conv.bias"]), "conv.weight"]


class _Pool(nn.Module):
    """[maxpool]: darknet pads by size - 1 in all, the smaller half in front."""

    def __init__(self, section: Section, *_: object) -> None:
        super().__init__()
        self.size, self.stride = int(section.options.get("size", 2)), int(section.options.get("stride", 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        front = (self.size - 1) // 2
        behind = self.size - 1 - front
        padded = nn.functional.pad(x, (front, behind, front, behind), value=float("-inf"))
        return nn.functional.max_pool2d(padded, self.size, self.stride)


class _Same(nn.Module):
    """[dropout] where nothing is trained."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """What it gets."""
        return x


class _Sum(_Same):
    """[shortcut]: the last result and an earlier one, added."""

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + others[0]


class _Join(_Same):
    """[route]: earlier results side by side."""

    def __init__(self, section: Section, *_: object) -> None:
        super().__init__()
        if "groups" in section.options:
            raise ValueError("groups of a [route] are not read")

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """(B, C, H, W) of each -> (B, all C, H, W)."""
        return torch.cat(others, 1)


class _Yolo(nn.Module):
    """[yolo]: a map (B, A (5 + K), h, w) -> rows (B, A h w, 5 + K) (arXiv:1804.02767, 2.1)."""

    def __init__(self, section: Section, inputs: int, path: str | Path, size: tuple[int, int]) -> None:
        super().__init__()
        self.classes = number_of(section, "classes", path)
        self.stretch = float(section.options.get("scale_x_y", 1))
        flat = [float(part) for part in section.options.get("anchors", "").split(",") if part.strip()]
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        mask = [int(part) for part in section.options.get("mask", "").split(",") if part.strip()]
        anchors = torch.tensor([pairs[place] for place in mask] if mask else pairs).reshape(-1, 2)
        self.register_buffer("shares", anchors / torch.tensor([size[1], size[0]]), persistent=False)
        self.shares: Tensor  # (A, 2), width and height of the anchors relative to the picture

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        height, width = maps.shape[2:]
        cells = maps.unflatten(1, (len(self.shares), 5 + self.classes)).permute(0, 1, 3, 4, 2)
        centers = cells[..., :2].sigmoid() * self.stretch - (self.stretch - 1) / 2
        x = (centers[..., 0] + torch.arange(width)) / width
        y = (centers[..., 1] + torch.arange(height)[:, None]) / height
        sizes = cells[..., 2:4].clamp(max=MAX_LOG).exp() * self.shares[:, None, None, :]
        return torch.cat([torch.stack([x, y], -1), sizes, cells[..., 4:].sigmoid()], -1).flatten(1, 3)


def _upsample(section: Section, *_: object) -> nn.Module:
    return nn.Upsample(scale_factor=int(section.options.get("stride", 2)), mode="nearest")


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity, "leaky": lambda: nn.LeakyReLU(0.1), "relu": nn.ReLU, "relu6": nn.ReLU6,
    "mish": nn.Mish, "swish": nn.SiLU, "logistic": nn.Sigmoid,
}  # fmt: skip
_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "convolutional": _Convolution, "shortcut": _Sum, "route": _Join, "maxpool": _Pool, "upsample": _upsample,
    "dropout": _Same, "yolo": _Yolo,
}  # fmt: skip
_READING = {"shortcut": "from", "route": "layers"}


def _places(section: Section, index: int, where: str) -> list[int]:
    """The layers whose results a section reads beside the last one; negative numbers count back from it."""
    if section.name not in _READING:
        return []
    text = section.options.get(_READING[section.name], "")
    try:
        places = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        places = []
    found = [place if place >= 0 else index + place for place in places]
    if not found or any(not 0 <= place < index for place in found):
        raise WeightsError(f"{where} reads the layers {text!r}, which are not before it")
    return found


def load_darknet_network(cfg: Path, weights: Path) -> DarknetNetwork:
    """A detector of YOLOv3's kind from its two files, in eval mode.

    Raises:
        WeightsError: either is absent, damaged, or of another network; names line or layer.
    """
    if not cfg.is_file():
        raise WeightsError(f"{weights}: its layers are described by {cfg.name}, which must lie beside it")
    network = DarknetNetwork(parse_cfg(cfg), cfg)
    state = network.state_dict()
    order = [
        (f"{index}, line {section.line} of {cfg.name}", name, tuple(state[name].shape))
        for index, (section, layer) in enumerate(zip(network.sections, network.layers, strict=True))
        if isinstance(layer, _Convolution)
        for name in (f"layers.{index}.{key}" for key in layer.stored())
    ]
    _, values = read_weights(weights)
    network.load_state_dict(filled_state(order, values, weights, f"{cfg.name} describes"), strict=False)
    return network.eval()
