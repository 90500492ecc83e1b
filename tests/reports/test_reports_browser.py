"""The report in headless Chromium: silent, offline, usable with and without its script, on a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from report_case import GESTURES, made_up_report
from vidlet.reports import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, made_up_report())
    return path.as_uri()


@pytest.fixture
def page(browser, address) -> Iterator:
    """The opened report; at the end it must have said nothing and asked for nothing but itself."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    context.close()


def column(page, section: str, number: int) -> list[str]:
    return page.locator(f"#{section} tbody tr > :nth-child({number})").all_inner_texts()


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(page):
    recall = page.locator("#classes th", has_text="Recall")
    recall.locator("button").click()
    falling = [float(text.split()[0]) for text in column(page, "classes", 3)]
    assert falling == sorted(falling, reverse=True)
    assert recall.get_attribute("aria-sort") == "descending"
    recall.locator("button").click()
    rising = [float(text.split()[0]) for text in column(page, "classes", 3)]
    assert rising == sorted(falling)
    page.locator("#classes th button", has_text="Class").click()
    assert column(page, "classes", 1) == sorted(GESTURES, key=str.casefold)
    assert recall.get_attribute("aria-sort") is None


def test_missing_figures_stay_last_when_sorted(page):
    heading = page.locator("#files-compared th button", has_text="Against")
    for _ in range(2):
        heading.click()
        assert column(page, "files-compared", 4)[-1] == "–"


def test_the_matrix_switches_between_shares_and_clips(page):
    cell = page.locator(".confusion tbody tr").first.locator("td").first
    share = cell.inner_text()
    page.get_by_label("clips", exact=True).check(force=True)
    clips = cell.inner_text()
    total = page.locator(".confusion tbody tr").first.locator("td.total").inner_text()
    assert round(100 * int(clips) / int(total)) == int(share)


def test_classes_can_be_chosen(page):
    page.locator(".filter summary").click()
    page.locator("[data-choose=none]").click()
    assert page.locator(".confusion tbody tr:visible").count() == 0
    for name in ("tick", "circle"):
        page.locator(".choices").get_by_label(name).check()
    assert page.locator(".confusion tbody tr:visible th").all_inner_texts() == ["circle", "tick"]
    assert page.locator(".confusion thead th:visible").all_inner_texts() == ["circle", "tick", "clips"]
    assert page.locator(".confusion tbody td:visible:not(.total)").count() == 4
    page.locator("[data-choose=mistakes]").click()
    assert page.locator(".confusion tbody tr:visible").count() > 2
    page.locator("[data-choose=all]").click()
    assert page.locator(".confusion tbody tr:visible").count() == len(GESTURES)


def test_a_command_can_be_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("figure.code .copy").first
    button.click()
    page.wait_for_function("document.querySelector('.copy').textContent !== 'Copy'")
    assert page.evaluate("navigator.clipboard.readText()") == "vidlet predict model.int8.onnx clip.mp4"


def test_nothing_sticks_out_sideways(page):
    parts = "[...document.querySelectorAll('section, header, nav')].map(part => part.getBoundingClientRect().right)"
    for width in (320, 375, 820, 1280):
        page.set_viewport_size({"width": width, "height": 812})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert max(page.evaluate(parts)) <= width


def test_every_picture_is_decoded(page):
    assert page.evaluate(
        "Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth)))"
    )
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")


def test_text_stands_out_from_what_is_behind_it(page):
    """Contrast of every number in the matrix, in both themes, by the formula of WCAG 2.2."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 20
        assert min(contrasts) >= 4.5, scheme


CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const card = numbers(getComputedStyle(document.querySelector("section")).backgroundColor);
  return [...document.querySelectorAll(".confusion td[title]")].map((cell) => {
    const style = getComputedStyle(cell), [r, g, b, a = 1] = numbers(style.backgroundColor);
    const behind = light([r, g, b].map((v, i) => v * a + card[i] * (1 - a))), ink = light(numbers(style.color));
    return (Math.max(behind, ink) + 0.05) / (Math.min(behind, ink) + 0.05);
  });
}"""


def test_the_page_is_whole_without_its_script(browser, address):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 375, "height": 812})
    page = context.new_page()
    page.goto(address)
    assert page.locator("section").count() == 10
    assert page.locator("thead button").count() == 0
    assert not page.locator(".filter").is_visible()
    cell = page.locator(".confusion tbody tr").first.locator("td").first
    share = cell.inner_text()
    page.get_by_label("clips", exact=True).check(force=True)
    assert cell.inner_text() != share
    context.close()
