"""DEEPEYE's 8-bit scheme in training: weights and activations truncated to integers, batch norm and pooling included.

Source: Cheng et al., "DEEPEYE: A Compact and Accurate Video Comprehension at Terminal Devices Compressed with
Quantization and Tensorization", equations 1 to 3:

    w_q = sign(w) min(127, max(1, floor(|w| / xi))), 0 of 0                w ~ xi w_q,  xi = max|w| / 128 a layer
    q   = min(255, floor(256 clip(a / beta, 0, 1)))                        a ~ beta q / 256

A channel of which two such products could saturate where they are added in 16 bits has a larger xi of its own
(exact.py); the paper's chip adds in more bits, x86-64 processors without VNNI do not.

Gradients pass w_q as they are, and q where a / beta lies in [0, 1]. ``beta`` is learned, one a layer; what a leaky
rectifier lets through below zero is cut off. A frame's bytes are the first layer's q.

In eval mode all is done in integers: batch norm and truncation of a channel become q = floor((sum + n) / P), with an
integer offset n and an odd integer divisor P. As P is odd, this equals (sum + n - (P - 1) / 2) / P rounded to nearest,
which never meets a tie: what QLinearConv computes (deepeye_graph.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ExportError
from .exact import PAIR
from .fake_quant import pair_sums_of, straight_through

UNIT = 256.0
EXACT = 16_383  # up to this divisor, float32 division and rounding give the floor exactly (see the tests)
WIDEST = 2**21 - 1  # a channel that moves by less than a step in so many sums is a constant


@dataclass(frozen=True)
class Pool:
    """A maximum pooling: kernel, stride, how many rows and columns of nothing stand behind; whether odd ends count."""

    kernel: int
    stride: int
    behind: int = 0
    ceil: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W), none below 0 -> pooled."""
        x = functional.pad(x, (0, self.behind, 0, self.behind)) if self.behind else x
        return functional.max_pool2d(x, self.kernel, self.stride, ceil_mode=self.ceil)


@dataclass(frozen=True)
class Layer:
    """A convolution with what follows it: batch norm, a rectifier (none: a linear layer, the last), pooling."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None
    rectified: bool = False
    pool: Pool | None = None


@dataclass(frozen=True)
class Integers:
    """A layer in integers: codes int8 (O, I, kh, kw), and q = floor((sum + offset) / divisor), both int64 (O,).

    Of the last, linear layer: value = sum * scale + bias, float32 (O,); offset and divisor are None.
    """

    codes: Tensor
    offset: Tensor | None = None
    divisor: Tensor | None = None
    scale: Tensor | None = None
    bias: Tensor | None = None


def weight_codes(weight: Tensor, unit: Tensor | None = None) -> Tensor:
    """Integers of a weight (O, I, ...), -127 to 127, none of them 0 where the weight is not: truncated, never below 1.

    No kernel on bytes can saturate: ``pair_sums(codes) <= 128``.
    """
    unit = (weight_unit(weight) if unit is None else unit).clamp(min=torch.finfo(torch.float64).tiny)
    whole = (weight.detach().double().abs() / unit).floor().clamp(1, 127)
    return (whole * weight.detach().sign()).to(weight.dtype)


def weight_unit(weight: Tensor) -> Tensor:
    """xi: what one unit of a channel's codes is worth, float64 (O, 1, ...); larger where the channel could saturate."""
    unit = torch.maximum(weight.detach().abs().max().double(), pair_sums_of(weight)) / PAIR
    return unit.reshape(-1, *[1] * (weight.ndim - 1))


def activation_codes(a: Tensor) -> Tensor:
    """Integers of activations in [0, 1], 0 to 255."""
    return (a.detach() * UNIT).floor().clamp(max=255)


