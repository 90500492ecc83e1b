"""What a run says of its choice and of how it stands to plain classifiers: the closing line, sections of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..progress import say
from ..reports import Section
from ..reports.markup import Column, Html, element, join, table


def say_standing(metrics: Mapping[str, Any], names: Sequence[str]) -> None:
    """Say in a line how the last file stands to the best plain classifier; a warning where it is behind it."""
    found = metrics.get("baselines", {})
    if "difference" in found:
        line = standing(found, names[-1])
        behind = found["difference"][names[-1]]["mean"] < 0
        advice = "; train without --recipe to have measured what is best for these clips"
        say(f"warning: {line}: behind it{advice}" if behind else line)


def standing(found: Mapping[str, Any], name: str) -> str:
    """How a file stands to the best plain classifier, in pairs."""
    best, difference = found["best"], found["difference"][name]
    points, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
    plain = f"{best}: {found['accuracy'][best]:.3f}"
    return f"{name} is {points:+.1f} points [{low:+.1f}, {high:+.1f}] from the best plain classifier ({plain})"


def sections_of(metrics: Mapping[str, Any]) -> list[Section]:
    """Sections of the report: the plain classifiers, and the candidates of ``auto`` where it chose."""
    found = []
    if "accuracy" in metrics.get("baselines", {}):
        found.append(Section("Beside plain classifiers", _baselines(metrics["baselines"]), _PLAIN))
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
_TRIED = "Accuracy and cross-entropy on training clips that were held out by group; test clips had no part in it."


def _baselines(found: Mapping[str, Any]) -> Html:
    rows = [[name, f"{100 * accuracy:.1f}"] for name, accuracy in found["accuracy"].items()]
    lines = [element("p", standing(found, name)) for name in found["difference"]]
    columns = [Column("classifier"), Column("accuracy, %", "number")]
    return join([table(columns, rows, "Plain classifiers on the scored clips"), *lines])


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
