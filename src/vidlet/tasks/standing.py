"""What a run says of its choice and of how it stands to plain classifiers: the closing line, sections of its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..progress import say
from ..reports import Section, bytes_text, interval_text, ms_text, rate_text
from ..reports.charts import interval_bar
from ..reports.markup import Column, Html, element, join, table


def say_standing(metrics: Mapping[str, Any], name: str) -> None:
    """Say in a line how a file stands to the best plain classifier; a warning where it is behind it."""
    found = metrics.get("baselines", {})
    if "difference" in found:
        behind = found["difference"][name]["mean"] < 0
        say(f"{'warning: ' * behind}{standing(found, name)}{_how_sure(metrics, name)}")


def _how_sure(metrics: Mapping[str, Any], name: str) -> str:
    """What the interval of a difference means, and what to do about it."""
    difference, count = metrics["baselines"]["difference"][name], metrics["files"][name].get("clips")
    if difference["low"] is None:
        return "; how sure that is is unknown: its clips are of one group"
    if difference["low"] <= 0 <= difference["high"]:
        return f"; {count} clips are too few to tell {'that from chance' if difference['mean'] else 'them apart'}"
    if difference["mean"] >= 0:
        return ""
    if metrics.get("selection"):  # it was measured: on training clips, which say something else
        return "; on training clips that were held out it was not: are the test clips of another kind?"
    return "; train without --recipe to have measured what is best for these clips"


def standing(found: Mapping[str, Any], name: str) -> str:
    """How a file stands to the best plain classifier, in pairs."""
    best, difference = found["best"], found["difference"][name]
    points, behind = 100 * difference["mean"], difference["mean"] < 0
    plain = f"{best}: {found['accuracy'][best]:.3f}"
    if points == 0:
        return f"{name} is as accurate as the best plain classifier ({plain})"
    interval = ""
    if difference["low"] is not None:
        bounds = sorted((-100 if behind else 100) * difference[key] for key in ("low", "high"))
        low, high = (round(bound, 1) + 0.0 for bound in bounds)  # there is no -0.0
        interval = f" [{low:+.1f}, {high:+.1f}]"
    side = "behind" if behind else "ahead of"
    return f"{name} is {abs(points):.1f} points{interval} {side} the best plain classifier ({plain})"


def title_of(data: str, recipe: str, metrics: Mapping[str, Any]) -> str:
    """What a report is called: its data, and the recipe, or the budget of a search."""
    if "budget" not in metrics:
        return f"{data}: {recipe}"
    budget = metrics["budget"]
    limits = [
        *([bytes_text(budget["max_bytes"])] if budget.get("max_bytes") else []),
        *([f"{ms_text(budget['max_latency_ms'])} a {budget['latency'][0]}"] if budget.get("max_latency_ms") else []),
        *([f"{bytes_text(budget['max_memory_bytes'])} of memory"] if budget.get("max_memory_bytes") else []),
    ]
    return f"{data}: the best within {', '.join(limits)}" if limits else f"{data}: the best that was found"


def beside(metrics: Mapping[str, Any]) -> list[Section]:
    """The plain classifiers and the files of the run in one scale; nothing where there was nothing to compare."""
    if "accuracy" not in metrics.get("baselines", {}):
        return []
    return [Section("Beside plain classifiers", _baselines(metrics), _PLAIN)]


def sections_of(metrics: Mapping[str, Any]) -> list[Section]:
    """Sections of the report: what it says of nothing, and the candidates of ``auto`` where it chose."""
    found = []
    if metrics.get("none"):
        found.append(Section("None of these", _rejection(metrics), _NONE))
    if "candidates" in metrics.get("selection", {}):
        found.append(Section("What was tried", _candidates(metrics["selection"]), _TRIED))
    return found


_PLAIN = (
    "Linear classifiers of the same features, solved to convergence on the same training clips. A model that is not "
    "ahead of them is not worth its training."
)
_NONE = (
    "What the file does where nothing happens. The threshold was chosen by clips that were not trained on; false "
    "events are counted on background that had no part in training or in the choice: segments that predict would tell."
)
_TRIED = (
    "Accuracy and cross-entropy on training clips that were held out, groups, where clips have any, kept whole; test "
    "clips had no part in it."
)


def _baselines(metrics: Mapping[str, Any]) -> Html:
    found, files = metrics["baselines"], metrics["files"]
    chance = found["accuracy"].get("chance")
    rows = []
    for name, figures in files.items():
        told, low_high = interval_text(figures["accuracy_interval"]), figures["accuracy_interval"]
        bounds = None if None in low_high else tuple(low_high)
        rows.append([name, rate_text(figures["accuracy"]), interval_bar(figures["accuracy"], bounds, chance, told)])
    for name, accuracy in sorted(found["accuracy"].items(), key=lambda item: -item[1]):
        rows.append([name, rate_text(accuracy), interval_bar(accuracy, None, chance, name)])
    columns = [Column("Classifier"), Column("Accuracy", "number"), Column("0 to 100 %")]
    said = [f"{standing(found, name)}{_how_sure(metrics, name)}" for name in found["difference"]]
    lines = [element("p", line if line.endswith("?") else f"{line}.") for line in said]
    return join([table(columns, rows, "Files and plain classifiers on the scored clips"), *lines])


def _rejection(metrics: Mapping[str, Any]) -> Html:
    found = metrics["none"]
    columns = [
        Column("file"),
        Column("threshold", "number"),
        Column("false events an hour", "number"),
        Column("counted in, minutes", "number"),
        Column(f"named rightly, {metrics['split']} clips, %", "number"),
    ]
    rows = []
    for name, figures in metrics["files"].items():
        rate, hours = figures.get("false_events_an_hour"), figures.get("background_hours", 0)
        cells = ["not measured" if rate is None else f"{rate:.1f}", f"{60 * hours:.1f}"]
        rows.append([name, f"{found['threshold']:.4g}", *cells, f"{100 * figures['recall_at_threshold']:.1f}"])
    chosen = (
        f"Of held out clips {100 * found['recall']:.1f} % are named rightly at the threshold, "
        f"{100 * found['recall_without']:.1f} % without one."
    )
    return join([element("p", found["told"]), table(columns, rows, "None of these"), element("p", chosen)])


def _candidates(found: Mapping[str, Any]) -> Html:
    columns = [Column("candidate"), Column("accuracy, %", "number"), Column("loss", "number"), Column("member")]
    rows = [
        [c["name"], f"{100 * c['accuracy']:.1f}", f"{c['loss']:.3f}", "chosen" if c["name"] in found["chosen"] else ""]
        for c in sorted(found["candidates"], key=lambda c: -c["accuracy"])
    ]
    return table(columns, rows, "Candidates, best first", sortable=True)
