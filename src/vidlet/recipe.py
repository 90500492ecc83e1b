"""Recipes: one short TOML file that says how a model is made, validated once into frozen typed objects.

A recipe is data. Unknown keys and wrong types are errors that name the key and the nearest valid one. The resolved
recipe is stored in the run folder and in the exported model.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from . import plugins
from .errors import RecipeError
from .files import write_text
from .progress import say

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def number(default: Any, least: float, most: float, above: float = -math.inf) -> Any:
    """A field of a recipe whose number (or each of whose numbers) lies in [least, most], and above ``above``."""
    return field(default=default, metadata={"range": (least, most, above)})


LARGE = 10**6  # of counts: more is a slip of the keyboard
LARGEST = 1e9  # of options, whose range their constructor knows


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip the model sees.

    rule "rate": the frame on display at start, start + 1/hz, start + 2/hz ... (T varies with the clip's length);
    rule "uniform": ``frames`` frames, evenly spread over the clip.
    """

    rule: str = "rate"
    hz: float = number(8.0, 0.001, 1000)
    frames: int = number(25, 1, 4096)
    max_frames: int = number(
        256, 1, LARGE
    )  # training only: a longer clip is seen through a random window of so many frames


@dataclass(frozen=True)
class Extractor:
    """Frame -> features. ``cut`` names the last block ("head" = the whole network up to its pooled embedding)."""

    name: str = "mobilenetv2"
    width: float = number(1.0, 0.01, 16)
    input_size: tuple[int, int] = number((224, 224), 1, 8192)  # height, width
    cut: str = "block12"
    grid: int = number(4, 0, 1024)  # features are averaged to (channels, grid, grid); 0: a pooled vector
    weights: str = "imagenet"  # a name of the weights table, a file, or "none" (from scratch)
    options: dict[str, Any] = field(default_factory=dict, hash=False)  # what this one's builder takes beside these


@dataclass(frozen=True)
class Head:
    """Feature sequence -> scores. ``options`` go to the head's constructor as they stand."""

    name: str = "grid-gru"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Schedule:
    """How the learning rates go while it is trained."""

    kind: str = "cosine"  # "cosine", "constant", "step", or "keras-decay" (lr / (1 + 1e-6 updates))
    step_epochs: int = number(30, 1, LARGE)  # of "step": the rate falls every so many epochs
    step_factor: float = number(0.1, 0, 1, above=0)  # ... to this share


@dataclass(frozen=True)
class Averaging:
    """Which weights are kept in the end: the last ones, a moving average, or the mean of the best checkpoints."""

    decay: float = number(0.0, 0, 0.9999999)  # of an exponential moving average of the weights; 0: none
    last: int = number(0, 0, LARGE)  # mean of up to so many of the last checkpoints that validate best; 0: none
    every: int = number(50, 1, LARGE)  # updates between these checkpoints


@dataclass(frozen=True)
class Training:
    """How the weights are found. Learning rates are for batches of ``batch`` clips."""

    mode: str = "frozen"  # "frozen": stored features, head only; "finetune": extractor and head end to end
    epochs: int = number(60, 1, LARGE)
    head_epochs: int = number(0, 0, LARGE)  # of "finetune": so long the head is trained first, on stored features
    least_updates: int = number(0, 0, LARGE)  # small sets are seen for more epochs, until there are so many updates
    batch: int = number(16, 1, LARGE)
    micro_batch: int = number(0, 0, LARGE)  # clips of a batch in memory at once; 0: as many as find room
    precision: str = "auto"  # products in "float32" or "bfloat16"; "auto": bfloat16 on a GPU; weights stay float32
    optimizer: str = "adamw"  # "adamw", or "sgd" with momentum 0.9
    lr: float = number(2e-3, 0, 1000, above=0)
    extractor_lr: float = number(2e-4, 0, 1000)
    schedule: Schedule = field(default_factory=Schedule)
    weight_decay: float = number(1e-2, 0, 1000)
    label_smoothing: float = number(0.0, 0, 0.99)
    early_stopping: int = number(0, 0, LARGE)  # epochs without a better validation loss; 0: never
    class_weights: bool = True
    clip_norm: float = number(1.0, 0, 1e9)  # 0: gradients are not shortened
    clip_each: bool = False  # clip_norm is of each tensor's gradient, not of all together
    l2: dict[str, float] = field(default_factory=dict)  # part of a tensor's name: strength of s |w|^2 / 2 in the loss
    augment: dict[str, float] = field(default_factory=dict)
    one_way: tuple[str, ...] = ()  # labels whose clips are never mirrored or reversed (augment "flip", "reverse")
    averaging: Averaging = field(default_factory=Averaging)
    teacher_share: float = number(0.5, 0, 1, above=0)  # of teachers (--teacher) in the loss, beside the labels
    val_too: bool = False  # validation clips are learned from, too, where others test: nothing is chosen by them
    seed: int = number(0, 0, 2**63 - 1)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained model but the data."""

    name: str
    sampling: Sampling = field(default_factory=Sampling)
    extractor: Extractor = field(default_factory=Extractor)
    head: Head = field(default_factory=Head)
    training: Training = field(default_factory=Training)
    compress: tuple[str, ...] = ("int8",)  # the steps whose files `train` writes beside the float32 one


MOVED = {  # old key: what it is called now, and what it was by default; old files, --set and models may say it
    "extractor.pixels": ("extractor.options.pixels", "imagenet"),
    "extractor.audio": ("extractor.options.audio", True),
    "training.schedule": ("training.schedule.kind", "cosine"),
    "training.step_epochs": ("training.schedule.step_epochs", 30),
    "training.step_factor": ("training.schedule.step_factor", 0.1),
    "training.average": ("training.averaging.decay", 0.0),
    "training.average_last": ("training.averaging.last", 0),
    "training.average_every": ("training.averaging.every", 50),
}
_TOLD: set[str] = set()  # old keys of which this process has said what they are called now


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("vidlet") / "recipes"
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def describe_recipe(name: str) -> str:
    """What a built-in recipe is: the first sentence of its file."""
    lines = _read(name)[0].split("\n\n")[0].splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    return re.split(r"(?<!al)\.(?: |$)", comment)[0]


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe by built-in name or from a .toml file; ``overrides`` maps dotted keys to values.

    Raises:
        RecipeError: no such recipe, not TOML, an unknown key, or a value of the wrong type; with the nearest valid.
    """
    text, where = _read(name_or_path)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also what its number parser and its nesting raise
        raise RecipeError(f"{where}: not valid TOML ({' '.join(str(error).split())[:200]})") from error
    data.setdefault("name", Path(where).stem)
    data = _renamed(data, tell=True)
    overrides = full_keys(overrides or {})
    for key, value in overrides.items():
        if key in MOVED and not isinstance(value, Mapping):
            _tell(key)
            key = MOVED[key][0]  # noqa: PLW2901
        _put(data, key, value)
    if "training.epochs" in overrides and "training.least_updates" not in overrides:
        _put(data, "training.least_updates", 0)  # so many epochs were asked for
    return recipe_from_dict(data, where)


