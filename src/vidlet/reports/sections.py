"""The sections of the report: functions of the Report that return a Section, or None where the part is missing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..wording import how_to_install
from .charts import Series, bar, interval_bar, line_chart, percent, reliability_chart, stacked_bar
from .heat import confused_pairs, heat_map
from .markup import Cell, Column, Html, Section, breakable, code, element, folded, join, table
from .pictures import moving_picture
from .report import DataSummary, FileRow, Mistake, Report
from .text import NOTHING, bytes_text, interval_text, ms_text, points_interval, points_text, rate_text


def headline(report: Report) -> Html:
    """The card at the top: how good, how large, how fast, on how much."""
    metrics, tiles = report.metrics or {}, []
    if report.bytes is not None:
        tiles.append(("Size", bytes_text(report.bytes), f"{report.product}, the whole model"))
    if report.frame_ms:
        beside = f"p95 {ms_text(report.frame_ms.get('p95'))}" + (f", {report.machine}" if report.machine else "")
        tiles.append(("A frame takes", ms_text(report.frame_ms.get("p50")), beside))
    if metrics:
        names = list(metrics["per_class"])
        tiles.append(("Classes", str(len(names)), f"top-5 accuracy {rate_text(metrics['top5'])}"))
        groups = f" in {report.groups} groups" if report.groups else ""
        if metrics.get("gap20") is not None:
            rest = f"PERR {rate_text(metrics['perr'])}, MAP {rate_text(metrics['map'])}"
            tiles.append(("GAP@20", rate_text(metrics["gap20"]), rest))
        tiles.append(("Clips evaluated", f"{metrics['clips']:,}", f"of the {report.split} split{groups}"))
    boxes = (
        element("div", element("dt", name), element("dd", value, element("small", note)), class_="tile")
        for name, value, note in tiles
    )
    score = _score(report) if metrics else Html()
    return element("div", score, element("dl", *boxes, class_="tiles"), class_="headline") if score or tiles else Html()


def _score(report: Report) -> Html:
    metrics = report.metrics or {}
    low_high, chance = metrics["accuracy_interval"], 1 / max(len(metrics["per_class"]), 1)
    told = f"95 % interval {interval_text(low_high)}"
    bootstrap = metrics.get("accuracy_interval_rule", "bootstrap over groups") == "bootstrap over groups"
    over = f", resampling {report.groups} groups" if report.groups and bootstrap else "" if bootstrap else ", Wilson's"
    drawing = (
        interval_bar(metrics["accuracy"], _bounds(low_high), chance, told) if metrics["accuracy"] is not None else ""
    )
    return element(
        "div",
        element("p", "Hit@1" if "gap20" in metrics else "Accuracy", class_="eyebrow"),
        element("p", rate_text(metrics["accuracy"]), class_="big"),
        drawing,
        element("p", f"{told}{over}. Guessing: {rate_text(chance)}.", class_="note"),
        class_="score",
    )


def files(report: Report) -> Section | None:
    """The files of the run and the baselines in one table."""
    if not report.files:
        return None
    first = report.files[0].name
    chance = 1 / len(report.metrics["per_class"]) if report.metrics and report.metrics["per_class"] else None
    what = "Hit@1" if report.metrics and "gap20" in report.metrics else "Accuracy"
    columns = [Column("File"), Column(what, "number"), Column("95 % interval")]
    columns += [Column(f"Against {first}, points")]
    columns += [Column(name, "number") for name in ("Size", "A frame, p50", "p95")]
    rows = [_file_cells(row, chance, report.product) for row in report.files]
    return Section(
        "Files compared",
        table(columns, rows, "Files and baselines of this run", sortable=True),
        "Measured on the files as they ship, on the same clips. The dashed tick marks guessing. Where the "
        "interval of a difference includes 0, these clips show none."
        + (f" Ship {report.ship}." if report.ship else ""),
    )


def _file_cells(row: FileRow, chance: float | None, product: str) -> list[object]:
    times = row.frame_ms or {}
    notes = [note for note in (row.kind, "to ship, shown below" if row.name == product else "") if note]
    name = join([row.name, element("small", " · ".join(notes))]) if notes else row.name
    told = f"{row.name}: {rate_text(row.accuracy)}, {interval_text(row.interval)}"
    drawing = interval_bar(row.accuracy, _bounds(row.interval), chance, told) if row.accuracy is not None else None
    gap = row.difference
    points = join([points_text(gap.mean), element("small", points_interval(gap.low, gap.high))]) if gap else None
    return [
        Cell(name, row.name),
        Cell(rate_text(row.accuracy), row.accuracy),
        Cell(join([drawing, element("small", interval_text(row.interval))]) if drawing else None, row.accuracy),
        Cell(points, gap.mean if gap else None),
        Cell(bytes_text(row.bytes), row.bytes),
        Cell(ms_text(times.get("p50")), times.get("p50")),
        Cell(ms_text(times.get("p95")), times.get("p95")),
    ]


def run_it(report: Report) -> Section | None:
    """Commands and a client to copy."""
    boxes = [code(command.text, command.title) for command in report.commands]
    if report.client:
        client = "Python, with ONNX Runtime and NumPy alone"
        boxes.append(folded(client, code(report.client, client)))
    if not boxes:
        return None
    return Section(
        "Run it",
        join(boxes),
        "From the folder where the training was started. Elsewhere the .onnx file and vidlet without extras are enough "
        f"({how_to_install()}).",
    )


def learning(report: Report) -> Section | None:
    """Loss and accuracy of every epoch; nothing of what was solved, or of one epoch alone: that is no curve."""
    if len(report.log) < 2:
        return None
    charts = []
    for what, title in (("loss", "Loss"), ("accuracy", "Accuracy")):
        lines = [_series(report.log, f"{side}_{what}", name) for side, name in _SIDES]
        if not any(math.isfinite(y) for line in lines for y in line.y):
            continue
        whole = (0.0, 1.0) if what == "accuracy" else None
        form = {"y_range": whole, "y_text": percent} if whole else {}
        charts.append(line_chart(lines, title, "epoch", **form))  # type: ignore[arg-type]
    if not charts:
        return None
    lead = "Loss should fall and accuracy rise for both; where training goes on alone, clips are learned by heart."
    return Section("Learning curves", element("div", *charts, class_="pair"), lead)


_SIDES = (("train", "training"), ("val", "validation"))


def _series(log: Sequence[Mapping[str, Any]], key: str, name: str) -> Series:
    epochs = [_number(row.get("epoch", i + 1)) for i, row in enumerate(log)]
    return Series(name, epochs, [_number(row.get(key)) for row in log])


def _number(value: Any) -> float:
    """A cell of log.csv; NaN where it is blank or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def confusion(report: Report) -> Section | None:
    """The confusion matrix and its commonest mistakes."""
    if not report.metrics or not report.metrics["clips"] or "confusion" not in report.metrics:
        return None
    counts, names = report.metrics["confusion"], list(report.metrics["per_class"])
    pairs = [
        element("li", element("b", names[i]), " taken for ", element("b", names[j]), f" {clips}×")
        for i, j, clips in confused_pairs(counts)
    ]
    worst = join([element("h3", "Most often confused"), element("ol", *pairs, class_="pairs")]) if pairs else ""
    lead = (
        "A row holds the clips of one class: on the diagonal those named rightly, elsewhere what they were taken for."
    )
    return Section("Confusion matrix", join([heat_map(counts, names), worst]), lead)


