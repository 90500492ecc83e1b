"""Darknet's two files: a .cfg that describes the layers, a .weights that holds the numbers; those of tiny-YOLOv2.

.weights: int32 major, minor, revision; images seen, uint64 where 10 major + minor >= 2, else uint32; then for each
convolution bias, and with batch normalization scale, mean, variance; then weights (n, c, k, k); little-endian float32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ParityError, WeightsError
from ..files import write_bytes, write_text
from .tiny_yolo import HALVED, TinyYolo

MAX_CFG_BYTES = 2**20


@dataclass(frozen=True)
class Header:
    """The head of a .weights file."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0  # images that the network was trained on

    @property
    def wide(self) -> bool:
        """Whether ``seen`` has 8 bytes."""
        return 10 * self.major + self.minor >= 2


@dataclass(frozen=True)
class Section:
    """One [section] of a .cfg: its name, the line it begins at, its options as text."""

    name: str
    line: int
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DarknetFile:
    """What a .cfg of tiny-YOLOv2 says. ``anchors`` (A, 2) are in cells, ``input_size`` is (H, W)."""

    input_size: tuple[int, int]
    classes: int
    anchors: np.ndarray
    channels: tuple[int, ...]


def read_weights(path: str | Path) -> tuple[Header, np.ndarray]:
    """The head and the numbers of a .weights file, of whatever network.

    Raises:
        WeightsError: absent, too short for its head, not a whole number of floats, or of an unknown version.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({(error.strerror or 'unknown').lower()})") from error
    if len(data) < 16:
        raise WeightsError(f"{path}: {len(data)} bytes, less than the head of a .weights file")
    major, minor, revision = struct.unpack("<3i", data[:12])
    if not (0 <= major < 100 and 0 <= minor < 100):
        raise WeightsError(f"{path}: says version {major}.{minor}: not a .weights file")
    wide = Header(major, minor).wide
    start = 20 if wide else 16
    if len(data) < start:
        raise WeightsError(f"{path}: {len(data)} bytes, less than the head of a .weights file")
    (seen,) = struct.unpack("<Q" if wide else "<I", data[12:start])
    if (len(data) - start) % 4:
        raise WeightsError(f"{path}: {len(data)} bytes are no whole number of float32 values: it is truncated")
    return Header(major, minor, revision, seen), np.frombuffer(data, "<f4", offset=start)


def load_weights_(network: TinyYolo, path: str | Path) -> Header:
    """Fill a network from a .weights file.

    Raises:
        WeightsError: truncated, or of another network: names the layer. The network is then untouched.
    """
    header, values = read_weights(path)
    what = f"this tiny-YOLOv2 of {network.classes} classes and channels {_listed(network.channels)} has"
    network.load_state_dict(filled_state(list(_order(network)), values, path, what), strict=False)
    return header


def filled_state(
    order: Sequence[tuple[str, str, tuple[int, ...]]], values: np.ndarray, path: str | Path, what: str
) -> dict[str, Tensor]:
    """The numbers of a .weights file as tensors, given layer, name and shape of each in the order of the file."""
    state: dict[str, Tensor] = {}
    at = 0
    needed = sum(int(np.prod(shape)) for _, _, shape in order)
    for layer, key, shape in order:
        count = int(np.prod(shape))
        if at + count > len(values):
            raise WeightsError(
                f"{path}: ends in layer {layer} ({len(values)} values, {what} {needed}): truncated, or of another "
                "network"
            )
        part = values[at : at + count]
        if not np.isfinite(part).all():
            raise WeightsError(f"{path}: layer {layer}: {key.rpartition('.')[2]} is not finite: damaged")
        if key.endswith("running_var") and part.min() < 0:
            raise WeightsError(
                f"{path}: layer {layer}: its variance is negative ({part.min():.3g}): of another network"
            )
        state[key] = torch.from_numpy(part.reshape(shape).astype(np.float32))
        at += count
    if at < len(values):
        raise WeightsError(
            f"{path}: {len(values) - at} values are left behind the last layer, {order[-1][0]}: of another network "
            f"({what} {needed})"
        )
    return state


def write_weights(network: TinyYolo, path: str | Path, seen: int = 0, header: Header | None = None) -> int:
    """Write a network as a .weights file; return its bytes."""
    head = header or Header(seen=seen)
    state = network.state_dict()
    parts = [
        struct.pack("<3i", head.major, head.minor, head.revision),
        struct.pack("<Q" if head.wide else "<I", head.seen),
    ]
    parts += [state[key].detach().cpu().numpy().astype("<f4").tobytes() for _, key, _ in _order(network)]
    data = b"".join(parts)
    write_bytes(path, data)
    return len(data)


def parse_cfg(path: str | Path) -> list[Section]:
    """The sections of a .cfg file, of whatever network.

    Raises:
        WeightsError: not such a file; names the line.
    """
    try:
        data = Path(path).read_bytes()
        text = data[:MAX_CFG_BYTES].decode()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({(error.strerror or 'unknown').lower()})") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not a .cfg file ({error})") from error
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].partition(";")[0].strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1].strip().lower(), number))
        elif "=" in line and sections:
            key, _, value = line.partition("=")
            sections[-1].options[key.strip().lower()] = value.strip()
        else:
            raise WeightsError(f"{path}: line {number}: {line[:40]!r} is neither [section] nor key=value")
    if not sections or sections[0].name not in ("net", "network"):
        raise WeightsError(f"{path}: a .cfg file begins with [net]")
    return sections


def read_cfg(path: str | Path) -> DarknetFile:
    """Read the .cfg of a tiny-YOLOv2 of any size.

    Raises:
        WeightsError: of another network; names the layer and what is different.
    """
    net, *layers = parse_cfg(path)
    expected = list(_layers())
    found: list[int] = []
    for i, (name, kind, wanted) in enumerate(expected):
        if i >= len(layers):
            raise WeightsError(f"{path}: ends before layer {name}: not a tiny-YOLOv2")
        section = layers[i]
        where = f"{path}: line {section.line}: layer {name}"
        if section.name != kind:
            raise WeightsError(f"{where} should be [{kind}], is [{section.name}]: not a tiny-YOLOv2")
        for key, value in wanted.items():
            if (got := option_of(section, key)) != value:
                raise WeightsError(f"{where} should have {key}={value}, has {key}={got}: not a tiny-YOLOv2")
        if kind == "convolutional":
            found.append(number_of(section, "filters", path))
    if len(layers) > len(expected):
        extra = layers[len(expected)]
        raise WeightsError(f"{path}: line {extra.line}: [{extra.name}] behind the last layer: not a tiny-YOLOv2")
    region = layers[-1]
    classes, count = number_of(region, "classes", path), number_of(region, "num", path)
    try:
        anchors = np.array([float(cell) for cell in region.options.get("anchors", "").split(",")]).reshape(count, 2)
    except ValueError as error:
        raise WeightsError(f"{path}: line {region.line}: anchors must be {2 * count} numbers") from error
    if found[-1] != count * (5 + classes):
        raise WeightsError(
            f"{path}: layer predict has {found[-1]} filters, {count} anchors of {classes} classes need "
            f"{count * (5 + classes)}"
        )
    size = (number_of(net, "height", path), number_of(net, "width", path))
    return DarknetFile(size, classes, anchors, tuple(found[:-1]))


def load_darknet(cfg: str | Path, weights: str | Path) -> tuple[TinyYolo, DarknetFile, Header]:
    """A tiny-YOLOv2 from its two files, in eval mode.

    Raises:
        WeightsError: either is of another network, or damaged; names the layer.
    """
    found = read_cfg(cfg)
    network = TinyYolo(found.classes, len(found.anchors), channels=found.channels)
    return network.eval(), found, load_weights_(network, weights)


def write_cfg(network: TinyYolo, anchors: np.ndarray, input_size: tuple[int, int], path: str | Path) -> None:
    """Write the .cfg that describes a network; ``anchors`` (A, 2) in cells."""
    filters = iter((*network.channels, network.out_channels))
    lines = ["[net]", f"height={input_size[0]}", f"width={input_size[1]}", "channels=3", ""]
    for _, kind, wanted in _layers():
        lines.append(f"[{kind}]")
        options = dict(wanted)
        if kind == "convolutional":
            options |= {"filters": str(next(filters))}
        if kind == "region":
            flat = ",".join(f"{value:.9g}" for value in np.asarray(anchors).reshape(-1))
            options |= {"anchors": flat, "classes": str(network.classes), "num": str(network.anchors)}
        lines += [*(f"{key}={value}" for key, value in options.items()), ""]
    write_text(path, "\n".join(lines))


def write_darknet(
    network: TinyYolo, anchors: np.ndarray, labels: Sequence[str], input_size: tuple[int, int], stem: Path
) -> list[Path]:
    """Write STEM.cfg, STEM.weights and STEM.names (a class a line), and read them again; ``anchors`` (A, 2) in cells.

    Raises:
        ParityError: what was read is not what was written.
    """
    cfg, weights, names = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".cfg", ".weights", ".names"))
    write_cfg(network, anchors, input_size, cfg)
    write_weights(network, weights)
    write_text(names, "".join(f"{label}\n" for label in labels))
    again, found, _ = load_darknet(cfg, weights)
    state = again.state_dict()
    same = all(
        torch.equal(value.cpu(), state[name]) for name, value in network.state_dict().items() if "tracked" not in name
    )
    if not same or not np.allclose(found.anchors, anchors, rtol=1e-6):
        raise ParityError(f"{weights}: the numbers that were read again are not those that were written")
    return [cfg, weights, names]


def _layers() -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Name, kind and fixed options of the layers of tiny-YOLOv2, in darknet's order."""
    block = {"batch_normalize": "1", "size": "3", "stride": "1", "pad": "1", "activation": "leaky"}
    for i in range(8):
        yield f"conv{i + 1}", "convolutional", block
        if i <= HALVED:
            yield f"pool{i + 1}", "maxpool", {"size": "2", "stride": "2" if i < HALVED else "1"}
    yield "predict", "convolutional", {"size": "1", "stride": "1", "activation": "linear", "batch_normalize": "0"}
    yield "region", "region", {"softmax": "1"}


_DEFAULTS = {"batch_normalize": "0", "size": "1", "stride": "1", "pad": "0", "activation": "logistic", "softmax": "0",
             "groups": "1"}  # fmt: skip


def option_of(section: Section, key: str) -> str:
    if key == "pad" and section.options.get("padding") == "1":
        return "1"
    return section.options.get(key, _DEFAULTS[key])


def number_of(section: Section, key: str, path: str | Path) -> int:
    text = section.options.get(key, "")
    if not text.isdecimal() or not 0 < int(text) < 2**20:
        raise WeightsError(f"{path}: line {section.line}: [{section.name}] needs a number {key}, has {text!r}")
    return int(text)


def _order(network: TinyYolo) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Layer, tensor and shape in the order of the file."""
    state = network.state_dict()
    for i in range(len(network.channels)):
        for key in ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight"):
            name = f"conv{i + 1}.{key}"
            yield f"conv{i + 1}", name, tuple(state[name].shape)
    for key in ("bias", "weight"):
        yield "predict", f"predict.{key}", tuple(state[f"predict.{key}"].shape)


def _listed(values: Sequence[int]) -> str:
    return " ".join(map(str, values))
