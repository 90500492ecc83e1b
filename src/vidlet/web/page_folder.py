"""The folder of a page: ours, the runtime's and the model's files, beside the model's metadata as model.json.

ONNX Runtime cannot read metadata from JavaScript today, so the same object lies beside the model.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ExportError, ModelError
from ..files import write_bytes
from ..runtime import load
from .runtime_files import RUNTIME, find_runtime

PAGE_FILES = ("client.js", "frames.js", "windows.js", "worker.js", "page.js", "start.js", "style.css", "index.html")

READ_ME = """\
A page that runs a video model in the browser, made by vidlet. Put this folder on any static server, or try it here:

    python3 -m http.server 8000        then open http://localhost:8000

Cameras need https or localhost; a page opened as a file cannot load its model. Nothing is uploaded.

runtime/ is of {name} {version} ({licence}), from npm, unchanged but for the names.
"""


def write_page(model: str | Path, out: str | Path, runtime: str | Path | None = None) -> dict[str, int]:
    """Write the page of a model file into the folder ``out``; return {name: bytes}.

    The model's bytes are copied as they are: the same artifact, the same contract (docs/clients.md).

    Args:
        runtime: folder of onnxruntime-web; None: see ``find_runtime``.

    Raises:
        ModelError: not a model file, or it takes no frames.
        ExportError: ``out`` holds other things; DependencyError: onnxruntime-web cannot be had.
    """
    path, folder = Path(model), Path(out)
    loaded = load(path, threads=1)
    loaded.needs_video()
    if "flow" in loaded.inputs:
        raise ModelError(f"{path}: takes optical flow, which the page does not compute")
    _check_free(folder)
    files: dict[str, bytes] = {f"runtime/{name}": found.read_bytes() for name, found in find_runtime(runtime).items()}
    files["model.onnx"] = path.read_bytes()
    files["model.json"] = _json(loaded.metadata)
    files["README.txt"] = READ_ME.format(**vars(RUNTIME)).encode()
    page = resources.files(__package__) / "page"
    for name in PAGE_FILES:  # index.html comes last: a page that is there is whole
        files[name] = (page / name).read_bytes()
    for name, data in files.items():
        write_bytes(folder / name, data)
    return {name: len(data) for name, data in files.items()}


def has_integers(operators: dict[str, int]) -> bool:
    """Whether a graph computes in 8 bits: wasm is slower at that than at float32, see docs/performance.md."""
    return any("Integer" in name or name.startswith("QLinear") or name == "QuantizeLinear" for name in operators)


def _check_free(folder: Path) -> None:
    """A folder that is absent, empty, or a page of ours."""
    if folder.is_file():
        raise ExportError(f"{folder}: is a file; --format web writes a folder")
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not all((folder / n).is_file() for n in ("client.js", "model.json"))
    ):
        raise ExportError(f"{folder}: holds other files and no page of vidlet; --out must be a new or an empty folder")


def _json(metadata: dict[str, Any]) -> bytes:
    return json.dumps(metadata, ensure_ascii=False, indent=1).encode()
