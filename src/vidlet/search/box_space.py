"""What a search over boxes chooses from: two networks at several widths or cuts and input sizes, and their storage.

The pretrained network comes in one width; how large it is follows from where it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import WeightsError
from ..models.weights import find_weights
from ..progress import say
from ..recipe import Recipe, load_recipe

NETWORKS: dict[str, tuple[str, tuple[Any, ...]]] = {  # built-in recipe: what is varied of its extractor, and its values
    "mobilenetv2-boxes": ("cut", ("block6", "block10", "block12")),
    "tiny-yolov2": ("width", (0.1, 0.16, 0.24, 0.35, 0.5)),
}
SIZES = (224, 320, 160)  # of the square input, in the order in which they are tried
STORED: dict[str, int] = {"": 4, "half": 2, "int8": 1}  # chain: bytes of a weight; the largest loses the least
TRAINED = ("deepeye", "qat+int8")  # chains that are trained, of about the bytes of int8


def box_recipes(
    seed: int = 0,
    networks: Mapping[str, tuple[str, tuple[Any, ...]]] = NETWORKS,
    sizes: tuple[int, ...] = SIZES,
    training: Mapping[str, Any] | None = None,
) -> list[Recipe]:
    """The candidates; those whose pretrained weights cannot be had are left out, which is said.

    Args:
        training: values of the recipes' section of that name.
    """
    found = []
    for name, (key, values) in networks.items():
        try:
            if (weights := load_recipe(name).extractor.weights) != "none":
                find_weights(weights)
        except WeightsError as error:
            say(f"{name} is left out of the search: {error}")
            continue
        told = {"head.options": {"anchors": 5}, "compress": [], "training.seed": seed}
        told |= {f"training.{part}": value for part, value in (training or {}).items()}
        for value in values:
            for size in sizes:
                plan = load_recipe(name, {**told, f"extractor.{key}": value, "extractor.input_size": [size, size]})
                label = f"{value:g}" if isinstance(value, float) else value
                found.append(replace(plan, name=f"{name}-{label}-{size}"))
    return found
