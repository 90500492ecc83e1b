"""Quantization-aware training as steps: the extractor to its integer kernels, the head to 8 or 4 bits a weight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..models.extractor import FrameExtractor
from ..models.head import Head, State
from ..training import ClipNetwork, Clips, find_device, predict_logits
from ..training.augment import transform_frames
from ..training.losses import batch_loss
from .fake_quant import fake_blocks, fake_rows
from .int8 import Range
from .material import Material, Trained, clips_of, learned_part, tune, tuning_share, with_part
from .qat import QuantizedNetwork, byte_range, prepare_qat, write_back_
from .storage import MIN_ELEMENTS

FRAMES = 8  # of a clip, for learning; 3 of them for finding ranges
PASSES = 6.0  # over the frames
BATCH = 16
RATE = 1e-4
VARIED = {"zoom": 0.15, "shift": 0.1, "light": 0.2, "flip": 0.5}  # of the frames learned from (augment.py)
TRAINED = "trained for integer kernels"

Round = Callable[[Tensor], Tensor]


def extractor_qat(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Train the extractor for the integer kernels that the step ``int8`` gives it; the head stays.

    Where the recipe trains the head alone, the integers learn to give the float extractor's features of the material's
    frames (no labels needed); where it trains the whole network, they are trained with the head, on the labels.
    Guarantee: the integer file computes what the simulation did in training (but where a sum lies on the border of two
    steps); in the first case its distance from the float features of those frames is not above that before training.
    Steps that change the extractor stand before this one.

    Args:
        amount: passes over the frames (6 by default), or epochs (a quarter of the recipe's) where it trains the whole
            network.

    Raises:
        ExportError: the extractor has no convolutions of its own to train.
    """
    frames = [clip[_spread(len(clip), FRAMES)] for clip in material.samples]
    network = prepare_extractor(trained.extractor, frames)
    student, head = with_part(trained.extractor, "backbone", network), trained.head
    if material.config.mode == "frozen":
        passes = PASSES if amount is None else amount
        distill_features(student, trained.extractor, frames, passes, material.seed, device=material.device)
    else:
        epochs = tuning_share(amount, material.config)
        tuned = tune(Trained(student, head), material, epochs, rate=0.1, precision="float32")
        student, head = tuned.extractor, tuned.head
    return Trained(with_trained_weights(trained.extractor, student.backbone), head)


