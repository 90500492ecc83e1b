"""Pictures of pages as a person sees them: desktop, a phone of 390 pixels, dark; to be looked at, before and after.

    python benchmarks/screens.py --out screens/ PAGE...   a report (.html), or a folder of `vidlet export --format web`

A page is a file a look: PAGE-desktop.png, -phone.png, -dark.png, long ones in pieces of two screens (-1, -2 ...). What
reaches over the right edge of a phone is listed: only what scrolls by itself may. Needs playwright (of the extra dev)
and a Chromium of the system (apt-get install chromium); downloads none.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}
SCREENS = 2  # of a piece
FLAGS = ("--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
OVER_THE_EDGE = """() => {
    const width = document.documentElement.clientWidth, found = [];
    for (const node of document.querySelectorAll("body *")) {
        if (node.closest(".scroll, pre, svg, nav") || node.getBoundingClientRect().right <= width + 1) continue;
        found.push(node.tagName.toLowerCase() + " " + node.className + ": " + node.textContent.trim().slice(0, 40));
    }
    return found;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--look", action="append", choices=LOOKS, help="only this one; may be repeated")
    parser.add_argument("--after", metavar="SELECTOR", help="click this first, as in #camera")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for page in args.pages:
            with _address(page) as address:
                for look in args.look or LOOKS:
                    _take(browser, address, page, look, args.out, args.after)
        browser.close()


@contextmanager
def _address(page: Path) -> Iterator[str]:
    """The address of a file, or of a folder while it is served (modules are not loaded from files)."""
    if page.is_file():
        yield page.resolve().as_uri()
        return
    handler = functools.partial(_Quiet, directory=str(page))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _take(browser: Any, address: str, page: Path, look: str, out: Path, after: str | None) -> None:
    tab = browser.new_page(**LOOKS[look])
    tab.goto(address)
    tab.wait_for_selector("button[disabled]", state="detached", timeout=120_000)  # the model is loaded
    if after:
        tab.click(after)
        tab.wait_for_timeout(2000)
    name = f"{page.parent.name}-{page.stem}" if page.is_file() else page.name
    width, height = (LOOKS[look]["viewport"][side] for side in ("width", "height"))
    whole = tab.evaluate("document.documentElement.scrollHeight")
    pieces = range(0, whole, SCREENS * height)
    for number, top in enumerate(pieces, 1):
        path = out / f"{name}-{look}{f'-{number}' if len(pieces) > 1 else ''}.png"
        area = {"x": 0, "y": top, "width": width, "height": min(SCREENS * height, whole - top)}
        tab.screenshot(path=path, full_page=True, clip=area)
        print(path)
    if look == "phone":
        for line in tab.evaluate(OVER_THE_EDGE):
            print(f"over the edge: {line}")
    tab.close()


if __name__ == "__main__":
    main()
