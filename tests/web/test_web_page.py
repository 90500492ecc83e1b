"""The page in headless Chromium: a fake camera, a file, boxes, our scores on the same bytes, and each bad input."""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

import artifacts
from vidlet.runtime import load, predict_timeline
from vidlet.video import resize, write_video
from vidlet.web import RUNTIME, write_page
from vidlet.web.page_folder import FOLDER_VARIABLE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
PATIENCE_MS = 60_000

pytestmark = [
    pytest.mark.slow,  # a browser and a runtime of 14 MB
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path"),
    pytest.mark.skipif(
        not os.environ.get(FOLDER_VARIABLE),
        reason=f"{FOLDER_VARIABLE} does not name a folder with {RUNTIME.name} {RUNTIME.version} of npm",
    ),
]


class QuietServer(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page of a model that classifies and detects, beside a video; (address, folder, model)."""
    folder = tmp_path_factory.mktemp("web")
    both = artifacts.classifier(size=(24, 32))
    boxes = artifacts.detector()
    boxes.graph.input[0].CopyFrom(both.graph.input[0])
    boxes = onnx.compose.add_prefix(boxes, "boxes.", rename_inputs=False, rename_outputs=False)
    both.graph.node.extend(boxes.graph.node)
    both.graph.initializer.extend(boxes.graph.initializer)
    both.graph.output.extend(boxes.graph.output)
    model = artifacts.save(both, folder / "both.onnx", box_labels=["all", "left"])
    write_page(model, folder / "page")
    colors = [(0, 0, 250)] * 40 + [(250, 0, 0)] * 40
    frames = [np.broadcast_to(np.array(color, np.uint8), (48, 64, 3)) for color in colors]
    write_video(folder / "clip.mp4", frames, 20)
    (folder / "broken.mp4").write_bytes(b"no video")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietServer, directory=str(folder / "page"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", folder, load(model, threads=1)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, site) -> Iterator:
    """The page, ready, at a phone's width; at the end it has asked nobody but its own server, and nothing failed."""
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    failed: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
    context.on("request", lambda request: asked.append(request.url))
    page.goto(site[0])
    page.wait_for_selector('html[data-state="ready"]')
    yield page
    assert failed == []
    assert all(url.startswith((site[0], "data:", "blob:")) for url in asked)
    context.close()


SCORE = """async ({pixels, height, width}) => {
    const frames = await import("./frames.js");
    const ort = await import("./runtime/ort.wasm.min.js");
    const { openModel } = await import("./client.js");
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = {mjs: new URL("./runtime/ort-wasm-simd-threaded.js", location).href,
                              wasm: new URL("./runtime/ort-wasm-simd-threaded.wasm", location).href};
    const about = await (await fetch("model.json")).json();
    const bytes = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
    const model = await openModel(ort, bytes, about);
    const rgb = frames.resize(Uint8Array.from(pixels), height, width, 3, model.height, model.width);
    const found = await model.run(rgb, model.zeroState());
    return {scores: [...found.scores], boxes: [...found.boxes]};
}"""


def test_the_browser_gives_our_scores_and_boxes_on_the_same_bytes(opened, site):
    picture = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    found = opened.evaluate(SCORE, {"pixels": picture.ravel().tolist(), "height": 60, "width": 50})
    step = site[2].run(resize(picture, site[2].input_size)[None])
    np.testing.assert_allclose(found["scores"], step.scores[0], atol=1e-4)
    np.testing.assert_allclose(np.reshape(found["boxes"], (-1, 6)), step.boxes, atol=1e-4)


def test_a_file_gives_a_timeline_and_boxes_and_fits_a_phone(opened, site):
    opened.set_input_files("#file", str(site[1] / "clip.mp4"))
    opened.wait_for_selector('html[data-state="ended"]')
    told = opened.locator("#segments li").all_inner_texts()
    of_python = predict_timeline(site[2], site[1] / "clip.mp4").segments
    assert [line.split()[-3] for line in told] == [segment.label for segment in of_python]
    ends_s = [float(line.split()[3]) for line in told]
    np.testing.assert_allclose(ends_s, [segment.end_s for segment in of_python], atol=0.26)  # the browser's own ticks
    assert "blue" in told[0] and "red" in told[-1] and told[0].split()[0] == "0.0"
    assert opened.locator("#label").inner_text() == "red"
    assert "all" in opened.locator("#found").inner_text()
    assert "frames/s" in opened.locator("#figures").inner_text()
    assert "has ended: 2 segments" in opened.locator("#status").inner_text()
    assert opened.locator("#scores li").count() == 4
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 === 3 && v)"
    assert opened.locator("#boxes").evaluate(drawn) and opened.locator("#timeline").evaluate(drawn)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_camera_is_watched_by_keyboard_and_stopped(opened, site):
    opened.context.grant_permissions(["camera"], origin=site[0].rstrip("/"))
    assert opened.locator("#label").get_attribute("aria-live") == "polite"
    opened.locator("#camera").focus()
    opened.keyboard.press("Enter")
    playwright.expect(opened.locator("#figures")).to_contain_text("dropped", timeout=PATIENCE_MS)
    assert "Watching the camera" in opened.locator("#status").inner_text()
    mirrored = "document.documentElement.hasAttribute('data-mirror')"
    assert opened.evaluate(mirrored)  # a camera of which nothing is known looks at the person
    opened.click("#mirror")
    assert not opened.evaluate(mirrored)
    opened.locator("#stop").focus()
    opened.keyboard.press("Enter")
    assert opened.locator("#status").inner_text() == "Stopped."
    assert opened.evaluate("document.activeElement.id") == "camera"  # the focus is not lost with the button


