"""Export: a run's file once more, checked; a page; darknet's files; extractors and detectors that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError
from ..files import write_bytes
from ..runs import DETECTOR, MODEL, model_file, product_of
from ..runtime import load
from ..runtime.metadata import is_ours


def export(
    source: str | Path,
    out: str | Path,
    format: str = "onnx",
    runtime: str | Path | None = None,
    labels: str | Path | None = None,
) -> dict[str, Any]:
    """Write ``out`` from a run folder, a model file, a .tflite extractor, or a detector that others trained.

    Args:
        format: "onnx" writes a file (needs the training extra); "web" a folder with a page that runs the model;
            "darknet", of the run of a tiny-yolov2, OUT.cfg, OUT.weights and OUT.names; "litert" a .tflite file for
            phones, one frame a call, of a classifier on frames (needs the extra ``litert``).
        labels: of such a detector, see ``export_brought``.
        runtime: of "web", a folder of the npm package onnxruntime-web; None: see ``vidlet.web.find_runtime``.

    Raises:
        ExportError: the source is none of these, or the format is unknown. DependencyError: no onnxruntime-web.
    """
    path = Path(source)
    if labels is not None and not (format == "onnx" and _is_brought(path)):
        raise ExportError(f"--labels {labels}: names the classes of a detector that others trained; {path} is none")
    if format == "web":
        return _export_page(_model_file(path), Path(out), runtime)
    if format not in ("onnx", "darknet", "litert") or runtime is not None:
        raise ExportError(f"--format {format}: known are onnx, darknet, litert, and web, which alone takes --runtime")
    if format == "darknet":
        return _export_darknet(path, Path(out))
    if format == "litert":
        from ..artifact.litert import export_litert

        metrics = export_litert(_model_file(path), out)
    elif _is_brought(path):
        from ..artifact.detector import export_brought

        metrics = export_brought(path, Path(out), labels)
    elif path.suffix == ".tflite":
        from ..compression.tflite import export_tflite

        metrics = export_tflite(path, out)
    else:
        metrics = _export_model(_model_file(path), Path(out))
    return {"out": str(out), "files": {Path(out).name: Path(out).stat().st_size}, "metrics": metrics}


def _is_brought(path: Path) -> bool:
    """Whether a file is darknet's, or an ONNX file that is not ours."""
    return path.is_file() and (path.suffix == ".weights" or (path.suffix == ".onnx" and not is_ours(path)))


def _model_file(source: Path) -> Path:
    path = product_of(source) if model_file(source).is_file() else source
    if path.suffix != ".onnx" or not path.is_file():
        raise ExportError(f"{path}: not a run folder with a {MODEL}, a model file or a .tflite extractor")
    return path


def _export_page(path: Path, out: Path, runtime: str | Path | None) -> dict[str, Any]:
    from ..runtime import inspect_artifact
    from ..web import has_integers, write_page

    files = write_page(path, out, runtime)
    metrics = {"bytes": sum(files.values()), "integers": has_integers(inspect_artifact(path)["operators"])}
    return {"out": str(out), "files": files, "metrics": metrics}


def _export_darknet(folder: Path, out: Path) -> dict[str, Any]:
    """Write a trained tiny-YOLOv2 as darknet's files; ``out`` with or without one of their suffixes."""
    from ..models.darknet import write_darknet
    from ..models.detector import load_detector
    from ..models.tiny_yolo import TinyYolo

    if not (folder / DETECTOR).is_file():
        raise ExportError(f"{folder}: not the run folder of a detector: it has no {DETECTOR}")
    detector = load_detector(folder / DETECTOR)
    network, plan = detector.network, detector.plan
    if not isinstance(network, TinyYolo) or plan is None:
        raise ExportError(f"{folder}: darknet has no {plan.name if plan else 'such network'}; a tiny-yolov2 is written")
    stem = out.with_suffix("") if out.suffix in (".cfg", ".weights", ".names") else out
    files = write_darknet(network, detector.anchors.numpy(), plan.labels, detector.input_size, stem)
    return {
        "out": str(stem),
        "files": {path.name: path.stat().st_size for path in files},
        "metrics": {"labels": len(plan.labels), "input_size": list(detector.input_size)},
    }


def _export_model(path: Path, out: Path) -> dict[str, Any]:
    from ..artifact import check_parity

    model = load(path)
    data = path.read_bytes()
    frames = np.random.default_rng(0).integers(0, 256, (6, *model.input_size, 3)).astype(np.uint8)
    check_parity(data, frames)
    write_bytes(out, data)
    return {"labels": len(model.labels), "streaming": "equals the clip"}
