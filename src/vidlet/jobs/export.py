"""Export: a finished run's file once more, checked, or a quantized TFLite extractor as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError
from ..export import check_parity
from ..files import write_bytes
from ..runtime import load


def export(source: str | Path, out: str | Path, format: str = "onnx") -> dict[str, Any]:
    """Write ``out`` from a run folder, a model file or a .tflite extractor.

    Raises:
        ExportError: the source is none of these, or the format is unknown.
    """
    path = Path(source)
    if format != "onnx":
        raise ExportError(f"--format {format}: known is onnx")
    if path.suffix == ".tflite":
        from ..compress.tflite import export_tflite

        metrics = export_tflite(path, out)
    else:
        metrics = _export_model(path / "model.onnx" if path.is_dir() else path, Path(out))
    return {"out": str(out), "files": {Path(out).name: Path(out).stat().st_size}, "metrics": metrics}


def _export_model(path: Path, out: Path) -> dict[str, Any]:
    if path.suffix != ".onnx" or not path.is_file():
        raise ExportError(f"{path}: not a run folder with a model.onnx, a model file or a .tflite extractor")
    model = load(path)
    data = path.read_bytes()
    frames = np.random.default_rng(0).integers(0, 256, (6, *model.input_size, 3)).astype(np.uint8)
    check_parity(data, frames)
    write_bytes(out, data)
    return {"labels": len(model.labels), "streaming": "equals the clip"}
