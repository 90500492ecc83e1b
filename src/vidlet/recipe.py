"""Recipes: one short TOML file that says how a model is made, validated once into frozen typed objects.

A recipe is data. Unknown keys and wrong types are errors that name the key and the nearest valid one. The resolved
recipe is stored in the run folder and in the exported model.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from .errors import RecipeError
from .files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip the model sees.

    rule "rate": the frame on display at start, start + 1/hz, start + 2/hz ... (T varies with the clip's length);
    rule "uniform": ``frames`` frames, evenly spread over the clip.
    """

    rule: str = "rate"
    hz: float = 8.0
    frames: int = 25
    max_frames: int = 256  # training only: a longer clip is seen through a random window of so many frames


@dataclass(frozen=True)
class Extractor:
    """Frame -> features. ``cut`` names the last block ("head" = the whole network up to its pooled embedding)."""

    name: str = "mobilenetv2"
    width: float = 1.0
    input_size: tuple[int, int] = (224, 224)  # height, width
    cut: str = "block12"
    grid: int = 4  # features are averaged to (channels, grid, grid); 0: a pooled vector
    weights: str = "imagenet"  # a name of the weights table, a file, or "none" (from scratch)
    pixels: str = "imagenet"  # of "onnx": what its file takes: imagenet, unit (0 to 1), signed, bytes; or that-bgr
    audio: bool = True  # of "features" (stored ones): with the sound, where the data have it


@dataclass(frozen=True)
class Head:
    """Feature sequence -> scores. ``options`` go to the head's constructor as they stand."""

    name: str = "grid-gru"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """How the weights are found. Learning rates are for batches of ``batch`` clips."""

    mode: str = "frozen"  # "frozen": stored features, head only; "finetune": extractor and head end to end
    epochs: int = 60
    batch: int = 16
    micro_batch: int = 0  # clips of a batch that are in memory at once; 0: all (fine-tuning at 224 pixels: 1 or 2)
    precision: str = "auto"  # products in "float32" or "bfloat16"; "auto": bfloat16 on a GPU; weights stay float32
    optimizer: str = "adamw"  # "adamw", or "sgd" with momentum 0.9
    lr: float = 2e-3
    extractor_lr: float = 2e-4
    schedule: str = "cosine"  # "cosine", "constant", "step", or "keras-decay" (lr / (1 + 1e-6 updates))
    step_epochs: int = 30  # of schedule "step": the rate falls every so many epochs
    step_factor: float = 0.1  # ... to this share
    weight_decay: float = 1e-2
    label_smoothing: float = 0.0
    early_stopping: int = 0  # epochs without a better validation loss; 0: never
    class_weights: bool = True
    clip_norm: float = 1.0
    clip_each: bool = False  # clip_norm is of each tensor's gradient, not of all together
    l2: dict[str, float] = field(default_factory=dict)  # part of a tensor's name: strength of s |w|^2 / 2 in the loss
    augment: dict[str, float] = field(default_factory=dict)
    one_way: tuple[str, ...] = ()  # labels whose clips are never mirrored or reversed (augment "flip", "reverse")
    average: float = 0.0  # decay of an exponential moving average of the weights; 0: none
    average_last: int = 0  # mean of up to so many of the last checkpoints, as many as validate best; 0: none
    average_every: int = 50  # updates between these checkpoints
    teacher_share: float = 0.5  # of the teachers in the loss (`vidlet train --teacher`); the labels have the rest
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trained model but the data."""

    name: str
    sampling: Sampling = field(default_factory=Sampling)
    extractor: Extractor = field(default_factory=Extractor)
    head: Head = field(default_factory=Head)
    training: Training = field(default_factory=Training)
    compress: tuple[str, ...] = ("int8",)  # the steps whose files `train` writes beside the float32 one


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("vidlet") / "recipes"
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe by built-in name or from a .toml file; ``overrides`` maps dotted keys to values.

    Raises:
        RecipeError: no such recipe, not TOML, an unknown key, or a value of the wrong type; with the nearest valid.
    """
    text, where = _read(name_or_path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not valid TOML ({error})") from error
    data.setdefault("name", Path(where).stem)
    for key, value in (overrides or {}).items():
        _put(data, key, value)
    return recipe_from_dict(data, where)


def recipe_from_dict(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a plain dict (from TOML or a model's metadata) into a Recipe."""
    recipe = _build(Recipe, data, where, "")
    _check(recipe, where)
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain dicts, lists and numbers."""
    return dataclasses.asdict(recipe)


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


def _read(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    if name in recipe_names():
        return (resources.files("vidlet") / "recipes" / f"{name}.toml").read_text("utf-8"), name
    if name.endswith(".toml"):
        try:
            return Path(name).read_text("utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{name}: cannot be read ({error})") from error
    raise RecipeError(f"unknown recipe {name!r}{nearest(name, recipe_names())}; known: {', '.join(recipe_names())}")


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
        return float(value)
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        return value
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise RecipeError(f"{where}: {key} must be {name}, got {value!r}")


def _check(recipe: Recipe, where: str) -> None:
    sampling, training = recipe.sampling, recipe.training
    _one_of(where, "sampling.rule", sampling.rule, ("rate", "uniform"))
    _one_of(where, "training.mode", training.mode, ("frozen", "finetune"))
    _one_of(where, "training.schedule", training.schedule, ("cosine", "constant", "step", "keras-decay"))
    _one_of(where, "training.optimizer", training.optimizer, ("adamw", "sgd"))
    _one_of(where, "training.precision", training.precision, ("auto", "float32", "bfloat16"))
    for key, value in {
        "sampling.hz": sampling.hz,
        "sampling.frames": sampling.frames,
        "sampling.max_frames": sampling.max_frames,
        "training.epochs": training.epochs,
        "training.batch": training.batch,
        "training.step_epochs": training.step_epochs,
        "training.step_factor": training.step_factor,
        "training.average_every": training.average_every,
        "training.lr": training.lr,
        "extractor.width": recipe.extractor.width,
        "extractor.input_size": min(recipe.extractor.input_size),
    }.items():
        if not value > 0:
            raise RecipeError(f"{where}: {key} must be positive, got {value}")
    if training.average_last < 0:
        raise RecipeError(f"{where}: training.average_last must be 0 or more checkpoints, got {training.average_last}")
    if training.average_last and (training.average or training.early_stopping):
        other = "average" if training.average else "early_stopping"
        raise RecipeError(f"{where}: training.average_last chooses the weights, and so does training.{other}: set one")
    if not 0 < training.teacher_share <= 1:
        raise RecipeError(f"{where}: training.teacher_share must be in (0, 1], got {training.teacher_share}")
    for part, strength in training.l2.items():
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not strength >= 0:
            raise RecipeError(f"{where}: training.l2.{part} must be a number, 0 or more, got {strength!r}")
    if training.micro_batch < 0:
        raise RecipeError(f"{where}: training.micro_batch must be 0 or more clips, got {training.micro_batch}")


def _one_of(where: str, key: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise RecipeError(f"{where}: {key} must be one of {', '.join(valid)}, got {value!r}{nearest(value, valid)}")


def nearest(word: str, valid: typing.Iterable[str]) -> str:
    """Return " (did you mean X?)" for the closest valid word, or nothing."""
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