def classes(report: Report) -> Section | None:
    """Precision, recall and F1 of every class."""
    if not report.metrics or not report.metrics["clips"]:
        return None
    rows = [
        [name, *(_rate_cell(row[key]) for key in ("precision", "recall", "f1")), Cell(row["support"], row["support"])]
        for name, row in report.metrics["per_class"].items()
    ]
    columns = [Column("Class"), *(Column(n, "number") for n in ("Precision", "Recall", "F1", "Clips"))]
    means = ", ".join(
        f"{name} {rate_text(report.metrics[f'macro_{key}'])}"
        for name, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
    )
    lead = (
        "Precision: of the clips given this name, the share that bears it. Recall: of the clips that bear it, the "
        f"share that got it. Means over classes: {means}."
    )
    return Section("Classes", table(columns, rows, "Precision, recall and F1 of every class", sortable=True), lead)


def _rate_cell(rate: float) -> Cell:
    return Cell(join([bar(rate), element("span", rate_text(rate), class_="figure")]), rate)


def calibration(report: Report) -> Section | None:
    """Whether a score of 0.9 is right nine times of ten."""
    if report.reliability is None or not sum(report.reliability.clips):
        return None
    metrics = report.metrics or {}
    facts = [
        ("Expected calibration error", rate_text(metrics.get("ece")), "mean distance between score and accuracy"),
        ("Negative log-likelihood", _nats(metrics.get("nll")), "nats a clip; smaller is better"),
        (
            "Temperature",
            f"{report.temperature:.3g}" if report.temperature is not None else NOTHING,
            "divides the logits, inside the file; "
            + ("fitted" if report.temperature != 1 else "1 leaves them as they are"),
        ),
    ]
    known = [
        element("div", element("dt", n), element("dd", v, element("small", t))) for n, v, t in facts if v != NOTHING
    ]
    chart = reliability_chart(*(values.tolist() for values in report.reliability))
    body = element("div", chart, element("dl", *known, class_="facts"), class_="pair")
    return Section(
        "Calibration",
        body,
        "Can a score be believed? Where bars end on the diagonal, a score of 80 % is right 80 % of the time.",
    )


