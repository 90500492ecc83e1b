"""The options of a recipe's head or extractor, held to what its builder takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..errors import RecipeError
from ..recipe import Extractor, nearest

UNSAID = {"width": (1.0,), "cut": ("block12", ""), "grid": (4, 0)}  # what a recipe says of each where it says nothing


def refuse_unread(what: str, config: Extractor, reads: Collection[str]) -> None:
    """Refuse a width, cut or grid of a recipe that the builder of its extractor does not read.

    Raises:
        RecipeError: names the key; begins with ``what``.
    """
    for key, unsaid in UNSAID.items():
        value = getattr(config, key)
        if key not in reads and value not in unsaid:
            raise RecipeError(f"{what} has no extractor.{key}, got {value!r}: leave it out")


def options_of(builder: Callable[..., Any], given: int) -> dict[str, Any]:
    """Options and their defaults: the parameters of a builder behind the ``given`` that are no options."""
    return {p.name: p.default for p in list(inspect.signature(builder).parameters.values())[given:]}


def checked_options(what: str, options: Mapping[str, Any], valid: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe, each of the type of its default; a default that is a tuple takes whole numbers >= 1.

    Raises:
        RecipeError: an unknown option, with the nearest valid one, or a value of another type; begins with ``what``.
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key not in valid:
            known = ", ".join(valid) or "none"
            raise RecipeError(f"{what}: unknown option {key!r}{nearest(key, valid)}; known: {known}")
        default = valid[key]
        if isinstance(default, tuple):
            found[key] = _whole_numbers(what, key, value)
            continue
        if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
            raise RecipeError(f"{what}: option {key} must be {type(default).__name__}, got {value!r}")
        found[key] = value
    return found


def _whole_numbers(what: str, key: str, value: Any) -> tuple[int, ...]:
    """Modes or ranks: a list of whole numbers >= 1, or one of them alone."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if any(type(number) is not int or number < 1 for number in numbers):
        raise RecipeError(f"{what}: option {key} must be a list of whole numbers >= 1, got {value!r}")
    return numbers
