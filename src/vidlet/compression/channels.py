"""Structured pruning of MobileNetV2: channels inside its blocks are removed, and the others make up for them.

Which channels: an inverted residual ends in a linear projection, so what a removed channel said can be said again, as
well as least squares allow, by those that remain. Channels go in the order of what that costs (Optimal Brain Surgeon of
a linear layer: Hassibi and Stork 1993; Frantar and Alistarh 2022, arXiv:2208.11580), and blocks share the removal so
that the summed error relative to their outputs is least for the weights saved. Then each projection is solved anew for
the inputs that it really gets (He et al. 2017, arXiv:1707.06168).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..models import MobileNetV2, fuse_batch_norm
from ..models.extractor import FrameExtractor
from ..models.mobilenets import ConvNorm, InvertedResidual
from ..training.augment import transform_frames
from .material import Material, Trained, tune

MULTIPLE = 8  # channels left are a multiple of it: whole registers in the runtime
FRAMES = 64  # on which channels are judged
PLACES = 192  # of a frame's map, drawn at random, that enter a least-squares problem
RIDGE = 1e-3  # of the mean variance, added to each channel's


@dataclass(frozen=True)
class Removal:
    """The order in which a block's channels go, and what that costs.

    Args:
        order: channels, first to go first.
        error: error[n] is the squared error of the block's output, relative to its variance, once n are gone.
        weights_each: numbers that one channel costs.
    """

    order: Tensor
    error: np.ndarray
    weights_each: int


def thin_backbone(backbone: MobileNetV2, share: float, pictures: Tensor, seed: int = 0) -> MobileNetV2:
    """A copy with this share of its inverted residuals' weights removed, whole channels at a time.

    Guarantee: at least ``share`` of the numbers in the expansions, depthwise convolutions and projections of the blocks
    that expand is gone, to a multiple of 8 channels a block (at least 8 stay); widths between blocks are as they were.
    Batch normalization is folded into the convolutions. On the pictures, each projection is the least-squares one.

    Args:
        pictures: normalized pictures (N, 3, H, W), N >= 8.

    Raises:
        RecipeError: a share that leaves less than 8 channels a block.
    """
    fused = fuse_batch_norm(backbone)
    assert isinstance(fused, MobileNetV2)
    places = torch.Generator().manual_seed(seed)
    removals = {}
    for name, block, x in _inputs(fused, pictures):
        if block.expand is not None:
            removals[name] = _removal(block, x, places)
    gone = share_out(removals, share)
    small = copy.deepcopy(fused)
    stream = teacher = pictures
    for name in fused.parts:
        whole, part = fused.get_submodule(name), small.get_submodule(name)
        wanted = _each(whole, teacher)
        if isinstance(part, InvertedResidual) and gone.get(name):
            kept = removals[name].order[gone[name] :].sort().values
            _keep_(part, kept)
            _solve_(part, stream, wanted, places)
        stream, teacher = _each(part, stream), wanted
    return small


def share_out(removals: Mapping[str, Removal], share: float) -> dict[str, int]:
    """How many channels go from each block: the least summed error that saves the share of all weights.

    Raises:
        RecipeError: not even all but 8 channels a block would save that much.
    """
    total = sum(len(r.order) * r.weights_each for r in removals.values())
    choices = {name: _choices(r) for name, r in removals.items()}
    most = sum(max(c) * removals[name].weights_each for name, c in choices.items())
    if most < share * total:
        raise RecipeError(
            f"channels: at most {most / total:.3g} of the blocks' weights can go ({MULTIPLE} channels a block stay), "
            f"got {share:g}"
        )
    low, high = 0.0, 1.0
    while _saved(removals, _at_price(removals, choices, high)) < share * total:
        high *= 2
    for _ in range(60):  # the least price of an error at which enough is saved
        price = (low + high) / 2
        if _saved(removals, _at_price(removals, choices, price)) < share * total:
            low = price
        else:
            high = price
    return _at_price(removals, choices, high)


def removal_order(weight: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Remove the inputs of a linear layer one by one, the cheapest first, the others making up for it.

    Args:
        weight: (out, in); covariance: of the inputs (in, in), positive definite.

    Returns:
        The order (in,), and the squared error of the outputs (in + 1,) after each removal: E|W x - W' x|^2 with the
        least-squares W' on what is left (both about their means).
    """
    w, inverse = weight.double().clone(), torch.linalg.inv(covariance.double())
    count = w.shape[1]
    gone = torch.zeros(count, dtype=torch.bool)
    order, error = torch.empty(count, dtype=torch.long), torch.zeros(count + 1, dtype=torch.double)
    for step in range(count):
        diagonal = inverse.diagonal()
        cost = torch.where(gone, torch.inf, w.square().sum(0) / diagonal.clamp(min=1e-300))
        one = int(cost.argmin())
        row = inverse[one] / diagonal[one]
        w -= torch.outer(w[:, one], row)
        inverse -= torch.outer(inverse[:, one], row)
        w[:, one], inverse[one], inverse[:, one], inverse[one, one] = 0, 0, 0, 1
        gone[one] = True
        order[step], error[step + 1] = one, error[step] + cost[one]
    return order, error


