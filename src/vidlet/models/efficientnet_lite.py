"""EfficientNet-Lite0, cut at any block, with TensorFlow's padding.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946,
table 1; the lite form of the authors (efficientnet/lite in the repository tensorflow/tpu) has ReLU6 in place of swish
and no squeeze and excitation, so that it loses little in integers.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import RecipeError, WeightsError
from .mobilenetv2 import ConvNorm, InvertedResidual, Stack, initialize

EPS = 1e-3  # of the batch normalizations
STEM, HEAD = 32, 1280
# (kernel, expansion, output channels, repeats, stride of the first) of the seven stages
STAGES = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1), (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)  # fmt: skip
BLOCKS = sum(stage[3] for stage in STAGES)  # 16; block10 ends the 112-channel stage (14x14 of 224x224)
CUTS = (*(f"block{i}" for i in range(BLOCKS)), "head")


class EfficientNetLite0(Stack):
    """Pictures (B, 3, H, W), -1 to 1 -> the feature map at ``cut``; parameters behind the cut do not exist.

    Args:
        cut: "block0" to "block15" (the inverted residuals), or "head" (the last 1x1 convolution's 1280 channels).
        classes: adds a linear classifier on the averaged head, used by :meth:`logits`; needs cut "head".
    """

    def __init__(self, cut: str = "head", classes: int | None = None) -> None:
        super().__init__()
        if cut not in CUTS:
            raise RecipeError(f"extractor.cut must be one of block0 ... block{BLOCKS - 1} or head, got {cut!r}")
        self.cut = cut
        self.append("stem", ConvNorm(3, STEM, 3, 2, padding="same", eps=EPS), STEM)
        for kernel, expansion, outputs, repeats, first in STAGES:
            for repeat in range(repeats):
                if cut in self.parts:
                    break
                stride = first if repeat == 0 else 1
                block = InvertedResidual(self.out_channels, outputs, stride, expansion, "same", kernel, EPS)
                self.append(f"block{len(self.parts) - 1}", block, outputs)
        if cut == "head":
            self.append("head", ConvNorm(self.out_channels, HEAD, eps=EPS), HEAD)
        self.classifier = nn.Linear(HEAD, classes) if classes is not None else None
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