def qat(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Train the network on with the head's large matrices rounded to 8 bits, one scale a row, as they are stored.

    The weights returned are those behind the rounding: storage rounds them to what was trained. Guarantee: rounded,
    they have a validation loss not above that of the weights given, rounded.

    Args:
        amount: epochs; a quarter of the recipe's by default.
    """
    return _head_qat(trained, amount, material, fake_rows)


def qat4(trained: Trained, amount: float | None, material: Material) -> Trained:
    """As :func:`qat`, for matrices stored in 4 bits with a scale a block of inputs (blocks.py)."""
    return _head_qat(trained, amount, material, fake_blocks)


class RoundedHead(Head):
    """A head whose large matrices are rounded before each use; gradients reach the weights behind."""

    def __init__(self, head: Head, rounding: Round) -> None:
        super().__init__()
        self.head, self.rounding = head, rounding
        self.state_shapes = head.state_shapes

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """As the head's, with rounded weights."""
        rounded = {name: self.rounding(p) for name, p in self.head.named_parameters() if is_stored_small(p)}
        result: tuple[Tensor, State] = torch.func.functional_call(self.head, rounded, (features, state, mask))
        return result


def is_stored_small(parameter: Tensor) -> bool:
    """Whether storage.py keeps a parameter in few bits: a matrix of at least 1024 weights."""
    return parameter.ndim == 2 and parameter.numel() >= MIN_ELEMENTS


def prepare_extractor(extractor: FrameExtractor, clips: Sequence[np.ndarray]) -> QuantizedNetwork:
    """The backbone as the integer file computes it, its ranges found on frames uint8 (T, H, W, 3) of clips."""
    backbone: Any = extractor.backbone
    if not any(isinstance(layer, nn.Conv2d) for layer in backbone.modules()):
        raise ExportError(f"{type(backbone).__name__} has no convolutions to train for integer kernels")
    chosen = [clip[_spread(len(clip), 3)] for clip in clips]
    batches = [extractor.normalize(torch.from_numpy(frames)) for frames in _portions(np.concatenate(chosen), 4)]
    return prepare_qat(backbone, batches, byte_range(extractor.zero_point, extractor.scale))


def with_trained_weights(extractor: FrameExtractor, network: nn.Module) -> FrameExtractor:
    """A copy of the extractor with the rounded weights and the ranges that a network prepared from it has learned."""
    assert isinstance(network, QuantizedNetwork)
    result = copy.deepcopy(extractor)
    write_back_(result.backbone, network)
    result.ranges, result.freeze_norm = network.ranges(), True
    result.provenance["quantization"] = TRAINED
    return result.eval()


def trained_ranges(extractor: FrameExtractor) -> dict[str, Range] | None:
    """The ranges by layer that :func:`extractor_qat` has learned; None where it was not applied."""
    return extractor.ranges if extractor.provenance.get("quantization") == TRAINED else None


def distill_features(
    student: FrameExtractor,
    teacher: FrameExtractor,
    clips: Sequence[np.ndarray],
    passes: float = PASSES,
    seed: int = 0,
    rate: float = RATE,
    device: str = "cpu",
) -> tuple[float, float]:
    """Train a student's backbone to give the teacher's features of frames uint8 (T, H, W, 3); no labels.

    Both see each frame varied anew. Kept is the student of least error on the frames as they are, the first included;
    both networks are on the CPU afterwards.

    Returns:
        mean squared error in the student's features, in units of the teacher's variance a channel: before and after.
    """
    place = find_device(device)
    student.to(place)
    teacher.to(place).eval()
    frames = torch.from_numpy(np.concatenate(list(clips))).to(place)
    targets = _features(teacher, frames)
    spread = targets.transpose(0, 1).flatten(1).var(1).clamp(min=1e-8)  # (C,)
    weights = (1 / spread).reshape(-1, *[1] * (targets.ndim - 2))

    def error(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square() * weights).mean()

    draw = np.random.default_rng([seed, 88])
    updates = max(1, round(passes * len(frames) / BATCH))
    parameters = [p for p in student.backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=updates + 1, pct_start=0.1)
    before = least = float(error(_features(student, frames), targets))
    best = copy.deepcopy(student.backbone.state_dict())
    each = max(1, -(-len(frames) // BATCH))
    for update, chosen in zip(range(updates), _shuffled(len(frames), BATCH, seed), strict=False):
        pictures = _varied(frames[chosen], teacher, draw)
        with torch.no_grad():
            wanted = teacher.features(pictures)
        loss = error(student.features(pictures), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (update + 1) % (2 * each) == 0 or update + 1 == updates:
            now = float(error(_features(student, frames), targets))
            if now < least:
                least, best = now, copy.deepcopy(student.backbone.state_dict())
    student.backbone.load_state_dict(best)
    student.to("cpu")
    teacher.to("cpu")
    return before, least


def _varied(frames: Tensor, extractor: FrameExtractor, draw: np.random.Generator) -> Tensor:
    """Normalized pictures (B, 3, H, W) of frames uint8 (B, H, W, 3), each moved, lit and mirrored on its own."""
    pictures = frames.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
    moved = torch.cat([transform_frames(picture[None], VARIED, draw) for picture in pictures])
    varied: Tensor = (moved.round().clamp(0, 255) - extractor.zero_point) * extractor.scale
    return varied


def _head_qat(trained: Trained, amount: float | None, material: Material, rounding: Round) -> Trained:
    start = Trained(trained.extractor, RoundedHead(trained.head, rounding))
    tuned = tune(start, material, tuning_share(amount, material.config), rate=0.25, precision="float32")
    if _validation_loss(tuned, material) > _validation_loss(start, material):
        return trained
    assert isinstance(tuned.head, RoundedHead)
    return Trained(tuned.extractor, tuned.head.head)


@torch.no_grad()
def _validation_loss(trained: Trained, material: Material) -> float:
    """Mean loss of the validation clips."""
    val: Clips = clips_of(trained, material)[1]
    network: ClipNetwork = learned_part(trained, material).eval()
    logits = torch.from_numpy(predict_logits(network, val, material.config.batch))
    return float(batch_loss(logits, torch.from_numpy(val.targets), 0.0, None, material.multi_label))


@torch.no_grad()
def _features(extractor: FrameExtractor, frames: Tensor) -> Tensor:
    return torch.cat([extractor(part) for part in frames.split(BATCH)])


def _shuffled(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Batches of indices without end, each pass in a new order."""
    draw = np.random.default_rng([seed, 8])
    while True:
        order = torch.from_numpy(draw.permutation(count))
        yield from order.split(size)


def _portions(frames: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of ``size`` frames; the first has at least two."""
    frames = np.resize(frames, (max(2, len(frames)), *frames.shape[1:]))
    return [frames[i : i + size] for i in range(0, len(frames), size)]


def _spread(frames: int, most: int) -> np.ndarray:
    """Indices of at most ``most`` frames, evenly over a clip."""
    return np.linspace(0, frames - 1, min(most, frames)).astype(int)
