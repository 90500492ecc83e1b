"""The table of heads: a sequence of frame features -> scores, as one function of (features, state) (see head.py).

tests/models/test_heads.py holds everything in ``HEADS`` to the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import plugins
from ..errors import RecipeError, VidletError
from ..recipe import Head as HeadRecipe
from ..recipe import nearest
from .centers import BagOfFrames, BagOfWords, GatedNetVLAD, NetFV, NeXtVLADHead
from .clip_networks import ClipNetworkHead
from .ensemble import Ensemble, Part
from .frame_networks import FrameNetworkHead
from .head import Head, flat_size
from .options import checked_options, options_of
from .own_heads import GridGRU, OrderedWindow
from .pooled import ExpertsGRU, ExpertsLSTM, Pooled
from .probe import Probe
from .thesis_heads import Mean, PaperGRU, PaperLSTM, SingleFrame
from .tt_heads import TTGridGRU, TTGRUHead, TTLSTMHead

NO_MEMBERS: list[dict[str, Any]] = []
_MEMBER = ("head", "options", "begin", "shape", "weight")


def build_blend(
    feature_shape: tuple[int, ...],
    classes: int,
    members: list[dict[str, Any]] = NO_MEMBERS,
    multi_label: bool = False,
    temperature: float = 1.0,
) -> Head:
    """An ``Ensemble`` as a recipe names it.

    Args:
        members: tables with ``head`` and its ``options``; ``begin`` and ``shape`` of its part, where the extractor has
            several cuts side by side; ``weight``.
    """
    heads: list[Head] = []
    for member in members:
        unknown = [key for key in member if key not in _MEMBER]
        if unknown or "head" not in member:
            raise RecipeError(f"head blend: a member has the keys {', '.join(_MEMBER)}, got {', '.join(member)}")
        recipe = HeadRecipe(member["head"], dict(member.get("options", {})))
        shape = tuple(member.get("shape", feature_shape))
        head = build_head(recipe, shape, classes)
        if "shape" in member:
            end = member.get("begin", 0) + flat_size(shape)
            if len(feature_shape) != 1 or end > feature_shape[0]:
                raise RecipeError(f"head blend: a part up to {end} of features {feature_shape}: there is none")
            head = Part(head, member.get("begin", 0), shape)
        heads.append(head)
    return Ensemble(heads, multi_label, [float(m.get("weight", 1)) for m in members], temperature)


HEADS: dict[str, Callable[..., Head]] = {
    "single": SingleFrame,
    "mean": Mean,
    "gru": PaperGRU,
    "lstm": PaperLSTM,
    "grid-gru": GridGRU,
    "netvlad": GatedNetVLAD,
    "nextvlad": NeXtVLADHead,
    "bag-of-frames": BagOfFrames,
    "bag-of-words": BagOfWords,
    "netfv": NetFV,
    "pooled": Pooled,
    "gru-moe": ExpertsGRU,
    "lstm-moe": ExpertsLSTM,
    "tt-lstm": TTLSTMHead,
    "tt-gru": TTGRUHead,
    "tt-grid-gru": TTGridGRU,
    "clip-network": ClipNetworkHead,
    "frame-network": FrameNetworkHead,
    "window": OrderedWindow,
    "probe": Probe,
    "blend": build_blend,
}


def build_head(recipe: HeadRecipe, feature_shape: tuple[int, ...], classes: int) -> Head:
    """Build the head that a recipe names.

    Raises:
        RecipeError: unknown name or option, with the nearest valid one; features of a shape that the head cannot take.
    """
    builder = find_head(recipe.name)
    if builder is None:
        known = [*HEADS, *plugins.names("head")]
        raise RecipeError(f"unknown head {recipe.name!r}{nearest(recipe.name, known)}; known: {', '.join(known)}")
    options = checked_options(f"head {recipe.name}", recipe.options, options_of(builder, 2))
    try:
        return builder(feature_shape, classes, **options)
    except VidletError:
        raise
    except Exception as error:  # PyTorch checks sizes, shares and memory in its own words
        raise RecipeError(
            f"head {recipe.name}: cannot be made with {options} on features {feature_shape} "
            f"({' '.join(str(error).split())[:200] or type(error).__name__})"
        ) from error


def find_head(name: str) -> Callable[..., Head] | None:
    """The builder of a head: built in, registered or of an installed package."""
    return HEADS.get(name) or plugins.find("head", name)


def head_options(name: str) -> dict[str, Any]:
    """Options of a head and their defaults; nothing of a head that is not known."""
    builder = find_head(name)
    return {} if builder is None else options_of(builder, 2)
