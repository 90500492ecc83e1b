"""An image model brought along as a file, FILE[:TENSOR]: what it changes in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from ..compression.tflite import NETWORKS
from ..errors import ModelError, WeightsError
from ..models.extractors import extractor_from_tflite
from ..models.tflite import open_reader
from ..models.tflite_network import is_float
from ..onnx_graph import Graph
from ..runtime.structure import check_structure


def extractor_overrides(text: str) -> dict[str, Any]:
    """Values of a recipe by dotted key, for a file .onnx or .tflite, up to one of its tensors (of TFLite: a block).

    Raises:
        WeightsError: no such file, or one that is not read.
    """
    file, tensor = split_name(text)
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(f"--extractor {text}: no such file")
    if path.suffix == ".tflite":
        return _of_tflite(path, tensor)
    if path.suffix != ".onnx":
        raise WeightsError(f"--extractor {text}: expected a file .onnx or .tflite, perhaps with :TENSOR behind it")
    found = {"extractor.name": "onnx", "extractor.weights": str(path), "extractor.cut": tensor, "extractor.width": 1.0}
    return {**found, **_size_of(path)}


def split_name(text: str) -> tuple[str, str]:
    """ "net.onnx:maps" -> ("net.onnx", "maps"); names of tensors may hold colons, too."""
    for suffix in (".onnx", ".tflite"):
        file, mark, tensor = text.partition(f"{suffix}:")
        if mark:
            return file + suffix, tensor
    return text, ""


def _size_of(path: Path) -> dict[str, Any]:
    """The size of the pictures, where the file fixes it."""
    try:
        data = path.read_bytes()
        check_structure(data, str(path))
        graph = Graph(onnx.load_from_string(data))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except ModelError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # protobuf's own
        raise WeightsError(f"{path}: not an ONNX file ({' '.join(str(error).split())[:160]})") from error
    shapes = [value.type.tensor_type.shape.dim for value in graph.proto.input if value.name in graph.inputs]
    size = [dim.dim_value for dim in shapes[0][2:]] if shapes and len(shapes[0]) == 4 else [0]
    return {"extractor.input_size": size} if all(size) else {}


def _of_tflite(path: Path, tensor: str) -> dict[str, Any]:
    """A quantized MobileNet becomes ours with its ranges; of a float network the graph is read, as of an ONNX file."""
    if is_float(path):
        return {
            "extractor.name": "onnx",
            "extractor.width": 1.0,
            "extractor.weights": str(path),
            "extractor.cut": tensor,
            "extractor.input_size": open_reader(path).picture(),
            "extractor.options.pixels": "signed",
        }
    first: WeightsError | None = None
    for network, (whole, widths) in NETWORKS.items():
        for width in widths:
            try:
                found = extractor_from_tflite(path, width, whole, network=network)
            except WeightsError as error:
                first = first or error
                continue
            return {
                "extractor.name": network.__name__.lower(),
                "extractor.width": width,
                "extractor.weights": str(path),
                "extractor.cut": tensor or whole,
                "extractor.input_size": list(found.input_size),
            }
    assert first is not None
    raise first
