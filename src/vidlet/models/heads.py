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
from .frame_networks import FrameNetworkHead
from .head import Head
from .options import checked_options, options_of
from .own_heads import GridGRU, OrderedWindow
from .pooled import ExpertsGRU, ExpertsLSTM, Pooled
from .thesis_heads import Mean, PaperGRU, PaperLSTM, SingleFrame
from .tt_heads import TTGridGRU, TTGRUHead, TTLSTMHead

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