def _choices(removal: Removal) -> list[int]:
    """How many channels may go: so that a multiple of 8, at least 8, is left; or none."""
    count = len(removal.order)
    return [0, *(count - left for left in range((count - 1) // MULTIPLE * MULTIPLE, 0, -MULTIPLE))]


def _at_price(removals: Mapping[str, Removal], choices: Mapping[str, Sequence[int]], price: float) -> dict[str, int]:
    """Block by block what is best where a saved share of all weights is worth ``price`` of error."""
    total = sum(len(r.order) * r.weights_each for r in removals.values())

    def loss(removal: Removal, gone: int) -> float:
        return float(removal.error[gone]) - price * gone * removal.weights_each / total

    return {name: min(choices[name], key=lambda n: loss(r, n)) for name, r in removals.items()}


def _saved(removals: Mapping[str, Removal], gone: Mapping[str, int]) -> int:
    return sum(n * removals[name].weights_each for name, n in gone.items())


def _removal(block: InvertedResidual, x: Tensor, places: torch.Generator) -> Removal:
    """Judge a block's channels on its inputs x (N, C, H, W)."""
    assert block.expand is not None
    hidden, out = _sampled(block, x, _each(block, x), places)
    weight = block.project.conv.weight.detach().flatten(1)  # (out, in)
    order, error = removal_order(weight, _covariance(hidden))
    variance = float((out.double() - out.double().mean(0)).square().sum(1).mean())
    inputs = block.expand.conv.in_channels
    return Removal(order, (error / max(variance, 1e-30)).numpy(), inputs + 9 + len(weight) + 2)


def _keep_(block: InvertedResidual, kept: Tensor) -> None:
    """Replace a fused block's layers by those of the kept channels."""
    expand, depthwise, project = block.expand, block.depthwise, block.project
    assert expand is not None
    block.expand = _part(expand, kept, None, 1)
    block.depthwise = _part(depthwise, kept, None, len(kept))
    block.project = _part(project, None, kept, 1)


def _part(layer: ConvNorm, outputs: Tensor | None, inputs: Tensor | None, groups: int) -> ConvNorm:
    """A fused convolution with some of its outputs or inputs."""
    old, small = layer.conv, copy.deepcopy(layer)
    weight, bias = old.weight.detach(), old.bias
    assert bias is not None
    bias = bias.detach()
    if outputs is not None:
        weight, bias = weight[outputs], bias[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    padding = 0 if layer.same else layer.kernel // 2
    small.conv = nn.Conv2d(weight.shape[1] * groups, len(weight), layer.kernel, layer.stride, padding, groups=groups)
    small.conv.weight.data, small.conv.bias.data = weight.clone(), bias.clone()  # type: ignore[union-attr]
    return small


def _solve_(block: InvertedResidual, x: Tensor, wanted: Tensor, places: torch.Generator) -> None:
    """Give the projection the least-squares weights for the block's own inputs x and the outputs wanted of it."""
    hidden, target = _sampled(block, x, wanted - x if block.residual else wanted, places)
    hidden, target = hidden.double(), target.double()
    mean, center = hidden.mean(0), target.mean(0)
    moments = (hidden - mean).T @ (target - center) / len(hidden)  # (in, out)
    weight = torch.linalg.solve(_covariance(hidden), moments).T  # (out, in)
    conv = block.project.conv
    conv.weight.data = weight.float()[:, :, None, None]
    assert conv.bias is not None
    conv.bias.data = (center - weight @ mean).float()


def _covariance(rows: Tensor) -> Tensor:
    """Covariance (in, in) of rows (n, in), with a ridge that keeps silent channels harmless."""
    centered = rows.double() - rows.double().mean(0)
    found = centered.T @ centered / len(rows)
    return found + torch.eye(len(found)) * (RIDGE * found.diagonal().mean() + 1e-12)


@torch.no_grad()
def _sampled(
    block: InvertedResidual, x: Tensor, out: Tensor, places: torch.Generator
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Channels before the projection (n, in), and outputs (n, out) of the same random places of each picture."""
    rows, targets = [], []
    for part, result in zip(x.split(8), out.split(8), strict=True):
        hidden = part if block.expand is None else block.expand(part)
        hidden = block.depthwise(hidden).flatten(2)  # (n, in, places)
        chosen = torch.randint(hidden.shape[2], (min(PLACES, hidden.shape[2]),), generator=places)
        rows.append(hidden[:, :, chosen].transpose(1, 2).flatten(0, 1))
        targets.append(result.flatten(2)[:, :, chosen].transpose(1, 2).flatten(0, 1))
    return torch.cat(rows), torch.cat(targets)


def _inputs(backbone: MobileNetV2, pictures: Tensor) -> Iterator[tuple[str, InvertedResidual, Tensor]]:
    """Each block with what enters it."""
    x = pictures
    for name in backbone.parts:
        layer = backbone.get_submodule(name)
        if isinstance(layer, InvertedResidual):
            yield name, layer, x
        x = _each(layer, x)


@torch.no_grad()
def _each(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's outputs, a few pictures at a time."""
    return torch.cat([layer(part) for part in x.split(8)])


# A thinner extractor that gives the features of the one before: channels removed, the rest taught without labels.
#
# Source of learning features from features: Romero et al. 2015, "FitNets", arXiv:1412.6550 (here of one shape, so that
# no regressor is needed).
UPDATES = 200
BATCH = 8  # frames, of as many clips
RATE = 3e-4
CHANGES = {"zoom": 0.15, "shift": 0.05, "light": 0.15, "flip": 0.5}  # frames need no label, so they may be mirrored


def channels(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Remove channels inside the extractor's blocks, teach it the features of the one before, and tune the head on it.

    Guarantee: at least ``amount`` of the weights of the blocks that expand is gone, as whole channels; feature shape,
    input size and the head's layers are as before. The extractor has no activation ranges any more: calibrate it.

    Args:
        amount: share of the weights removed, 0.5 by default.

    Raises:
        RecipeError: an amount outside (0, 1) or more than can go, or an extractor that is no MobileNetV2.
    """
    share = 0.5 if amount is None else amount
    if not 0 < share < 1:
        raise RecipeError(f"channels: the amount is the share of weights removed, between 0 and 1, got {share:g}")
    thin = thin_extractor(trained.extractor, share, spread_frames(material.samples, FRAMES), material.seed)
    learn_features_(thin, trained.extractor, material.samples, UPDATES, seed=material.seed)
    return tune(Trained(thin, trained.head), material)


def thin_extractor(extractor: FrameExtractor, share: float, frames: np.ndarray, seed: int = 0) -> FrameExtractor:
    """A copy of an extractor whose backbone is thinner (``channels.thin_backbone``).

    Args:
        frames: uint8 (N, H, W, 3), N >= 8, on which channels are judged.

    Raises:
        RecipeError: a backbone that is no MobileNetV2, or a share that is more than can go.
    """
    if not isinstance(extractor.backbone, MobileNetV2):
        raise RecipeError(f"channels: the extractor is a {type(extractor.backbone).__name__}, known is MobileNetV2")
    small = copy.deepcopy(extractor)
    with torch.no_grad():
        pictures = extractor.normalize(torch.from_numpy(frames))
        small.backbone = thin_backbone(extractor.backbone, share, pictures, seed)
    small.ranges = None
    return small.train(extractor.training)


def learn_features_(
    pupil: FrameExtractor,
    teacher: FrameExtractor,
    clips: Sequence[np.ndarray],
    updates: int,
    rate: float = RATE,
    seed: int = 0,
) -> list[float]:
    """Train an extractor to give another's maps and features on frames; returns the loss of each update.

    The loss is the mean of two squared errors in units of the teacher's variance: of the maps, and of the features.

    Args:
        clips: frames uint8 (T, H, W, 3) each, of the extractors' size; no labels.
    """
    draw = np.random.default_rng(seed)
    pupil.train()
    teacher.eval()
    optimizer = torch.optim.AdamW([p for p in pupil.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    losses = []
    for update in range(updates):
        chosen = draw.choice(len(clips), min(BATCH, len(clips)), replace=False)
        drawn = np.stack([clips[i][int(draw.integers(len(clips[i])))] for i in chosen])
        frames = torch.from_numpy(drawn).permute(0, 3, 1, 2).float()  # (N, 3, H, W)
        pictures = (transform_frames(frames, CHANGES, draw) - teacher.zero_point) * teacher.scale
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * update / updates))
        with torch.no_grad():
            wanted = teacher.backbone(pictures)
        maps = pupil.backbone(pictures)
        loss = (relative_error(maps, wanted) + relative_error(pupil.pool(maps), teacher.pool(wanted))) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    pupil.eval()
    return losses


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of (N, C, ...) over the variance of ``wanted`` about each channel's mean."""
    others = [axis for axis in range(wanted.ndim) if axis != 1]
    spread = (wanted - wanted.mean(others, keepdim=True)).square().mean()
    return (found - wanted).square().mean() / spread.clamp(min=1e-12)


def spread_frames(clips: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Up to ``most`` frames (N, H, W, 3), evenly over the clips and within each."""
    each = max(1, -(-most // len(clips)))
    frames = [clip[np.unique(np.linspace(0, len(clip) - 1, each).astype(int))] for clip in clips]
    whole = np.concatenate(frames)
    return whole[np.unique(np.linspace(0, len(whole) - 1, most).astype(int))]
