"""Charts as hand-made SVG: they need no library, follow the page's light and dark colors, and speak through titles.

Sizes are in units of the view box, 400 wide for whole charts; the page scales them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .markup import Html, element, figure, join
from .text import rate_text

WIDTH, HEIGHT = 400, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 12, 34
_MOST_MARKERS = 80


@dataclass(frozen=True)
class Series:
    """One line of a chart: y (n,) over x (n,); a y that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Scale:
    """A linear map from data to view-box units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, most: int = 6, step_at_least: float = 0.0) -> list[float]:
    """Round values (steps of 1, 2, 2.5 or 5 times a power of ten) that enclose low..high."""
    span = max(high - low, abs(high) * 1e-9, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(f * power for f in (1, 2, 2.5, 5, 10, 20) if span / (f * power) <= most - 1)
    step = max(step, step_at_least)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def plain(value: float) -> str:
    """A tick's number, as short as it can be."""
    return f"{value:g}"


def percent(value: float) -> str:
    """A tick's fraction as a percentage."""
    return f"{value * 100:g} %"


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    y_text: Callable[[float], str] = plain,
) -> Html:
    """Lines over a common axis with a legend; every point tells its values. ``title`` says what y is."""
    drawn = [s for s in series if any(math.isfinite(y) for y in s.y)]
    xs = [x for s in drawn for x in s.x] or [0.0, 1.0]
    ys = [y for s in drawn for y in s.y if math.isfinite(y)] or [0.0, 1.0]
    y_ticks = ticks(*(y_range or (min([*ys, 0.0]), max(ys))))
    x_ticks = [x for x in ticks(min(xs), max(xs), step_at_least=1.0) if min(xs) <= x <= max(xs)]
    x = Scale(min(xs), max(xs), _LEFT + 6, WIDTH - _RIGHT - 6)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    shapes = [axes(x, y, x_ticks=x_ticks, y_ticks=y_ticks, x_label=x_label, y_text=y_text)]
    for number, line in enumerate(drawn):
        points = list(zip(line.x, line.y, strict=True))
        runs = [list(run) for known, run in groupby(points, lambda p: math.isfinite(p[1])) if known]
        for run in runs:
            path = " ".join(f"{x(px)},{y(py)}" for px, py in run)
            shapes.append(element("polyline", points=path, class_=f"line c{number}"))
            if len(points) <= _MOST_MARKERS:
                kind = f"{'point' if len(run) > 1 else 'dot'} c{number}"  # a point shows itself under the pointer
                told = (f"{line.name}, {x_label} {px:g}: {_told(py, y_text)}" for px, py in run)
                shapes += [_dot(x(px), y(py), text, kind) for (px, py), text in zip(run, told, strict=True)]
    names = ", ".join(s.name for s in drawn)
    picture = svg(join(shapes), f"{title} over {x_label}: {names}")
    return figure(picture, join([element("strong", title), legend([s.name for s in drawn])]))


def legend(names: Sequence[str], first: int = 0) -> Html:
    """Names with the colors ``first``, ``first + 1``, ... of eight."""
    entries = (element("li", element("i", class_=f"swatch c{i % 8}"), name) for i, name in enumerate(names, first))
    return element("ul", *entries, class_="legend")


