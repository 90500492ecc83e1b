"""One self-contained HTML file: no network, no other file, readable without its script, nothing in it runs but that."""

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path

from ..files import write_text
from . import sections
from .markup import Html, Section, element, join
from .report import Report


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the report, whole or not at all; parts that it does not have are left out."""
    write_text(path, report_html(report))


def report_html(report: Report) -> str:
    """The page as text."""
    files = sections.files(report)
    made = [*report.first, *([files] if files else []), *report.beside]
    made += [section for build in _ORDER if (section := build(report)) is not None]
    made += report.extra
    made += [section for build in _LAST if (section := build(report)) is not None]
    return page(report.title, heading("vidlet report", report.title, report.summary, sections.headline(report)), made)


def heading(kind: str, title: str, summary: str = "", figures: Html | str = "") -> Html:
    """The top of a page: which command's it is, its title, a sentence, and what stands large."""
    return element(
        "header",
        element("p", kind, class_="eyebrow"),
        element("h1", title),
        element("p", summary, class_="summary") if summary else "",
        figures,
        id="top",
    )


_ORDER = (
    sections.run_it,
    sections.learning,
    sections.confusion,
    sections.classes,
    sections.calibration,
    sections.mistakes,
    sections.inside,
)
_LAST = (sections.data, sections.provenance)


def page(title: str, header: Html, parts: list[Section]) -> str:
    """A whole document around a header and sections; its policy allows this style, this script and inline images."""
    style, script = _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    links = (element("li", element("a", part.title, href=f"#{part.anchor}")) for part in parts)
    body = element(
        "body",
        element("a", "Skip to the figures", href="#main", class_="skip"),
        header,
        element("nav", element("ul", *links), aria_label="Sections") if parts else "",
        element("main", *(_section(part) for part in parts), id="main"),
        element("footer", "Made by vidlet. This page is one file and asks nothing of the network."),
        element("script", script),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def insert_section(path: str | os.PathLike[str], part: Section, before: str) -> None:
    """Put a section into a report that is written already, before the one with this anchor; its links know it, too."""
    text = Path(path).read_text("utf-8")
    link, place = f'<li><a href="#{before}">', f'<section id="{before}"'
    entry = element("li", element("a", part.title, href=f"#{part.anchor}"))
    write_text(path, text.replace(link, entry + link, 1).replace(place, _section(part) + place, 1))


def _section(part: Section) -> Html:
    lead = element("p", part.lead, class_="lead") if part.lead else ""
    return element(
        "section",
        join([element("h2", part.title, id=f"{part.anchor}-title"), lead, part.html]),
        id=part.anchor,
        aria_labelledby=f"{part.anchor}-title",
    )


def _resource(name: str) -> Html:
    return Html((resources.files(__package__) / name).read_text("utf-8"))


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
