"""Inception-v3, cut at any module, with the names of torchvision's state dict.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567, table 1 and
figures 5 to 7; the channels inside the modules are those of the authors' released network, which the paper leaves out.
Where an average is taken over a border, the border counts as zeros, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError, WeightsError
from .mobilenets import ConvNorm, Stack, initialize

SMALLEST = 75  # pixels a side: below, a map has no pixel left
KEPT_OUT = ("fc.", "AuxLogits.")  # the classifiers of a state dict


class ConvRelu(ConvNorm):
    """Convolution without bias, batch normalization (epsilon .001) and ReLU; kernels may be oblong."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        self.stride, self.same = stride, False
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.ReLU()


def _chain(inputs: int, *layers: tuple[int, int | tuple[int, int], int | tuple[int, int]]) -> list[ConvRelu]:
    """Convolutions behind each other, each (outputs, kernel, padding)."""
    made = []
    for outputs, kernel, padding in layers:
        made.append(ConvRelu(inputs, outputs, kernel, padding=padding))
        inputs = outputs
    return made


def _run(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1)


class Square(nn.Module):
    """Figure 5: 1x1, 5x5, two 3x3 and an average beside each other, at 35 x 35; output 224 + ``pooled`` channels."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.out_channels = 224 + pooled
        self.branch1x1 = ConvRelu(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = _chain(inputs, (48, 1, 0), (64, 5, 2))
        self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3 = _chain(
            inputs, (64, 1, 0), (96, 3, 1), (96, 3, 1)
        )
        self.branch_pool = ConvRelu(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 224 + pooled, H, W)."""
        double = _run(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        parts = [self.branch1x1(x), _run(x, self.branch5x5_1, self.branch5x5_2), double, self.branch_pool(_average(x))]
        return torch.cat(parts, 1)


class Reduce35(nn.Module):
    """35 x 35 to 17 x 17: a 3x3 of stride 2, two 3x3 before it, and a maximum; output 480 channels more."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.out_channels = inputs + 480
        self.branch3x3 = ConvRelu(inputs, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _chain(inputs, (64, 1, 0), (96, 3, 1))
        self.branch3x3dbl_3 = ConvRelu(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + 480, (H - 1) // 2, (W - 1) // 2)."""
        double = _run(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class Factored(nn.Module):
    """Figure 6: 7x7 as 1x7 and 7x1, once and twice, at 17 x 17; ``inner`` channels between them, 768 out."""

    out_channels = 768

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        wide, tall = ((1, 7), (0, 3)), ((7, 1), (3, 0))
        self.branch1x1 = ConvRelu(inputs, 192)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = _chain(
            inputs, (inner, 1, 0), (inner, *wide), (192, *tall)
        )
        double = _chain(inputs, (inner, 1, 0), (inner, *tall), (inner, *wide), (inner, *tall), (192, *wide))
        for i, layer in enumerate(double, 1):
            self.add_module(f"branch7x7dbl_{i}", layer)
        self.branch_pool = ConvRelu(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 768, H, W)."""
        once = _run(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3)
        twice = _run(x, *(self.get_submodule(f"branch7x7dbl_{i}") for i in range(1, 6)))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(_average(x))], 1)


class Reduce17(nn.Module):
    """17 x 17 to 8 x 8; output 512 channels more."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.out_channels = inputs + 512
        self.branch3x3_1, self.branch3x3_2 = ConvRelu(inputs, 192), ConvRelu(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3 = _chain(
            inputs, (192, 1, 0), (192, (1, 7), (0, 3)), (192, (7, 1), (3, 0))
        )
        self.branch7x7x3_4 = ConvRelu(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + 512, (H - 1) // 2, (W - 1) // 2)."""
        long = _run(x, self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4)
        return torch.cat([_run(x, self.branch3x3_1, self.branch3x3_2), long, functional.max_pool2d(x, 3, 2)], 1)


class Expanded(nn.Module):
    """Figure 7: 3x3 as 1x3 beside 3x1, at 8 x 8; 2048 channels out."""

    out_channels = 2048

    def __init__(self, inputs: int) -> None:
        super().__init__()
        wide, tall = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
        self.branch1x1 = ConvRelu(inputs, 320)
        self.branch3x3_1 = ConvRelu(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = ConvRelu(384, 384, *wide), ConvRelu(384, 384, *tall)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _chain(inputs, (448, 1, 0), (384, 3, 1))
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = ConvRelu(384, 384, *wide), ConvRelu(384, 384, *tall)
        self.branch_pool = ConvRelu(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2048, H, W)."""
        single, double = self.branch3x3_1(x), _run(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(_average(x))]
        return torch.cat(parts, 1)


class InceptionV3(Stack):
    """Pictures (B, 3, H, W), -1 to 1 -> the feature map at ``cut``; parameters behind the cut do not exist.

    Args:
        cut: the name of a module of torchvision's network, "Conv2d_1a_3x3" to "Mixed_7c"; the last is the whole
            network (2048 channels; averaging over the map is the caller's).
        classes: adds a linear classifier on the averaged last map, used by :meth:`logits`.
    """

    def __init__(self, cut: str = "Mixed_7c", classes: int | None = None) -> None:
        super().__init__()
        if cut not in CUTS:
            raise RecipeError(f"extractor.cut of inceptionv3 must be one of {', '.join(CUTS)}, got {cut!r}")
        if classes is not None and cut != CUTS[-1]:
            raise RecipeError(f"a classifier needs extractor.cut = {CUTS[-1]!r}, got {cut!r}")
        self.cut, self.out_channels = cut, 3
        for name in STEM:
            if name in _STEM_CONVOLUTIONS:
                outputs, kernel, stride, padding = _STEM_CONVOLUTIONS[name]
                self.append(name, ConvRelu(self.out_channels, outputs, kernel, stride, padding), outputs)
            else:
                self.append(name, nn.MaxPool2d(3, 2), self.out_channels)
            if name == cut:
                break
        else:
            self._append_modules(cut)
        self.fc = nn.Linear(self.out_channels, classes) if classes is not None else None
        self.apply(initialize)

    def _append_modules(self, cut: str) -> None:
        for name, make in _MODULES.items():
            module = make(self.out_channels)
            self.append(name, module, module.out_channels)
            if name == cut:
                break

    def logits(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) -> class logits (B, K); only with ``classes``."""
        assert self.fc is not None, "this InceptionV3 was built without a classifier"
        return self.fc(self.forward(x).mean((2, 3)))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the feature map of pictures of this size: 299 -> 8 of the whole network."""
        for name in self.parts:
            if name in HALVING:
                height, width = (height - 1) // 2, (width - 1) // 2
            elif name in SHRINKING:
                height, width = height - 2, width - 2
        return height, width


# of the stem: outputs, kernel, stride, padding
_STEM_CONVOLUTIONS = {
    "Conv2d_1a_3x3": (32, 3, 2, 0),
    "Conv2d_2a_3x3": (32, 3, 1, 0),
    "Conv2d_2b_3x3": (64, 3, 1, 1),
    "Conv2d_3b_1x1": (80, 1, 1, 0),
    "Conv2d_4a_3x3": (192, 3, 1, 0),
}
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2")
_MODULES: dict[str, Callable[[int], Square | Reduce35 | Factored | Reduce17 | Expanded]] = {
    "Mixed_5b": partial(Square, pooled=32),
    "Mixed_5c": partial(Square, pooled=64),
    "Mixed_5d": partial(Square, pooled=64),
    "Mixed_6a": Reduce35,
    "Mixed_6b": partial(Factored, inner=128),
    "Mixed_6c": partial(Factored, inner=160),
    "Mixed_6d": partial(Factored, inner=160),
    "Mixed_6e": partial(Factored, inner=192),
    "Mixed_7a": Reduce17,
    "Mixed_7b": Expanded,
    "Mixed_7c": Expanded,
}
CUTS = (*STEM, *_MODULES)
HALVING = ("Conv2d_1a_3x3", "maxpool1", "maxpool2", "Mixed_6a", "Mixed_7a")
SHRINKING = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")


def torchvision_key(key: str) -> str:
    """Name of our tensor in torchvision's network: "Mixed_5b.branch1x1.norm.bias" -> "Mixed_5b.branch1x1.bn.bias"."""
    return key.replace(".norm.", ".bn.")


def load_inception_(backbone: InceptionV3, state: Mapping[str, Tensor], where: str) -> None:
    """Fill ``backbone`` from a state dict of torchvision or of vidlet; what lies behind the cut is left out.

    Raises:
        WeightsError: a tensor is missing, has another shape, or is not known to Inception-v3.
    """
    ours = any(".norm." in key for key in state)
    name = str if ours else torchvision_key
    with torch.device("meta"):
        whole = {name(key) for key in InceptionV3().state_dict()}
    wanted = {
        k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked") and k[:3] != "fc."
    }
    missing = [name(key) for key in wanted if name(key) not in state]
    strange = [key for key in state if key not in whole and not key.startswith(KEPT_OUT)]
    if missing or strange:
        what = f"{missing[0]} is missing" if missing else f"{strange[0]} is not known"
        raise WeightsError(f"{where}: {what}: not an Inception-v3 (keys of torchvision or vidlet)")
    for key, value in wanted.items():
        if state[name(key)].shape != value.shape:
            found = tuple(state[name(key)].shape)
            raise WeightsError(f"{where}: {name(key)} has shape {found}, Inception-v3 has {tuple(value.shape)}")
    backbone.load_state_dict({key: state[name(key)] for key in wanted}, strict=False)