CLIP_STEPS = (
    "units", "channels", "prune", "lowrank", "tt", "distill", "average", "ensemble", "qat", "qat4", "extractor-qat",
    "int8", "int4", "head4", "codebook", "half", "weights8", "sparse", "compact",
)  # fmt: skip
BOX_STEPS = ("deepeye", "qat", "int8", "half", "weights8")


def check_steps(chain: str) -> None:
    """Refuse a chain with a step that no table has (compression/steps.py), before what applies steps is loaded.

    Raises:
        RecipeError: names it, and the nearest that there is.
    """
    known = sorted({*CLIP_STEPS, *BOX_STEPS, *plugins.names("training-step"), *plugins.names("step")})
    for name in (part.partition(":")[0].strip() for part in chain.split("+")):
        if name not in known:
            raise RecipeError(f"compress: unknown step {name!r}{nearest(name, known)}; known: {', '.join(known)}")


def load_end_to_end(name_or_path: str, option: str) -> Recipe:
    """The recipe that an option names, which must train extractor and head end to end.

    Raises:
        RecipeError: as :func:`load_recipe`, or it trains a head on stored features.
    """
    plan = load_recipe(name_or_path)
    if plan.training.mode != "finetune":
        raise RecipeError(f"{option} {name_or_path}: its training.mode is {plan.training.mode!r}; needed is 'finetune'")
    return plan