def test_a_stream_that_changes_its_size_is_told(opened):
    opened.evaluate("""async () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
        const pen = canvas.getContext("2d");
        setInterval(() => { pen.fillStyle = `hsl(${performance.now() / 10} 90% 50%)`; pen.fillRect(0, 0, 999, 999); },
            40);
        navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(20);
        window.grow = () => Object.assign(canvas, { width: 96, height: 64 });
    }""")
    opened.click("#camera")
    playwright.expect(opened.locator("#figures")).to_contain_text("frames/s", timeout=PATIENCE_MS)
    opened.evaluate("window.grow()")
    playwright.expect(opened.locator("#status")).to_contain_text("changed its size from 64 × 48", timeout=PATIENCE_MS)
    opened.evaluate("document.getElementById('video').srcObject.getVideoTracks()[0].onended()")
    assert "camera went away" in opened.locator("#problem").inner_text()


@pytest.mark.parametrize(
    ("name", "said"), [("NotAllowedError", "Allow it"), ("NotFoundError", "No camera was found"), ("none", "localhost")]
)
def test_what_is_wrong_with_a_camera_is_a_sentence(opened, name, said):
    opened.evaluate("""(name) => {
        if (name === "none") Object.defineProperty(navigator, "mediaDevices", { value: undefined });
        else navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("no", name); };
    }""", name)  # fmt: skip
    opened.click("#camera")
    opened.wait_for_selector("#problem:not([hidden])")
    assert said in opened.locator("#problem").inner_text()


def test_a_file_that_cannot_be_played_is_a_sentence(opened, site):
    opened.set_input_files("#file", str(site[1] / "broken.mp4"))
    opened.wait_for_selector("#problem:not([hidden])")
    assert "cannot play broken.mp4" in opened.locator("#problem").inner_text()


def test_a_page_opened_as_a_file_and_a_browser_without_simd_are_told(browser, site):
    context = browser.new_context()
    page = context.new_page()
    page.goto((site[1] / "page" / "index.html").as_uri())
    assert "python3 -m http.server" in page.locator("#problem").inner_text()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(site[0])
    assert "no WebAssembly SIMD" in page.locator("#problem").inner_text()
    assert page.locator("#camera").is_disabled()
    context.close()
