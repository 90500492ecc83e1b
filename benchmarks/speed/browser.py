"""Milliseconds a frame in a browser: the page's own client in headless Chromium, one thread; float32, int8, weights8.

    pip install playwright            # drives the chromium of the system; downloads none itself
    python benchmarks/speed/browser.py [--rounds 5] [--frames 40] [--runtime FOLDER] [--keep FOLDER] [--json]
        [MODEL ...]

Without MODEL: MobileNetV2 ("imagenet" weights), whole with a mean over time and cut at block12 with a grid-gru, each in
float32, in int8 and with weights in 8 bits; the heads are untrained, which costs the same. --keep leaves these six
files in a folder, and takes them from it.
FOLDER of --runtime holds onnxruntime-web of npm; without it see `vidlet export --format web`.

A frame is what the page does with one: into four staggered windows (model), and the resize from 640 x 480 before it.
Pages stay open and take turns, so that whatever else the machine does meets all alike. Load time is from the request to
a model that is ready, in a browser without a cache; bytes are what the server sent, and what gzip would make of them.

Target: the cut float32 file at 25 frames/s, resize included.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.web import write_page

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

CUTS = {"whole": ("head", 0, "mean"), "cut at block12": ("block12", 4, "grid-gru")}
KINDS = {"float32": "", "int8": "int8+compact", "weights8": "weights8+compact"}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE_MS = 180_000

PREPARE = """async () => {
    const ort = await import("./runtime/ort.wasm.min.js");
    const { openModel } = await import("./client.js");
    const { StaggeredWindows } = await import("./windows.js");
    const { resize } = await import("./frames.js");
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = {mjs: new URL("./runtime/ort-wasm-simd-threaded.js", location).href,
                              wasm: new URL("./runtime/ort-wasm-simd-threaded.wasm", location).href};
    const about = await (await fetch("model.json")).json();
    const bytes = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
    const model = await openModel(ort, bytes, about);
    const windows = new StaggeredWindows(model, 16);
    const pixels = new Uint8ClampedArray(480 * 640 * 4);
    for (let i = 0; i < pixels.length; i++) pixels[i] = (i * 2654435761) >>> 24;
    window.measure = async (frames) => {
        const resizes = [], models = [];
        for (let number = 0; number < frames; number++) {
            pixels[number] ^= 255;
            const began = performance.now();
            const rgb = resize(pixels, 480, 640, 4, model.height, model.width);
            const resized = performance.now();
            await windows.push(rgb);
            resizes.push(resized - began);
            models.push(performance.now() - resized);
        }
        return { resizes, models };
    };
    await window.measure(3);
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40, help="a round, of each model")
    parser.add_argument("--runtime", metavar="FOLDER")
    parser.add_argument("--keep", metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {name: Path(name) for name in args.models} or mobilenets(Path(args.keep or folder))
        sites = {}
        for number, (name, path) in enumerate(models.items()):
            sites[name] = Path(folder) / f"site{number}"
            write_page(path, sites[name], args.runtime)
        rows = measure(sites, args.rounds, args.frames)
    save(args, "browser", rows_of(rows), ("web", "artifact", "compression"))
    if args.json:
        print(json.dumps(rows))
        return
    tell(rows)


def mobilenets(folder: Path) -> dict[str, Path]:
    """The six files, made where they are not there yet."""
    files = {f"{cut}, {kind}": folder / f"{cut.split()[0]}.{kind}.onnx" for cut in CUTS for kind in KINDS}
    for cut, (block, grid, head) in CUTS.items():
        if not all(path.is_file() for name, path in files.items() if name.startswith(cut)):
            make([files[f"{cut}, {kind}"] for kind in KINDS], block, grid, head)
    return files


def make(paths: list[Path], block: str, grid: int, head_name: str) -> None:
    """An untrained head behind the pretrained network, as a file of each kind."""
    from vidlet.artifact import ArtifactNetwork, artifact_graph, artifact_metadata, write_artifact
    from vidlet.compression import find_chain, shrink_graph
    from vidlet.models import build_extractor, build_head
    from vidlet.recipe import Extractor, Head, Recipe

    extractor = build_extractor(Extractor(weights="imagenet", cut=block, grid=grid)).eval()
    head = build_head(Head(head_name), extractor.feature_shape, 10)
    graph = artifact_graph(ArtifactNetwork(extractor, head).eval(), extractor.input_size)
    labels = tuple(f"class {number}" for number in range(10))
    about = artifact_metadata(Recipe("benchmark", head=Head(head_name)), labels, 2.0, extractor.provenance)
    frames = np.random.default_rng(0).integers(0, 256, (4, *extractor.input_size, 3), np.uint8)
    for path, chain in zip(paths, KINDS.values(), strict=True):
        write_artifact(shrink_graph(find_chain(chain), graph, [frames]) if chain else graph, path, about, frames)


def measure(sites: dict[str, Path], rounds: int, frames: int) -> dict[str, dict[str, float]]:
    """Figures of each page."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        raise SystemExit(f"none of {', '.join(names)} is on the path")
    rows: dict[str, dict[str, Any]] = {}
    with sync_playwright() as driver:
        pages = {}
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for name, folder in sites.items():
            with served(folder) as (address, sent):
                context = browser.new_context()
                page = context.new_page()
                page.set_default_timeout(PATIENCE_MS)
                began = time.perf_counter()
                page.goto(address)
                page.wait_for_selector('html[data-state="ready"]')
                load_s, over_wire = time.perf_counter() - began, dict(sent)
                page.evaluate(PREPARE)
            pages[name] = page
            rows[name] = {
                "load_s": load_s,
                "bytes": sum(over_wire.values()),
                "gzip_bytes": sum(len(gzip.compress((folder / path).read_bytes())) for path in over_wire),
                "model_bytes": (folder / "model.onnx").stat().st_size,
            }
        found: dict[str, dict[str, list[float]]] = {name: {"resizes": [], "models": []} for name in sites}
        for _ in range(rounds):
            for name, page in pages.items():
                for key, times in page.evaluate("(frames) => window.measure(frames)", frames).items():
                    found[name][key] += times
        browser.close()
    for name, times in found.items():
        whole = [a + b for a, b in zip(times["resizes"], times["models"], strict=True)]
        rows[name] |= {
            "model_ms": statistics.median(times["models"]),
            "model_p95_ms": float(np.percentile(times["models"], 95)),
            "resize_ms": statistics.median(times["resizes"]),
            "frames_s": 1e3 / statistics.median(whole),
        }
    return rows


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """A static server on a folder: its address, and what it sent: {path: bytes}."""
    sent: dict[str, int] = {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0].strip("/") or "index.html"
            if (folder / path).is_file():
                sent[path] = (folder / path).stat().st_size
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", sent
    finally:
        server.shutdown()
        server.server_close()


def tell(rows: dict[str, dict[str, float]]) -> None:
    """A table for people."""
    print(
        "| file | model, ms a frame p50 / p95 | resize, ms | frames/s | load, s | sent, MB | gzipped, MB | model, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['model_ms']:.1f} / {row['model_p95_ms']:.1f} | {row['resize_ms']:.1f} | "
            f"{row['frames_s']:.1f} | {row['load_s']:.2f} | {row['bytes'] / 1e6:.2f} | {row['gzip_bytes'] / 1e6:.2f} | "
            f"{row['model_bytes'] / 1e6:.2f} |"
        )


if __name__ == "__main__":
    main()