def reliability_chart(confidence: Sequence[float], accuracy: Sequence[float], clips: Sequence[int]) -> Html:
    """Accuracy of the clips in each range of scores, against the diagonal of perfect calibration; clips below."""
    bins, total = len(clips), max(max(clips, default=0), 1)
    x = Scale(0, 1, _LEFT + 2, WIDTH - _RIGHT - 2)
    y = Scale(0, 1, HEIGHT - _BOTTOM, _TOP)
    label = "score of the predicted class"
    quarters = [0.0, 0.25, 0.5, 0.75, 1.0]
    shapes = [axes(x, y, x_ticks=quarters, y_ticks=quarters, x_label=label, x_text=percent, y_text=percent)]
    for i in range(bins):
        if not clips[i]:
            continue
        told = (
            f"scores {i / bins:.2f} to {(i + 1) / bins:.2f}: {clips[i]} clips, "
            f"{rate_text(accuracy[i])} right, mean score {rate_text(confidence[i])}"
        )
        left, right, top = x(i / bins) + 1, x((i + 1) / bins) - 1, y(accuracy[i])
        opacity = round(0.35 + 0.65 * clips[i] / total, 2)
        shapes.append(_block(left, top, (right - left, y(0) - top), told, class_="fill c1", fill_opacity=opacity))
        shapes.append(_dot(x(confidence[i]), top, told, "dot c0"))
    shapes.append(element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"))
    picture = svg(join(shapes), f"Reliability diagram of {sum(clips)} clips in {bins} bins of scores")
    note = "Bars: how often the model is right at a score (darker: more clips). Dots: at the mean score of the bin."
    return figure(picture, join([element("strong", "Reliability"), element("span", note, class_="note")]))


def bar(share: float, kind: str = "c1") -> Html:
    """A fraction as a small horizontal bar beside its number; it says nothing more, so it is hidden from readers."""
    width = round(60 * min(max(share, 0.0), 1.0), 1)
    shapes = [element("rect", width=60, height=6, rx=3, class_="track")]
    if width:
        shapes.append(element("rect", width=width, height=6, rx=3, class_=f"fill {kind}"))
    return element("svg", *shapes, viewBox="0 0 60 6", class_="bar", aria_hidden="true")


def stacked_bar(parts: Sequence[tuple[str, float]], label: str) -> Html:
    """Shares of a whole in one bar, in the order given; names with their colors below."""
    whole = sum(size for _, size in parts) or 1.0
    shapes, start = [], 0.0
    for number, (name, size) in enumerate(parts):
        width = WIDTH * size / whole
        told = f"{name}: {rate_text(size / whole)}"
        shapes.append(_block(round(start, 2), 0, (max(width - 1, 0.5), 14), told, class_=f"fill c{(number + 1) % 8}"))
        start += width
    picture = svg(join(shapes), f"{label}: " + ", ".join(f"{n} {rate_text(s / whole, 0)}" for n, s in parts), height=14)
    return figure(picture, legend([f"{name} {rate_text(size / whole, 0)}" for name, size in parts], first=1))


def interval_bar(value: float, interval: Sequence[float] | None, chance: float | None = None, told: str = "") -> Html:
    """A rate as a dot on a line from 0 to 1, its interval as a thick stroke, chance as a tick."""
    x = Scale(0, 1, 8, 152)
    shapes = [element("line", x1=x(0), x2=x(1), y1=12, y2=12, class_="track-line")]
    shapes += [element("line", x1=x(q), x2=x(q), y1=9, y2=15, class_="track-line") for q in (0, 0.5, 1)]
    if chance is not None:
        shapes.append(element("line", x1=x(chance), x2=x(chance), y1=4, y2=20, class_="chance"))
    if interval is not None:
        shapes.append(element("line", x1=x(interval[0]), x2=x(interval[1]), y1=12, y2=12, class_="interval"))
    shapes.append(element("circle", cx=x(value), cy=12, r=4.5, class_="fill c1"))
    return element("svg", element("title", told), *shapes, viewBox="0 0 160 24", role="img", class_="interval-bar")


def svg(content: Html, label: str, height: float = HEIGHT) -> Html:
    """A drawing that has a name and fills the width it gets, one as high as charts are up to a limit."""
    kind = "chart" if height == HEIGHT else "chart wide"
    return element("svg", element("title", label), content, viewBox=f"0 0 {WIDTH} {height}", role="img", class_=kind)


def axes(
    x: Scale,
    y: Scale,
    *,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    x_text: Callable[[float], str] = plain,
    y_text: Callable[[float], str] = plain,
) -> Html:
    """Grid lines across, tick texts on both axes, and the name of x below."""
    shapes = []
    for value in y_ticks:
        at = y(value)
        shapes.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        shapes.append(element("text", y_text(value), x=_LEFT - 6, y=at + 3.5, text_anchor="end"))
    shapes += [element("text", x_text(v), x=x(v), y=HEIGHT - _BOTTOM + 15, text_anchor="middle") for v in x_ticks]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    shapes.append(element("text", x_label, x=middle, y=HEIGHT - 4, text_anchor="middle", class_="axis"))
    return element("g", *shapes, aria_hidden="true")


def _told(value: float, y_text: Callable[[float], str]) -> str:
    return rate_text(value) if y_text is percent else f"{value:.4g}"


def _dot(x: float, y: float, told: str, kind: str) -> Html:
    return element("circle", element("title", told), cx=x, cy=y, r=3, class_=kind)


def _block(left: float, top: float, size: tuple[float, float], told: str, **looks: object) -> Html:
    width, height = (round(max(side, 0), 2) for side in size)
    return element("rect", element("title", told), x=left, y=top, width=width, height=height, **looks)


@dataclass(frozen=True)
class Dot:
    """One point of a scatter chart and what it tells; those of the front have a color of their own."""

    x: float
    y: float
    told: str
    front: bool = False
    chosen: bool = False


def front_chart(
    dots: Sequence[Dot], title: str, x_label: str, x_text: Callable[[float], str], limit: float | None
) -> Html:
    """Fractions over a cost on a logarithmic axis: every dot, the limit as a dashed line, and stairs.

    The stairs join those of the front that are better than all that cost less: they never go down. A front of more
    than these two quantities has other dots, too.
    """
    low, high = min(dot.x for dot in dots), max([dot.x for dot in dots] + ([limit] if limit else []))
    x = Scale(math.log(low) - 0.1, math.log(high) + 0.1, _LEFT + 6, WIDTH - _RIGHT - 6)
    y_ticks = ticks(min(dot.y for dot in dots), max(dot.y for dot in dots), step_at_least=0.01)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    marks = [low * (high / low) ** (i / 3) for i in range(4)] if high > 1.2 * low else [low]
    at = Scale(x.low, x.high, x.start, x.end)
    shapes = [
        axes(
            at, y, x_ticks=[math.log(mark) for mark in marks], y_ticks=y_ticks, x_label=x_label,
            x_text=lambda value: x_text(math.exp(value)), y_text=percent,
        )
    ]  # fmt: skip
    stairs: list[Dot] = []
    for dot in sorted((dot for dot in dots if dot.front), key=lambda dot: (dot.x, -dot.y)):
        if not stairs or dot.y > stairs[-1].y:
            stairs.append(dot)
    path: list[str] = []
    for before, dot in zip([None, *stairs], stairs, strict=False):
        if before is not None:
            path.append(f"{x(math.log(dot.x))},{y(before.y)}")
        path.append(f"{x(math.log(dot.x))},{y(dot.y)}")
    shapes.append(element("polyline", points=" ".join(path), class_="line c0"))
    if limit is not None and low <= limit <= high:
        across = x(math.log(limit))
        shapes.append(element("line", x1=across, x2=across, y1=_TOP, y2=HEIGHT - _BOTTOM, class_="chance"))
    for dot in sorted(dots, key=lambda dot: (dot.chosen, dot.front)):
        kind = "dot c1" if dot.chosen else "dot c0" if dot.front else "dot c4"
        shapes.append(_dot(x(math.log(dot.x)), y(dot.y), dot.told, kind))
    return figure(svg(join(shapes), f"{title} over {x_label}"), element("strong", title))
