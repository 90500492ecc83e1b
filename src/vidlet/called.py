"""What Python callers give to vidlet's functions, looked at before any work: words, lists and kinds of values.

``vidlet.NAME`` is the job NAME behind ``called``. A word of the command line is taken for the parameter that it means,
a single text or path where a list is wanted is a list of one, and what is wrong is one line that names function and
argument.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .errors import RecipeError

P = ParamSpec("P")
R = TypeVar("R")

# A word of the command line -> what parameters are called that mean it, where they are not called so themselves.
WORDS: dict[str, tuple[str, ...]] = {
    "around": ("around_s",),
    "chain": ("chains",),
    "data": ("path",),
    "from": ("source",),
    "max_size": ("max_bytes", "max_sizes"),
    "out": ("save", "page"),
    "recipe": ("recipes",),
    "run_folder": ("run",),
    "set": ("overrides",),
    "shortest": ("shortest_s",),
    "stream": ("streams",),
    "teacher": ("teachers",),
    "weight": ("weights",),
}
_TEXT: tuple[type, ...] = (str, os.PathLike)
# The name of a type in a signature -> what is taken for it, and how it is called.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": (_TEXT, "a text"),
    "Path": (_TEXT, "a path"),
    "os.PathLike": (_TEXT, "a path"),
    "int": ((numbers.Integral,), "a whole number"),
    "float": ((numbers.Real,), "a number"),
    "bool": ((bool, numbers.Integral), "True or False"),
    "None": ((type(None),), "None"),
    "Sequence": ((Iterable,), "a list"),
    "Mapping": ((Mapping,), "a dict"),
}


class ArgumentError(RecipeError, TypeError):
    """A function of vidlet was called with an argument that it does not have, or of the wrong kind."""


@functools.cache
def called(function: Callable[P, R], name: str) -> Callable[P, R]:
    """The function that callers know by this name, with its arguments looked at first (see above).

    Raises:
        ArgumentError: from the function that is returned, before it does anything.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        meant = {_parameter(name, word, signature): value for word, value in kwargs.items()}
        try:
            given = signature.bind(*args, **meant)
        except TypeError as error:
            raise ArgumentError(f"{name}: {error}") from None
        for key, value in given.arguments.items():
            parameter = signature.parameters[key]
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                given.arguments[key] = _taken(name, parameter, value)
        return function(*given.args, **given.kwargs)

    return run


def _parameter(function: str, word: str, signature: inspect.Signature) -> str:
    """The parameter that a keyword means: itself, or by ``WORDS``."""
    known = signature.parameters
    if word in known or any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return word
    if found := [name for name in WORDS.get(word, ()) if name in known]:
        return found[0]
    words = [*known, *(word for word, names in WORDS.items() if set(names) & set(known))]
    near = difflib.get_close_matches(word, words, 1)
    raise ArgumentError(
        f"{function}: no argument {word!r}{f' (did you mean {near[0]}?)' if near else ''}; it takes {', '.join(known)}"
    )


def _taken(function: str, parameter: inspect.Parameter, value: Any) -> Any:
    """A value as its parameter takes it; ArgumentError where it is of another kind than the signature says."""
    if parameter.annotation is parameter.empty or value is parameter.default:
        return value
    parts = re.split(r" \| (?![^\[]*\])", str(parameter.annotation))
    names = [part.partition("[")[0] for part in parts]
    of_text = isinstance(value, _TEXT)
    if "Sequence" in names and of_text and "str" not in names:
        return (value,)
    if any(_fits(name, value) for name in names):
        as_path = of_text and not isinstance(value, (str, Path)) and type(value).__name__ not in names
        return Path(value) if as_path else value  # a loaded model is its file where a path is wanted
    wanted = dict.fromkeys(_KINDS[name][1] if name in _KINDS else f"a {name}" for name in names)
    raise ArgumentError(
        f"{function}: {parameter.name} must be {' or '.join(wanted)}, got {type(value).__name__} {value!r}"[:400]
    )


def _fits(name: str, value: Any) -> bool:
    """Whether a value is of the kind of this name; of classes of vidlet's own it need only do what they do."""
    if name in _KINDS:
        return isinstance(value, _KINDS[name][0])
    if name.startswith("Call"):
        return callable(value)
    plain = isinstance(value, (str, bytes, numbers.Number, list, tuple, dict, set))  # which have no methods of ours
    return name == "Any" or not plain or name in {kind.__name__ for kind in type(value).__mro__}
