"""What a person should know before a long training begins."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

import torch
from torch import nn

from ..models.head import Head
from ..progress import say
from ..recipe import Recipe, Training
from ..tensor_train import TTConv2d, TTConv3d, TTLinear, slow_trains
from ..training.device import lacks_bfloat16

Pair = tuple[frozenset[str], frozenset[str]]  # words of which one is the other's mirror image or reversal
BACKGROUNDS = ("none", "nothing", "background", "no_action", "no action", "negative", "negatives", "none of these")
SHOWN = 6  # labels in a warning


def _forms(words: str) -> frozenset[str]:
    """The words, and what English makes of them: "push pushes pushing pushed"."""
    found = set()
    for word in words.split():
        stem = word.removesuffix("e")
        found |= {word, f"{word}s", f"{word}es", f"{stem}ing", f"{stem}ed"}
        found |= {f"{stem}{stem[-1]}ing", f"{stem}{stem[-1]}ed"}  # shutting
    return frozenset(found)


def _pair(one: str, other: str) -> Pair:
    return _forms(one), _forms(other)


MIRRORED = (  # a mirror makes one of the other
    _pair("left leftward", "right rightward"),
    _pair("clockwise cw", "counterclockwise ccw"),
    _pair("east eastward", "west westward"),
)
REVERSED = (  # played backwards, one is the other
    *MIRRORED,
    _pair("up upward raise rise ascend lift", "down downward lower fall descend"),
    _pair("open", "close shut"),
    _pair("in into inward", "out outward"),
    _pair("forward", "backward back"),
    _pair("push", "pull"),
    _pair("enter arrive approach", "exit leave depart"),
    _pair("on onto", "off"),
    _pair("insert attach add", "remove detach"),
    _pair("expand grow increase", "shrink contract decrease"),
    _pair("appear", "disappear vanish"),
    _pair("connect", "disconnect"),
    _pair("fill", "empty"),
    _pair("north northward", "south southward"),
)


def warn_of_precision(plan: Recipe, device: str) -> list[str]:
    """Say that a processor without instructions for bfloat16 will be slower at it."""
    if plan.training.precision != "bfloat16" or not lacks_bfloat16(device):
        return []
    return _said(["this processor has no instructions for bfloat16; training.precision = 'float32' is faster here"])


def warn_of_turns(config: Training, labels: Sequence[str], remedy: str = "") -> list[str]:
    """Say which labels augmentation may turn into each other: left and right where clips are mirrored, and the like.

    Args:
        remedy: what to do about it; by default, to name the labels in ``training.one_way``.
    """
    found = []
    free = [label for label in labels if label not in config.one_way]
    for key, does, pairs in (("flip", "mirrors", MIRRORED), ("reverse", "reverses", (*REVERSED, *_undone(labels)))):
        if config.augment.get(key, 0.0) > 0 and (turned := opposite_labels(free, pairs)):
            shown = ", ".join(repr(label) for label in turned[:SHOWN]) + (" ..." if len(turned) > SHOWN else "")
            how = remedy or f"name them in training.one_way (--set 'training.one_way={json.dumps(turned)}')"
            found.append(
                f"training.augment.{key} {does} what is seen, and the labels {shown} may then be each other's: if they "
                f"are, {how}"
            )
    return _said(found)


def warn_of_background(labels: Sequence[str], none: str) -> list[str]:
    """Say that a class seems to mean none of the others, and is announced as any other is.

    Args:
        none: the class that was said to mean so, "" where none was.
    """
    found = [label for label in labels if label.casefold() in BACKGROUNDS]
    if none or not found or len(labels) < 2:
        return []
    return _said([
        f"class {found[0]!r} is announced as any other is; if it means none of these, train with --none "
        f"{shlex.quote(found[0])}: it is then never announced, and false events an hour are measured"
    ])  # fmt: skip


def opposite_labels(labels: Sequence[str], pairs: Sequence[Pair]) -> list[str]:
    """Labels of which one has a word of one side of a pair and another a word of the other side, in their order."""
    words = {label: words_of(label) for label in labels}
    found: set[str] = set()
    for side, other in pairs:
        one, two = ({label for label in labels if words[label] & part} for part in (side, other))
        if one and two and len(one | two) > 1:
            found |= one | two
    return [label for label in labels if label in found]


def words_of(label: str) -> set[str]:
    """The words of a label in small letters: "SwipeLeft", "swipe_left" and "swipe left" have the same."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()
    text = re.sub(r"(counter|anti)[\s_-]*clockwise", "counterclockwise", text)
    return set(re.findall(r"[^\W\d_]+", text))


def _undone(labels: Sequence[str]) -> list[Pair]:
    """The words of labels that some label undoes: "fold" and "unfold"."""
    words = set().union(*map(words_of, labels))
    return [(frozenset({word}), frozenset({f"un{word}"})) for word in words if f"un{word}" in words]


def _said(lines: list[str]) -> list[str]:
    for line in lines:
        say(f"warning: {line}")
    return lines


def warn_of_slow_trains(
    head: Head, feature_shape: tuple[int, ...], plan: Recipe, median_s: float, device: str
) -> list[str]:
    """Say, with expected figures, which tensor trains of the head will train slower on the CPU than dense layers."""
    if device != "cpu" or not any(isinstance(part, TTLinear | TTConv2d | TTConv3d) for part in head.modules()):
        return []
    clips = min(plan.training.batch, plan.training.micro_batch or plan.training.batch)
    sampling = plan.sampling
    frames = sampling.frames if sampling.rule == "uniform" else max(1, round(sampling.hz * median_s))
    shape = (clips, min(frames, sampling.max_frames), *feature_shape)

    def run(shadow: nn.Module) -> None:
        assert isinstance(shadow, Head)
        x = torch.empty(shape, device="meta")
        shadow(x, shadow.zero_state(clips, x))

    return _said(slow_trains(head, run))
