"""Small image networks, cut at any block, with PyTorch's or TensorFlow's padding: MobileNetV2, V1, EfficientNet-Lite0.

Source of MobileNetV2: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381,
table 2; those of the others stand beside them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError, WeightsError

# (expansion, output channels at width 1, repeats, stride of the first) of the seven stages
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
BLOCKS = sum(repeats for _, _, repeats, _ in STAGES)  # 17; block12 ends the 96-channel stage (14x14 of 224x224)
CUTS = (*(f"block{i}" for i in range(BLOCKS)), "head")
PADDINGS = ("symmetric", "same")


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor`` that is not more than 10 % below (the rule of the authors' code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding (before, after) of one axis; the odd pixel goes behind: 224, 3, 2 -> (0, 1)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalization, and ReLU6 where ``act``; after fusing, a convolution with bias."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1,
        *, groups: int = 1, act: bool = True, padding: str = "symmetric", eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.same = padding == "same" and stride > 1  # at stride 1 both paddings are alike
        pad = 0 if self.same else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps)
        self.act: nn.Module = nn.ReLU6() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        if self.same:
            top, bottom = same_pads(x.shape[2], self.kernel, self.stride)
            left, right = same_pads(x.shape[3], self.kernel, self.stride)
            x = functional.pad(x, (left, right, top, bottom))
        return self.act(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; the input is added where shapes allow."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, expansion: int, padding: str, kernel: int = 3, eps: float = 1e-5
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNorm(inputs, hidden, eps=eps) if expansion != 1 else None
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden, padding=padding, eps=eps)
        self.project = ConvNorm(hidden, outputs, act=False, eps=eps)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        hidden = x if self.expand is None else self.expand(x)
        out = self.project(self.depthwise(hidden))
        return x + out if self.residual else out


class Stack(nn.Module):
    """Layers one behind the other, each under the name that weights and cuts call it by.

    Attributes:
        parts: the names, in order.
        out_channels: of the last layer.
        classifier: on the average of the map, or None.
    """

    out_channels: int
    classifier: nn.Linear | None

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def append(self, name: str, module: nn.Module, outputs: int) -> None:
        """Add a layer that gives so many channels."""
        self.add_module(name, module)
        self.parts.append(name)
        self.out_channels = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Normalized pictures (B, 3, H, W) -> feature map (B, C, H', W')."""
        for name in self.parts:
            x = self.get_submodule(name)(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Normalized pictures (B, 3, H, W) -> class logits (B, K); only with ``classes``."""
        assert self.classifier is not None, f"this {type(self).__name__} was built without a classifier"
        return self.classifier(self.forward(x).mean((2, 3)))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the feature map of pictures of this size; every stride 2 halves, rounding up."""
        for name in self.parts:
            layer = self.get_submodule(name)
            first = getattr(layer, "depthwise", layer)
            assert isinstance(first, ConvNorm)
            height, width = -(-height // first.stride), -(-width // first.stride)
        return height, width


class MobileNetV2(Stack):
    """Pictures (B, 3, H, W) -> the feature map at ``cut``; parameters behind the cut do not exist.

    Args:
        width: multiplies all channels (0.35 to 1.4 in the paper); the 1280 of the head grows with it, never shrinks.
        cut: "block0" to "block16" (the inverted residuals), or "head" (the last 1x1 convolution's 1280 channels;
            averaging over the map is the caller's).
        padding: "symmetric", as PyTorch pads, or "same", as TensorFlow does (differs at stride 2).
        classes: adds a linear classifier on the averaged head, used by :meth:`logits`; needs cut "head".
    """

    def __init__(
        self, width: float = 1.0, cut: str = "head", padding: str = "symmetric", classes: int | None = None
    ) -> None:
        super().__init__()
        if cut not in CUTS:
            raise RecipeError(f"extractor.cut must be one of block0 ... block{BLOCKS - 1} or head, got {cut!r}")
        _check_options(width, padding, classes, cut, "head")
        self.width, self.cut, self.padding = width, cut, padding
        self.append("stem", ConvNorm(3, round_channels(32 * width), 3, 2, padding=padding), round_channels(32 * width))
        for name, outputs, stride, expansion in _plan(width):
            self.append(name, InvertedResidual(self.out_channels, outputs, stride, expansion, padding), outputs)
            if name == cut:
                break
        if cut == "head":
            outputs = round_channels(1280 * max(1.0, width))
            self.append("head", ConvNorm(self.out_channels, outputs, padding=padding), outputs)
        self.classifier = nn.Linear(self.out_channels, classes) if classes is not None else None
        self.apply(initialize)


def fuse_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose batch normalizations are folded into their convolutions.

    The copy computes the same function as ``model.eval()``: w' = w g / sqrt(v + e), b' = b - m g / sqrt(v + e).
    """
    fused = copy.deepcopy(model).eval()
    for layer in fused.modules():
        if not isinstance(layer, ConvNorm) or not isinstance(layer.norm, nn.BatchNorm2d):
            continue
        norm = layer.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = norm.bias.detach().double() - norm.running_mean.double() * scale
        layer.conv.weight.data = (layer.conv.weight.detach().double() * scale[:, None, None, None]).float()
        layer.conv.bias = nn.Parameter(bias.float())
        layer.norm = nn.Identity()
    return fused


def _check_options(width: float, padding: str, classes: int | None, cut: str, last: str) -> None:
    if padding not in PADDINGS:
        raise RecipeError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    if not 0.1 <= width <= 4:
        raise RecipeError(f"extractor.width must be between 0.1 and 4, got {width}")
    if classes is not None and cut != last:
        raise RecipeError(f"a classifier needs extractor.cut = {last!r}, got {cut!r}")


def _plan(width: float) -> list[tuple[str, int, int, int]]:
    """Name, output channels, stride and expansion of the 17 blocks."""
    blocks: list[tuple[str, int, int, int]] = []
    for expansion, channels, repeats, stride in STAGES:
        for repeat in range(repeats):
            name = f"block{len(blocks)}"
            blocks.append((name, round_channels(channels * width), stride if repeat == 0 else 1, expansion))
    return blocks


def initialize(module: nn.Module) -> None:
    """Random weights of one layer: convolutions by He et al. 2015, arXiv:1502.01852; small linear ones."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


# MobileNetV1, cut at any block, with PyTorch's or TensorFlow's padding: the smallest pretrained extractors.
#
# Source: Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
# arXiv:1704.04861, table 1.
# (output channels at width 1, stride) of the thirteen separable convolutions; block10 ends the 512-channel stage
V1_STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
V1_BLOCKS = len(V1_STAGES)
V1_CUTS = tuple(f"block{i}" for i in range(V1_BLOCKS))


def scaled(channels: int, width: float) -> int:
    """Channels times the width, rounded down, at least 8 (the rule of the authors' code)."""
    return max(8, int(channels * width))


class Separable(nn.Module):
    """3x3 depthwise convolution, then a 1x1 convolution, each with batch normalization and ReLU6."""

    residual = False

    def __init__(self, inputs: int, outputs: int, stride: int, padding: str) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, stride, groups=inputs, padding=padding)
        self.pointwise = ConvNorm(inputs, outputs, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        return self.pointwise(self.depthwise(x))


class MobileNetV1(Stack):
    """Pictures (B, 3, H, W) -> the feature map at ``cut``; parameters behind the cut do not exist.

    Args:
        width: multiplies all channels; ImageNet weights exist for 0.25, 0.5, 0.75 and 1.
        cut: "block0" to "block12" (the separable convolutions); "block12" is the whole network before its average.
        padding: "symmetric", as PyTorch pads, or "same", as TensorFlow does (differs at stride 2).
        classes: adds a linear classifier on the averaged last map, used by :meth:`logits`; needs cut "block12".
    """

    def __init__(
        self, width: float = 1.0, cut: str = V1_CUTS[-1], padding: str = "symmetric", classes: int | None = None
    ) -> None:
        super().__init__()
        if cut not in V1_CUTS:
            raise RecipeError(
                f"extractor.cut of mobilenetv1 must be one of block0 ... {V1_CUTS[-1]} (the whole network), got {cut!r}"
            )
        _check_options(width, padding, classes, cut, V1_CUTS[-1])
        self.width, self.cut, self.padding = width, cut, padding
        self.append("stem", ConvNorm(3, scaled(32, width), 3, 2, padding=padding), scaled(32, width))
        for name, (channels, stride) in zip(V1_CUTS, V1_STAGES, strict=True):
            outputs = scaled(channels, width)
            self.append(name, Separable(self.out_channels, outputs, stride, padding), outputs)
            if name == cut:
                break
        self.classifier = nn.Linear(self.out_channels, classes) if classes is not None else None
        self.apply(initialize)


# EfficientNet-Lite0, cut at any block, with TensorFlow's padding.
#
# Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946,
# table 1; the lite form of the authors (efficientnet/lite in the repository tensorflow/tpu) has ReLU6 in place of swish
# and no squeeze and excitation, so that it loses little in integers.
LITE_EPS = 1e-3  # of the batch normalizations
LITE_STEM, LITE_HEAD = 32, 1280
# (kernel, expansion, output channels, repeats, stride of the first) of the seven stages
LITE_STAGES = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1), (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)  # fmt: skip
LITE_BLOCKS = sum(stage[3] for stage in LITE_STAGES)  # 16; block10 ends the 112-channel stage (14x14 of 224x224)
LITE_CUTS = (*(f"block{i}" for i in range(LITE_BLOCKS)), "head")


class EfficientNetLite0(Stack):
    """Pictures (B, 3, H, W), -1 to 1 -> the feature map at ``cut``; parameters behind the cut do not exist.

    Args:
        cut: "block0" to "block15" (the inverted residuals), or "head" (the last 1x1 convolution's 1280 channels).
        classes: adds a linear classifier on the averaged head, used by :meth:`logits`; needs cut "head".
    """

    def __init__(self, cut: str = "head", classes: int | None = None) -> None:
        super().__init__()
        if cut not in LITE_CUTS:
            raise RecipeError(f"extractor.cut must be one of block0 ... block{LITE_BLOCKS - 1} or head, got {cut!r}")
        self.cut = cut
        self.append("stem", ConvNorm(3, LITE_STEM, 3, 2, padding="same", eps=LITE_EPS), LITE_STEM)
        for kernel, expansion, outputs, repeats, first in LITE_STAGES:
            for repeat in range(repeats):
                if cut in self.parts:
                    break
                stride = first if repeat == 0 else 1
                block = InvertedResidual(self.out_channels, outputs, stride, expansion, "same", kernel, LITE_EPS)
                self.append(f"block{len(self.parts) - 1}", block, outputs)
        if cut == "head":
            self.append("head", ConvNorm(self.out_channels, LITE_HEAD, eps=LITE_EPS), LITE_HEAD)
        self.classifier = nn.Linear(LITE_HEAD, classes) if classes is not None else None
        self.apply(initialize)


def load_efficientnet_(backbone: EfficientNetLite0, state: Mapping[str, Tensor], where: str) -> None:
    """Fill ``backbone`` from a state dict with the names of efficientnet_lite_pytorch; what lies behind is left out.

    Raises:
        WeightsError: a tensor is missing or has another shape; ``backbone`` is then untouched.
    """
    wanted = {key: value for key, value in backbone.state_dict().items() if not key.endswith("num_batches_tracked")}
    names = {key: _published_name(key) for key in wanted}
    for key, name in names.items():
        found = tuple(state[name].shape) if name in state else None
        if found != tuple(wanted[key].shape):
            raise WeightsError(
                f"{where}: {name} {'is missing' if found is None else f'has shape {found}'}; a state dict of "
                f"EfficientNet-Lite0 holds it as {tuple(wanted[key].shape)}"
            )
    backbone.load_state_dict({key: state[name] for key, name in names.items()}, strict=False)


def _published_name(key: str) -> str:
    """ "block1.expand.norm.bias" -> "_blocks.1._bn0.bias", as efficientnet_lite_pytorch 0.1.0 names it."""
    if key.startswith("classifier."):
        return key.replace("classifier", "_fc")
    part, *layer, kind, tensor = key.split(".")
    if part in ("stem", "head"):
        return f"_conv_{part}.{tensor}" if kind == "conv" else f"_bn{int(part == 'head')}.{tensor}"
    norm = {"expand": 0, "depthwise": 1, "project": 2}[layer[0]]
    name = f"_{layer[0]}_conv" if kind == "conv" else f"_bn{norm}"
    return f"_blocks.{part.removeprefix('block')}.{name}.{tensor}"
