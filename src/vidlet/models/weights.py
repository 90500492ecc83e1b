"""Pretrained weights: one table of files, where they come from, and how they reach this machine.

``find_weights`` looks into the local folder that ``VIDLET_WEIGHTS`` names (with its sub-folders; then nothing is
ever downloaded), or else into the cache (``files.cache_folder``), or else downloads. What it returns has the checksum
of the table. ``load_state_dict`` reads checkpoint files of PyTorch, without running code.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import WeightsError
from ..files import atomic_path, cache_folder, sha256_of
from .mobilenetv1 import MobileNetV1
from .mobilenetv2 import MobileNetV2

CORAL = "https://github.com/google-coral/test_data/raw/104342d2d3480b3e66203073dac24f4e2dbb4c41"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class WeightsFile:
    """One pretrained file: what it is called, where it lies, what its content must be, and whose terms hold."""

    file: str
    url: str
    sha256: str
    licence: str
    about: str


WEIGHTS: dict[str, WeightsFile] = {
    "mobilenet_v2_1.0_224_ptq": WeightsFile(
        "tf2_mobilenet_v2_1.0_224_ptq.tflite",
        f"{CORAL}/tf2_mobilenet_v2_1.0_224_ptq.tflite",
        "5d3137241276e79c86d14a74fe43581398ae0e815191d3dba45495b810840e8c",
        "Apache-2.0",
        "MobileNetV2 1.0 224, ImageNet, int8 per channel, quantized after training",
    ),
    "mobilenet_v2_1.0_224_quant": WeightsFile(
        "mobilenet_v2_1.0_224_quant.tflite",
        f"{CORAL}/mobilenet_v2_1.0_224_quant.tflite",
        "7aad0c74c5e3c06e5eb3c827e13304fdd68a83da6087d92ee169c24ff9fd4776",
        "Apache-2.0",
        "MobileNetV2 1.0 224, ImageNet, uint8 per tensor, trained with quantization; the file of the authors",
    ),
    "mobilenet_v1_0.25_128_quant": WeightsFile(
        "mobilenet_v1_0.25_128_quant.tflite",
        f"{CORAL}/mobilenet_v1_0.25_128_quant.tflite",
        "cb273c23ee76374b05b9583177e28aa19744858a7679c56a250e83d0333da785",
        "Apache-2.0",
        "MobileNetV1 0.25 128, ImageNet, uint8 per tensor, trained with quantization",
    ),
    "mobilenet_v1_0.5_160_quant": WeightsFile(
        "mobilenet_v1_0.5_160_quant.tflite",
        f"{CORAL}/mobilenet_v1_0.5_160_quant.tflite",
        "3cc6d2ca460abd2e0f699a6d0d2550c6b61c6e3b0e27a3616e384ea74cb86f43",
        "Apache-2.0",
        "MobileNetV1 0.5 160, ImageNet, uint8 per tensor, trained with quantization",
    ),
    "mobilenet_v1_0.75_192_quant": WeightsFile(
        "mobilenet_v1_0.75_192_quant.tflite",
        f"{CORAL}/mobilenet_v1_0.75_192_quant.tflite",
        "41daeb22fdcf947e0e5ec32373aa9df7c31f3ef45dbd0ef7b5940fbce3c20f6a",
        "Apache-2.0",
        "MobileNetV1 0.75 192, ImageNet, uint8 per tensor, trained with quantization",
    ),
    "mobilenet_v1_1.0_224_quant_embedding_extractor": WeightsFile(
        "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
        f"{CORAL}/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
        "f409ef4f73fcbb9667841965623c5c8524aac33d41b9bf5f3667161fb4a76319",
        "Apache-2.0",
        "MobileNetV1 1.0 224, ImageNet, uint8 per tensor, without its classifier",
    ),
}
ALIASES = {"imagenet": "mobilenet_v2_1.0_224_ptq", "imagenet-paper": "mobilenet_v2_1.0_224_quant"}
MOBILENETV1 = {  # what "imagenet" is to a MobileNetV1 of this width
    0.25: "mobilenet_v1_0.25_128_quant",
    0.5: "mobilenet_v1_0.5_160_quant",
    0.75: "mobilenet_v1_0.75_192_quant",
    1.0: "mobilenet_v1_1.0_224_quant_embedding_extractor",
}


def weights_entry(name: str) -> WeightsFile:
    """The table's entry of a name or alias.

    Raises:
        WeightsError: the table has no such name; lists those it has.
    """
    entry = WEIGHTS.get(ALIASES.get(name, name))
    if entry is None:
        raise WeightsError(f"weights {name!r}: not a file, and not in the table ({', '.join([*ALIASES, *WEIGHTS])})")
    return entry


def find_weights(name: str) -> Path:
    """Return the local path of pretrained weights, downloading them where necessary; the checksum is verified.

    Raises:
        WeightsError: unknown name, file not found, no network, or a wrong checksum; says what to do.
    """
    entry = weights_entry(name)
    if local := os.environ.get("VIDLET_WEIGHTS"):
        return _find_local(entry, Path(local).expanduser())
    path = cache_folder("weights") / entry.file
    if not path.is_file():
        _download(entry, path)
    return _verified(entry, path, "delete it to download it again")


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from a .pt or .pth file (``weights_only``: no code of the file is run).

    A checkpoint that keeps it under "state_dict" or "model" is read too.

    Raises:
        WeightsError: not a file of PyTorch, truncated, or not a dict of tensors.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path}: cannot be read as a PyTorch state dict ({reason})") from error
    for key in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise WeightsError(f"{path}: holds a {type(data).__name__}, expected a state dict (names -> tensors)")
    return {str(key): value for key, value in data.items()}


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


def _find_local(entry: WeightsFile, folder: Path) -> Path:
    if not folder.is_dir():
        raise WeightsError(f"VIDLET_WEIGHTS={folder}: not a folder")
    found = sorted(path for path in folder.rglob(entry.file) if path.is_file())
    if not found:
        raise WeightsError(f"VIDLET_WEIGHTS={folder}: no {entry.file} in it or below; get it from {entry.url}")
    return _verified(entry, found[0], f"get it again from {entry.url}")


def _verified(entry: WeightsFile, path: Path, advice: str) -> Path:
    digest = sha256_of(path)
    if digest != entry.sha256:
        raise WeightsError(f"{path}: sha256 is {digest}, expected {entry.sha256}: damaged or another file; {advice}")
    return path


def _download(entry: WeightsFile, path: Path) -> None:
    """Fetch the file; it appears under its final name only whole and with the right checksum."""
    try:
        with atomic_path(path) as draft:
            with urllib.request.urlopen(entry.url, timeout=TIMEOUT_S) as source, draft.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            _verified(entry, draft, f"the download from {entry.url} is not what it was; set VIDLET_WEIGHTS to a copy")
    except OSError as error:  # URLError and time-outs included
        raise WeightsError(
            f"{entry.file}: cannot be downloaded ({error}); fetch {entry.url} by hand into {path.parent}, "
            "or set VIDLET_WEIGHTS to a folder that holds it"
        ) from error