def _nats(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def mistakes(report: Report) -> Section | None:
    """The clips that the model got most wrong, moving."""
    if not report.mistakes:
        return None
    cards = cards_of(report.mistakes)
    lead = f"Clips of the {report.split} split with the wrong name, those first of which the model was surest."
    return Section("Worst mistakes", cards, lead)


def cards_of(mistakes: Sequence[Mistake], said: str = "taken for", own: str = "the right one") -> Html:
    """Clips as moving pictures, each with its label, what it is ``said`` to be, and the scores of both."""
    return element("ul", *(_mistake(m, said, own) for m in mistakes), class_="cards")


def _mistake(mistake: Mistake, said: str, right: str) -> Html:
    alt = f"{mistake.name}: {mistake.label}, {said} {mistake.predicted}"
    own = f" against {rate_text(mistake.label_score, 0)} for {right}" if mistake.label_score is not None else ""
    return element(
        "li",
        moving_picture(mistake.frames, alt, mistake.fps),
        element(
            "p",
            element("b", breakable(mistake.label)),
            f" {said} ",
            element("b", breakable(mistake.predicted), class_="wrong"),
        ),
        element("p", f"score {rate_text(mistake.score, 0)}{own}", class_="note"),
        element("p", breakable(mistake.name), class_="path"),
    )


def inside(report: Report) -> Section | None:
    """What the bytes of the file are spent on."""
    if not report.parts:
        return None
    whole = sum(part.bytes for part in report.parts) or 1
    rows = [
        [
            part.name,
            part.storage or None,
            *(Cell(f"{n:,}" if n is not None else None, n) for n in (part.tensors, part.parameters)),
            Cell(bytes_text(part.bytes), part.bytes),
            Cell(rate_text(part.bytes / whole), part.bytes),
        ]
        for part in report.parts
    ]
    columns = [Column("Part"), Column("Stored as"), *(Column(n, "number") for n in ("Tensors", "Parameters"))]
    columns += [Column("Bytes", "number"), Column("Share", "number")]
    sizes = sorted(((part.name, float(part.bytes)) for part in report.parts), key=lambda part: -part[1])
    shown = sizes if len(sizes) <= 8 else [*sizes[:7], ("the rest", sum(size for _, size in sizes[7:]))]
    return Section(
        "Inside the model",
        join([stacked_bar(shown, "Bytes by part"), table(columns, rows, "Parts of the model file", sortable=True)]),
        f"{report.product} in {sum(part.tensors or 0 for part in report.parts):,} tensors."
        if all(part.tensors is not None for part in report.parts)
        else "",
    )


def data(report: Report) -> Section | None:
    """Clips by class and split, with what was wrong."""
    if report.data is None:
        return None
    summary = report.data
    return Section("Data", join([_notices(summary), _clips_table(summary)]), _data_lead(summary))


def _data_lead(summary: DataSummary) -> str:
    counts = [f"{sum(clips.values()):,} {split}" for split, clips in summary.clips.items()]
    return f"Clips: {', '.join(counts)}." if counts else ""


def _notices(summary: DataSummary) -> Html:
    lines = [*summary.warnings, *(f"skipped {item['path']}: {item['error']}" for item in summary.skipped)]
    return element("ul", *(element("li", line) for line in lines), class_="warnings") if lines else Html()


def _clips_table(summary: DataSummary) -> Html:
    splits = list(summary.clips)
    names = sorted({name for clips in summary.clips.values() for name in clips})
    rows = [
        [name, *(Cell(n, n) for split in splits if (n := summary.clips[split].get(name, 0)) is not None)]
        for name in names
    ]
    columns = [Column("Class"), *(Column(split, "number") for split in splits)]
    return table(columns, rows, "Clips by class and split", sortable=True) if names else Html()


def provenance(report: Report) -> Section | None:
    """Where it comes from, so that it can be made again."""
    if not report.provenance and not report.recipe_toml:
        return None
    return Section(
        "Provenance", origin(report.provenance, report.recipe_toml), "What is needed to make this model again."
    )


ABOVE_THE_FOLD = ("command", "made", "vidlet", "machine")


def origin(facts: Mapping[str, str], recipe_toml: str = "") -> Html:
    """Who, when and where is shown; hashes, versions and the recipe stand behind a line each."""

    def listed(keys: Sequence[str]) -> Html:
        rows = (element("div", element("dt", key), element("dd", element("code", facts[key]))) for key in keys)
        return element("dl", *rows, class_="provenance")

    shown = [key for key in ABOVE_THE_FOLD if facts.get(key)]
    rest = [key for key in facts if key not in ABOVE_THE_FOLD]
    body = [listed(shown)] if shown else []
    if rest:
        body.append(folded("Hashes, weights, versions", listed(rest)))
    if recipe_toml:
        title = "The recipe, as resolved (recipe.toml)"
        body.append(folded(title, code(recipe_toml.strip(), title)))
    return join(body)


def _bounds(interval: Sequence[float | None] | None) -> tuple[float, float] | None:
    if interval is None or interval[0] is None or interval[1] is None:
        return None
    return interval[0], interval[1]