class DeepeyeLayer(nn.Module):
    """A layer whose weights and outputs are truncated to 8 bits; trained behind the truncation.

    In and out go integers, as float32, and what one of them is worth. The convolution and the batch norm are those of
    the network that it was made of, copied.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        conv, norm = layer.conv, layer.norm
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ExportError(f"DEEPEYE's scheme takes convolutions padded with zeros by a number, got {conv}")
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.norm = _copy_norm(norm) if norm is not None else None
        self.bias = nn.Parameter(conv.bias.detach().clone()) if conv.bias is not None else None
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.pool = layer.pool
        self.log_beta = nn.Parameter(torch.zeros(())) if layer.rectified else None

    def conv(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution, without its bias."""
        return functional.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def linear(self, q: Tensor, unit: Tensor) -> Tensor:
        """What comes out of convolution and batch norm, with truncated weights, (B, O, H, W)."""
        xi = weight_unit(self.weight)
        weight = straight_through(self.weight, weight_codes(self.weight, xi) * xi.to(self.weight))
        y = self.conv(q * unit, weight)
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return y if self.norm is None else self.norm(y)

    def forward(self, q: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Integers (B, I, H, W) and their unit -> integers (B, O, H', W') and theirs; a linear layer: values, and 1."""
        if self.log_beta is None:
            y = self.linear(q, unit) if self.training else _dequantized(self, q, unit)
            return self._pooled(y), torch.ones(())
        beta = self.log_beta.exp()
        if not self.training:
            return self._pooled(run_integers(self, self.integers(unit), q)), (beta / UNIT).detach()
        a = (self.linear(q, unit) / beta).clamp(0, 1)
        return self._pooled(straight_through(a, activation_codes(a) / UNIT) * UNIT), beta / UNIT

    @torch.no_grad()
    def integers(self, unit: Tensor) -> Integers:
        """The layer in integers, given what one unit of its input is worth."""
        codes = weight_codes(self.weight)
        gain, shift = self._affine()
        gain = gain * weight_unit(self.weight).reshape(-1) * unit.double()  # value = gain * sum + shift
        if self.log_beta is None:
            return Integers(codes.to(torch.int8), scale=gain.float(), bias=shift.float())
        steps = UNIT / self.log_beta.double().exp()
        moving = gain.abs() * steps * WIDEST > 1
        period = 1 / (gain.abs() * steps).clamp(min=1 / WIDEST)
        divisor = torch.where(moving, (2 * ((period - 1) / 2).round() + 1).clamp(1, WIDEST), torch.ones_like(period))
        codes = codes * torch.where(moving, gain.sign(), torch.zeros_like(gain)).to(codes)[:, None, None, None]
        offset = (shift * steps).clamp(-2 * UNIT, 2 * UNIT) * divisor
        offset = torch.where(moving, offset.round(), offset.floor())
        return Integers(codes.to(torch.int8), offset.long(), divisor.long())

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Gain and shift (O,) of bias and batch norm, float64."""
        bias = self.weight.new_zeros(len(self.weight)).double() if self.bias is None else self.bias.double()
        if self.norm is None:
            return torch.ones_like(bias), bias
        assert self.norm.running_var is not None
        assert self.norm.running_mean is not None
        gain = self.norm.weight.double() / (self.norm.running_var.double() + self.norm.eps).sqrt()
        return gain, self.norm.bias.double() + gain * (bias - self.norm.running_mean.double())

    def _pooled(self, x: Tensor) -> Tensor:
        return x if self.pool is None else self.pool(x)


class DeepeyeNetwork(nn.Module):
    """A chain of convolutions, pictures -> maps, in DEEPEYE's 8 bits; trained as any module, in integers in eval mode.

    Args:
        input_unit: pictures are bytes times this (1/255, 1/256); a picture is rounded to bytes again.
    """

    def __init__(self, layers: Sequence[Layer], input_unit: float = 1 / 256) -> None:
        super().__init__()
        if not layers or any(not layer.rectified for layer in layers[:-1]):
            raise ExportError("DEEPEYE's scheme takes a chain of rectified convolutions; only the last may be linear")
        self.layers = nn.ModuleList(DeepeyeLayer(layer) for layer in layers)
        self.register_buffer("input_unit", torch.tensor(input_unit))
        self.input_unit: Tensor
        self.out_channels = layers[-1].conv.out_channels

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> maps (B, C, h, w)."""
        _, q, unit = list(self._outputs(pictures))[-1]
        return q * unit

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the maps of pictures of this size."""
        with torch.device("meta"):
            x = torch.empty(1, len(self.layers[0].weight[0]), height, width)  # type: ignore[index]
        for layer in self.layers:
            assert isinstance(layer, DeepeyeLayer)
            x = layer.conv(x, layer.weight.to("meta"))
            x = x if layer.pool is None else layer.pool(x)
        return int(x.shape[2]), int(x.shape[3])

    def _outputs(self, pictures: Tensor) -> Iterator[tuple[DeepeyeLayer, Tensor, Tensor]]:
        """Each layer, what came out of it and its unit."""
        q, unit = (pictures / self.input_unit).round().clamp(0, 255), self.input_unit
        for layer in self.layers:
            assert isinstance(layer, DeepeyeLayer)
            q, unit = layer(q, unit)
            yield layer, q, unit

    @torch.no_grad()
    def codes(self, pictures: Tensor) -> list[Tensor]:
        """Each layer's integers (B, C, h, w) as in eval mode; of a linear last layer, its values."""
        assert not self.training, "integers are those of eval mode"
        return [q if layer.log_beta is None else q.to(torch.uint8) for layer, q, _ in self._outputs(pictures)]

    @torch.no_grad()
    def rules(self) -> list[Integers]:
        """Each layer in integers."""
        found, unit = [], self.input_unit
        for layer in self.layers:
            assert isinstance(layer, DeepeyeLayer)
            found.append(layer.integers(unit))
            unit = unit if layer.log_beta is None else layer.log_beta.exp() / UNIT
        return found


def deepeye_quantize(
    backbone: nn.Module, batches: Sequence[Tensor], input_unit: float = 1 / 256, share: float = 0.999
) -> DeepeyeNetwork:
    """A network in DEEPEYE's 8 bits with the weights of a chain of convolutions, ready to be trained.

    Args:
        backbone: pictures in [0, 1] -> maps; see :func:`chain_of`. It is not changed.
        batches: pictures (B, 3, H, W) on which each layer's ``beta`` is found, one layer after the other.
        share: of the positive activations that ``beta`` covers.

    Raises:
        ExportError: the backbone is no chain, or computes something else than its layers in their order.
    """
    layers = chain_of(backbone)
    _check_chain(backbone, layers, batches[0][:2])
    network = DeepeyeNetwork(layers, input_unit).to(batches[0].device).eval()
    with torch.no_grad():
        inputs = [((batch / input_unit).round().clamp(0, 255), network.input_unit) for batch in batches]
        for layer in network.layers:
            assert isinstance(layer, DeepeyeLayer)
            if layer.log_beta is not None:
                tops = [_quantile(layer.linear(q, unit), share) for q, unit in inputs]
                layer.log_beta.copy_(torch.stack(tops).mean().clamp(min=1e-4).log())
            inputs = [layer(q, unit) for q, unit in inputs]
    return network


def chain_of(module: nn.Module) -> list[Layer]:
    """The layers of a module that is a chain, read from its parts in their order.

    A part with ``conv``, ``norm`` and ``act`` (and ``pool``: 2 halves, rounding up; 1 looks one pixel ahead) is a
    layer; so are a Conv2d and the BatchNorm2d, ReLU, ReLU6 or LeakyReLU and MaxPool2d that follow it.

    Raises:
        ExportError: another part.
    """
    layers: list[Layer] = []
    for part in _parts(module):
        before = layers[-1] if layers else None
        if isinstance(part, nn.Conv2d):
            layers.append(Layer(part))
        elif before is not None and isinstance(part, nn.BatchNorm2d) and before.norm is None and not before.rectified:
            layers[-1] = Layer(before.conv, part)
        elif before is not None and isinstance(part, nn.ReLU | nn.ReLU6 | nn.LeakyReLU) and before.pool is None:
            layers[-1] = Layer(before.conv, before.norm, True)
        elif before is not None and isinstance(part, nn.MaxPool2d) and before.rectified and before.pool is None:
            layers[-1] = Layer(before.conv, before.norm, True, _pool_of(part))
        elif before is not None and isinstance(part, Pool) and before.pool is None:
            layers[-1] = Layer(before.conv, before.norm, before.rectified, part)
        elif not isinstance(part, nn.Identity):
            raise ExportError(
                f"DEEPEYE's scheme takes a chain of convolutions; {type(part).__name__} is not part of one"
            )
    return layers


def run_integers(layer: DeepeyeLayer, rule: Integers, q: Tensor) -> Tensor:
    """q (B, I, H, W) -> floor((sum + n) / P) within 0 ... 255, before pooling."""
    assert rule.offset is not None
    assert rule.divisor is not None
    offset = rule.offset - (rule.divisor - 1) // 2
    shifted = (
        exact_sums(layer, rule.codes, q) + offset[:, None, None]
    ).float()  # int32 -> float32, as QLinearConv does
    return (shifted * (1 / rule.divisor.double()).float()[:, None, None]).round().clamp(0, 255)


def exact_sums(layer: DeepeyeLayer, codes: Tensor, q: Tensor) -> Tensor:
    """The convolution of integers in whole numbers, float64: in float32 parts whose sums stay below 2^24 (on CPU)."""
    worst = codes.double().abs().sum((2, 3)).amax(0) * 255  # of each input channel (I / groups,)
    if layer.groups > 1 or q.device.type != "cpu":  # others compute float32 convolutions by inexact transforms
        return layer.conv(q.double(), codes.double())
    parts, begin = [], 0
    while begin < len(worst):
        inside = worst[begin:].cumsum(0) < 2.0**24
        size = max(1, int(inside.sum()))
        parts.append(layer.conv(q[:, begin : begin + size], codes[:, begin : begin + size].float()).double())
        begin += size
    return torch.stack(parts).sum(0)


def _dequantized(layer: DeepeyeLayer, q: Tensor, unit: Tensor) -> Tensor:
    """The last layer's values: its integer sums, scaled."""
    rule = layer.integers(unit)
    assert rule.scale is not None
    assert rule.bias is not None
    return exact_sums(layer, rule.codes, q).float() * rule.scale[:, None, None] + rule.bias[:, None, None]


def _parts(module: nn.Module) -> Iterator[nn.Module | Pool]:
    if hasattr(module, "conv") and hasattr(module, "norm") and hasattr(module, "act"):
        for part in (module.conv, module.norm, module.act):
            assert isinstance(part, nn.Module)
            yield part
        pool = getattr(module, "pool", 0)
        if pool:
            yield Pool(2, 2, ceil=True) if pool == 2 else Pool(2, 1, behind=1)
    elif list(module.children()):
        for child in module.children():
            yield from _parts(child)
    else:
        yield module


def _pool_of(pool: nn.MaxPool2d) -> Pool:
    if not isinstance(pool.kernel_size, int) or not isinstance(pool.stride, int) or pool.padding or pool.dilation != 1:
        raise ExportError(f"DEEPEYE's scheme takes square poolings without padding, got {pool}")
    return Pool(pool.kernel_size, pool.stride, ceil=pool.ceil_mode)


@torch.no_grad()
def _check_chain(backbone: nn.Module, layers: Sequence[Layer], pictures: Tensor) -> None:
    """That the layers, one after the other, are what the module computes."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    x, slopes = pictures, iter(m for m in backbone.modules() if isinstance(m, nn.ReLU | nn.ReLU6 | nn.LeakyReLU))
    for layer in layers:
        x = layer.conv(x)
        x = layer.norm(x) if layer.norm is not None else x
        x = next(slopes)(x) if layer.rectified else x
        if layer.pool is not None:
            x = layer.pool(x - x.min()) + x.min()
    expected = backbone(pictures)
    for module, mode in modes.items():
        module.training = mode
    if x.shape != expected.shape or not torch.allclose(x, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise ExportError(f"{type(backbone).__name__} is not the chain of its convolutions in their order")


def _copy_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    copied = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    copied.load_state_dict(norm.state_dict())
    return copied


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value that ``share`` of the positive ones do not exceed, ()."""
    positive = values[values > 0].flatten()
    if not len(positive):
        return torch.ones(())
    rank = max(1, math.ceil(share * len(positive)))
    return positive.kthvalue(rank).values
