"""The folder of a page: ours, the runtime's and the model's files, beside the model's metadata as model.json.

ONNX Runtime cannot read metadata from JavaScript today, so the same object lies beside the model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import DependencyError, ExportError, ModelError
from ..files import cache_folder, sha256_of, write_bytes
from ..runtime import load

PAGE_FILES = ("client.js", "frames.js", "windows.js", "worker.js", "page.js", "start.js", "style.css", "index.html")

READ_ME = """\
A page that runs a video model in the browser, made by vidlet. Put this folder on any static server, or try it here:

    python3 -m http.server 8000        then open http://localhost:8000

Cameras need https or localhost; a page opened as a file cannot load its model. Nothing is uploaded.

runtime/ is of {name} {version} ({licence}), from npm, unchanged but for the names.
"""


# The files of onnxruntime-web that a page needs: which, where they come from, and how they reach this machine.
#
# Nothing of them is part of vidlet. ``find_runtime`` takes them from a folder that the user names, or from the one of
# ``VIDLET_ONNXRUNTIME_WEB``, or from the cache, or through the user's npm. What it returns has the checksums of the
# table.
NPM_TIMEOUT_S = 600.0
FOLDER_VARIABLE = "VIDLET_ONNXRUNTIME_WEB"


@dataclass(frozen=True)
class RuntimePackage:
    """One version of an npm package: the checksum of its archive, and the checksums of the files that are taken.

    ``files`` maps a name in the package's folder dist/ to (the name in the page's folder runtime/, SHA-256). The names
    end in .js because older servers do not know that .mjs is JavaScript.
    """

    name: str
    version: str
    sha256: str
    licence: str
    files: dict[str, tuple[str, str]]


RUNTIME = RuntimePackage(
    "onnxruntime-web",
    "1.30.0",
    "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
    "MIT",
    {
        "ort.wasm.min.mjs": (
            "ort.wasm.min.js",
            "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        ),
        "ort-wasm-simd-threaded.mjs": (
            "ort-wasm-simd-threaded.js",
            "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        ),
        "ort-wasm-simd-threaded.wasm": (
            "ort-wasm-simd-threaded.wasm",
            "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
        ),
    },
)


def find_runtime(folder: str | Path | None = None) -> dict[str, Path]:
    """Return where the files lie, by their names in the page: {"ort.wasm.min.js": path, ...}.

    Args:
        folder: of the unpacked npm package, its dist/, or a folder with node_modules; None: see the module.

    Raises:
        ExportError: a file is absent or not that of the table.
        DependencyError: there is neither a folder nor npm, or npm failed.
    """
    given = folder or os.environ.get(FOLDER_VARIABLE)
    if given:
        return _verified(_dist_of(Path(given).expanduser()))
    cached = cache_folder("web", f"{RUNTIME.name}-{RUNTIME.version}")
    if not all((cached / name).is_file() for name in RUNTIME.files):
        _download(cached)
    return _verified(cached)


def _dist_of(folder: Path) -> Path:
    """The folder with the files, from one that holds the package in one of the usual ways."""
    places = (".", "dist", "package/dist", f"{RUNTIME.name}/dist", f"node_modules/{RUNTIME.name}/dist")
    for place in places:
        if all((folder / place / name).is_file() for name in RUNTIME.files):
            return folder / place
    raise ExportError(
        f"{folder}: no folder of {RUNTIME.name}; {', '.join(RUNTIME.files)} are neither in it nor in its "
        f"{', '.join(places[1:])}"
    )


def _verified(folder: Path) -> dict[str, Path]:
    for name, (_, sha256) in RUNTIME.files.items():
        found = sha256_of(folder / name)
        if found != sha256:
            raise ExportError(
                f"{folder / name}: not the file of {RUNTIME.name} {RUNTIME.version} (SHA-256 {found[:12]}..., expected "
                f"{sha256[:12]}...); take that version, or delete a damaged copy"
            )
    return {shipped: folder / name for name, (shipped, _) in RUNTIME.files.items()}


def _download(folder: Path) -> None:
    """The package through the user's npm, checked, its three files kept."""
    package = f"{RUNTIME.name}@{RUNTIME.version}"
    by_hand = f"or give --runtime FOLDER, where {package} of npm was unpacked"
    npm = shutil.which("npm")
    if npm is None:
        raise DependencyError(
            f"export --format web takes {package} from npm, which is not installed; install it, {by_hand}"
        )
    with tempfile.TemporaryDirectory(prefix="vidlet-web-") as draft:
        command = [npm, "pack", package, "--silent", "--pack-destination", draft]
        try:
            done = subprocess.run(
                command, cwd=draft, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DependencyError(f"npm pack {package} did not finish ({error}); {by_hand}") from error
        archives = list(Path(draft).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "no archive came")
            raise DependencyError(f"npm pack {package} failed ({said.strip()[:200]}); {by_hand}")
        if (found := sha256_of(archives[0])) != RUNTIME.sha256:
            raise DependencyError(f"npm pack {package}: SHA-256 {found}, expected {RUNTIME.sha256}; nothing was used")
        with tarfile.open(archives[0]) as archive:
            for name in RUNTIME.files:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None, name  # the checksum says that it is there
                write_bytes(folder / name, member.read())


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
