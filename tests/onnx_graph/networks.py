"""Small image networks whose operators are those of the networks that people bring, and two ways to export them."""

import io
import logging
import warnings
from collections.abc import Callable, Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 20


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class Relu6(nn.Module):
    """As MobileNetV2: what is cut at 6, then averaged in both ways of saying so."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(3, 8, 3, 2), nn.ReLU6(), conv_norm(8, 8, 3, 1, 8), nn.ReLU6())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(4 * x)
        return self.head(maps.mean([2, 3])) + functional.adaptive_avg_pool2d(maps, 1).flatten(1)[:, :5]


class Residual(nn.Module):
    """As ResNet: a sum with what was before, and a projection where the stride is 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.a, self.b, self.side = conv_norm(8, 12, 3, 2), conv_norm(12, 12), conv_norm(8, 12, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (self.b(self.a(x).relu()) + self.side(x)).relu()


class Excitation(nn.Module):
    """As MobileNetV3: depthwise kernels, h-swish, and a gate a channel that is squeezed out of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = conv_norm(3, 12, 1), conv_norm(12, 12, 5, 2, 12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.depth(functional.hardswish(self.expand(x))))
        gate = self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        return x * functional.hardsigmoid(gate)


class Shuffled(nn.Module):
    """As ShuffleNet: groups, halves of the channels, and a shuffle that moves them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = conv_norm(3, 8), conv_norm(4, 4, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat([left, functional.silu(self.grouped(right))], 1)
        rows, channels, height, width = x.shape
        return x.reshape(rows, 2, channels // 2, height, width).transpose(1, 2).reshape(rows, channels, height, width)


class Pooled(nn.Module):
    """Poolings: with and without the last window, uneven paddings, averages that count the padding and that do not."""

    def forward(self, x: Tensor) -> Tensor:
        a = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        b = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 3, 2)[..., :9, :9]
        c = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        d = functional.avg_pool2d(x, 3, 2, 1)
        return torch.cat([a[..., :9, :9], b, c[..., :9, :9], d[..., :9, :9]], 1)


class Flattened(nn.Module):
    """As VGG: a map laid out as a row, linear layers, dropout, probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 16))
        self.head = nn.Sequential(nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Linear(16, 6, bias=False), nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Pyramid(nn.Module):
    """As detectors: every second pixel as a channel, a coarse map enlarged and laid beside a fine one."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.up = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 6, 3, 2, 1), nn.ConvTranspose2d(6, 4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        fine = self.fine(x)
        coarse = self.coarse(fine)
        larger = functional.interpolate(coarse, scale_factor=2, mode="nearest")
        smooth = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.cat([fine, larger, smooth, self.up(coarse)], 1)


class Activations(nn.Module):
    """Functions of one value, and numbers that the file computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.prelu = nn.Conv2d(3, 4, 3), nn.PReLU(4)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 4).reshape(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.conv(x)) * self.scale - 0.1
        x = (
            functional.elu(x)
            + functional.softplus(x)
            + functional.gelu(x)
            + x.tanh()
            + functional.hardtanh(x, -0.5, 0.7)
        )
        return (
            (x**2 + 0.5).sqrt() / x.abs().clamp(min=0.2) + torch.minimum(x, self.scale) + x.exp().amax(1, keepdim=True)
        )


class Normalized(nn.Module):
    """Normalizations that are no batch normalizations, over groups, over a map and over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.group, self.instance = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
        self.layer = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.instance(self.group(self.conv(x)).relu())
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """As ViT: patches as a sequence behind a token that the file stores, products of what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 5, 5), nn.Parameter(torch.randn(1, 1, 8))
        self.place, self.three, self.out = nn.Parameter(torch.randn(1, 17, 8)), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (T, 16, 8)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        q, k, v = self.three(x).reshape(x.shape[0], 17, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], 17, 8)[:, 0])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "relu6": Relu6,
    "residual": Residual,
    "excitation": Excitation,
    "shuffled": Shuffled,
    "pooled": Pooled,
    "flattened": Flattened,
    "pyramid": Pyramid,
    "activations": Activations,
    "normalized": Normalized,
    "attention": Attention,
}


def network(name: str) -> nn.Module:
    """One of them, with statistics of normalization other than the identity."""
    torch.manual_seed(0)
    made = NETWORKS[name]()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return made.eval()


class All(nn.Module):
    """Several of them side by side: one export for all."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({name: network(name) for name in names})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x) for part in self.networks.values())


def export(module: nn.Module, opset: int, dynamo: bool, outputs: list[str], free: bool = False) -> onnx.ModelProto:
    """A module as one of PyTorch's exporters writes it; its input is ``x``, a picture, or (``free``) any number."""
    x = torch.zeros(2 if free else 1, 3, SIDE, SIDE)
    names = {"input_names": ["x"], "output_names": outputs}
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if dynamo:
                shapes = {"x": {0: torch.export.Dim("N")}} if free else None
                program = torch.onnx.export(
                    module, (x,), dynamo=True, opset_version=opset, verbose=False, dynamic_shapes=shapes, **names
                )
                return program.model_proto
            file = io.BytesIO()
            axes = {"x": {0: "N"}} if free else None
            torch.onnx.export(module, (x,), file, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
            return onnx.load_from_string(file.getvalue())
    finally:
        logging.disable(before)