def full_keys(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides by their whole keys, where a last part alone was given that only one key has: epochs, training.epochs.

    Raises:
        RecipeError: no key ends so, with the nearest; or several do.
    """
    found: dict[str, Any] = {}
    for key, value in overrides.items():
        whole = [known for known in _KEYS if known.rpartition(".")[2] == key] if key not in _KEYS else [key]
        if "." in key:
            whole = [key]
        if len(whole) > 1:
            raise RecipeError(f"--set {key}: which of {', '.join(whole)}?")
        if not whole:
            last = [known.rpartition(".")[2] for known in _KEYS]
            raise RecipeError(f"--set {key}: a recipe has no such key{nearest(key, last)}")
        found[whole[0]] = value
    return found


def _keys_of(kind: type, prefix: str = "") -> list[str]:
    hints = typing.get_type_hints(kind)
    inner = [_keys_of(hints[f.name], f"{prefix}{f.name}.") for f in dataclasses.fields(kind) if _nested(hints[f.name])]
    return [f"{prefix}{f.name}" for f in dataclasses.fields(kind)] + [key for keys in inner for key in keys]


def _nested(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


_KEYS = _keys_of(Recipe)


def recipe_from_dict(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a plain dict (from TOML or a model's metadata) into a Recipe."""
    recipe = _build(Recipe, _renamed(data), where, "")
    _check(recipe, where)
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dicts, lists and numbers."""
    return dataclasses.asdict(recipe)


def flat_keys(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested values by dotted key, as JSON in which the order of keys says nothing: {"training.epochs": "30"}."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat_keys(value, f"{before}{key}.")
        else:
            found[before + key] = json.dumps(value, sort_keys=True)
    return found


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write the resolved recipe as TOML."""
    write_text(path, tomli_w.dumps(recipe_to_dict(recipe)))


def parse_override(text: str) -> tuple[str, Any]:
    """Parse ``training.epochs=30`` as the command line gives it; values are TOML, bare words are strings."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text}: expected KEY=VALUE, as in training.epochs=30")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"--set {key.strip()}: no value of TOML ({' '.join(str(error).split())[:200]})") from error


def _read(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    if name in recipe_names():
        return (resources.files("vidlet") / "recipes" / f"{name}.toml").read_text("utf-8"), name
    if name.endswith(".toml"):
        try:
            return Path(name).read_text("utf-8"), name
        except (OSError, ValueError) as error:
            raise RecipeError(f"{name}: cannot be read ({error})") from error
    raise RecipeError(f"unknown recipe {name!r}{nearest(name, recipe_names())}; known: {', '.join(recipe_names())}")


def _renamed(data: Mapping[str, Any], tell: bool = False) -> dict[str, Any]:
    """The data with old keys under their new names; those that say what is so by default are left out."""
    found = copy.deepcopy(dict(data))
    for old, (new, default) in MOVED.items():
        section, _, key = old.partition(".")
        table = found.get(section)
        if not isinstance(table, dict) or key not in table or isinstance(table[key], dict):
            continue
        value = table.pop(key)
        inner = table.setdefault(new.split(".")[1], {})
        if value != default or type(value) is not type(default):
            if tell:
                _tell(old)
            if isinstance(inner, dict):
                inner[new.split(".")[2]] = value
    return found


def _tell(old: str) -> None:
    if old not in _TOLD:
        _TOLD.add(old)
        say(f"recipe: {old} is called {MOVED[old][0]} now")


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise RecipeError(f"{key}: {part} is not a section")
    data[last] = value


def _build(kind: type, data: Mapping[str, Any], where: str, prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            raise RecipeError(f"{where}: unknown key {prefix}{key}{nearest(key, list(fields))}")
        values[key] = _convert(hints[key], value, where, prefix + key)
        _in_range(values[key], fields[key].metadata.get("range"), where, prefix + key)
    missing = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and name not in values
    ]
    if missing:
        raise RecipeError(f"{where}: key {prefix}{missing[0]} is missing")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(typing.cast(type, hint), value, where, key + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = arguments[0]
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise RecipeError(f"{where}: {key} must have {len(arguments)} values, got {len(value)}")
        return tuple(_convert(inner, item, where, key) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= 2**64 else math.inf  # beyond every range
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        return value
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise RecipeError(f"{where}: {key} must be {name}, got {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _in_range(value: Any, limits: tuple[float, float, float] | None, where: str, key: str) -> None:
    """Refuse a number outside of its field's range; numbers without a declared one must be finite."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _in_range(item, limits, where, f"{key}.{name}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _in_range(item, limits, where, key)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        if value is not None and not isinstance(value, (bool, str)) and not dataclasses.is_dataclass(value):
            raise RecipeError(f"{where}: {key} must be a number, a text or a list of them, got {type(value).__name__}")
    elif limits is None:
        if not -LARGEST <= value <= LARGEST:
            raise RecipeError(f"{where}: {key} must be a number from -{LARGEST:g} to {LARGEST:g}, got {_short(value)}")
    else:
        least, most, above = limits
        if not (least <= value <= most and value > above):
            rule = f"above {above:g} and at most {most:g}" if above >= least else f"from {least:g} to {most:g}"
            raise RecipeError(f"{where}: {key} must be {rule}, got {_short(value)}")


def _check(recipe: Recipe, where: str) -> None:
    sampling, training = recipe.sampling, recipe.training
    _one_of(where, "sampling.rule", sampling.rule, ("rate", "uniform"))
    _one_of(where, "training.mode", training.mode, ("frozen", "finetune"))
    _one_of(where, "training.schedule.kind", training.schedule.kind, ("cosine", "constant", "step", "keras-decay"))
    _one_of(where, "training.optimizer", training.optimizer, ("adamw", "sgd"))
    _one_of(where, "training.precision", training.precision, ("auto", "float32", "bfloat16"))
    if training.averaging.last and (training.averaging.decay or training.early_stopping):
        other = "averaging.decay" if training.averaging.decay else "early_stopping"
        raise RecipeError(
            f"{where}: training.averaging.last chooses the weights, and so does training.{other}: set one"
        )
    for part, strength in training.l2.items():
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not strength >= 0:
            raise RecipeError(f"{where}: training.l2.{part} must be a number, 0 or more, got {strength!r}")


def _one_of(where: str, key: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise RecipeError(f"{where}: {key} must be one of {', '.join(valid)}, got {value!r}{nearest(value, valid)}")


def nearest(word: str, valid: typing.Iterable[str]) -> str:
    """Return " (did you mean X?)" for the closest valid word, or nothing."""
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def in_range(name: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Refuse a number outside of its range; None is not given and fine.

    Raises:
        RecipeError: names it and the range.
    """
    if value is not None and not (low <= value <= high and math.isfinite(value)):
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
        raise RecipeError(f"{name} must be {span}, got {value:g}")
