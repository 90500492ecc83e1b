"""The tables of the pages that are filled from benchmarks/figures/: which rows, which columns, written how.

A page says `<!-- figures: NAME -->`, the table, `<!-- end of figures -->`; `python benchmarks/results.py --pages`
writes what stands between. A table ends with the commands that made its rows, when, over which seeds and where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from figures import Row, read

CARRIED = "†"
WIDE = 118  # characters of a line of what a command prints
Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Table:
    """Rows of a benchmark as a page shows them.

    ``spread`` (kept, spread): rows whose names have the same word at ``kept`` make one row of the table, in which the
    figures are called "WORD: KEY" by the other word.
    """

    benchmark: str
    columns: tuple[tuple[str, Cell], ...]
    where: Callable[[Row], bool] = lambda row: True
    spread: tuple[int, int] | None = None

    def rows(self) -> list[Row]:
        """What is shown, in the order of the file."""
        return [row for row in read(self.benchmark) if self.where(row)]

    def text(self) -> str:
        """The table, and what its rows come from."""
        rows = self.rows()
        if not rows:
            return "Not measured yet.\n"
        lines = [" | ".join(name for name, _ in self.columns), "|".join(["---"] * len(self.columns))]
        for row in spread(rows, *self.spread) if self.spread else rows:
            cells = [cell(row) for _, cell in self.columns]
            cells[0] += f" {CARRIED}" if row.carried else ""
            lines.append(" | ".join(cells))
        shown = [f"|{line}|" if set(line) <= set("-|") else f"| {line} |" for line in lines]
        return "\n".join([*shown, "", *origins(rows)]) + "\n"


@dataclass(frozen=True)
class Listing:
    """What a command printed, as a page shows it: the first lines of each paragraph, so many of each.

    ``origin``: what it comes from stands below.
    """

    benchmark: str
    name: str
    lines: tuple[int, ...] = ()
    origin: bool = False

    def text(self) -> str:
        """The command and what it said."""
        found = [row for row in read(self.benchmark) if row.name == self.name]
        if not found:
            return "Not measured yet.\n"
        parts = str(found[0].figures["says"]["value"]).split("\n\n")
        shown = [_first(part, count) for part, count in zip(parts, self.lines, strict=False)] if self.lines else parts
        text = "\n".join(["```", f"$ {self.name}", "\n\n".join(filter(None, shown)), "```"])
        return "\n".join([text, *(["", *origins(found)] if self.origin else [])]) + "\n"


def _first(text: str, count: int) -> str:
    lines = [line if len(line) <= WIDE else f"{line[:WIDE].rpartition(' ')[0]} ..." for line in text.splitlines()]
    return "\n".join([*lines[:count], *(["..."] if len(lines) > count > 0 else [])])


def spread(rows: Sequence[Row], kept: int, other: int) -> list[Row]:
    """One row of those that share a word of their names."""
    found: dict[str, Row] = {}
    for row in rows:
        words = row.name.split(", ")
        figures = {f"{words[other]}: {key}": value for key, value in row.figures.items()}
        before = found.get(words[kept])
        carried = row.carried or (before.carried if before else "")
        figures = {**before.figures, **figures} if before else figures
        found[words[kept]] = Row(words[kept], figures, row.seeds, row.clips, carried=carried)
    return list(found.values())


def origins(rows: Sequence[Row]) -> list[str]:
    """What rows come from: the command, when it ran, over how many seeds, where, by which version; alike ones together.

    A last line says what is true of rows that were carried over.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        version = f"version {row.commit}" if row.commit else ""
        machine = re.sub(r", load \d+$", "", row.machine)
        about = ", ".join(filter(None, [row.date[:10], _seeds(row), machine, version]))
        found.setdefault(about, []).append(row)
    lines = []
    for about, made in found.items():
        load = ""
        if loads := sorted({int(load) for row in made for load in re.findall(r", load (\d+)$", row.machine)}):
            load = f", load {loads[0]}" + (f" to {loads[-1]}" if len(loads) > 1 else "")
        commands = list(dict.fromkeys(row.command for row in made if row.command))
        alike = f" and {len(commands) - 1} like it" if len(commands) > 1 else ""
        lines.append(f"`{commands[0]}`{alike}: {about}{load}." if commands else f"{about}{load}.")
    lines += [f"{CARRIED} {carried}" for carried in dict.fromkeys(row.carried for row in rows if row.carried)]
    return [f"{line}<br>" for line in lines[:-1]] + lines[-1:]


def name(row: Row) -> str:
    """What was measured, as a cell."""
    return row.name


def part(number: int) -> Cell:
    """One of the words of a name, which commas part."""
    return lambda row: row.name.split(", ")[number]


def clips(row: Row) -> str:
    """How many clips were scored."""
    return f"{row.clips:,}" if row.clips else ""


def share(key: str, bounds: bool = True) -> Cell:
    """A fraction in percent, with its interval."""
    return _cell(key, lambda value: f"{100 * value:.1f}", bounds)


def points(key: str) -> Cell:
    """A difference of fractions in points, with its interval."""
    return _cell(key, lambda value: f"{100 * value:+.1f}", True)


def number(key: str, digits: int = 1) -> Cell:
    """A number with so many digits behind the point, with its interval."""
    return _cell(key, lambda value: f"{value:,.{digits}f}", True)


def text(key: str) -> Cell:
    """Words."""
    return lambda row: str(row.figures[key]["value"]) if key in row.figures else ""


def millions(key: str, digits: int | None = None) -> Cell:
    """Bytes, in MB; two digits behind the point below 100 MB, none above, where it is not said."""

    def shown(value: float) -> str:
        return f"{value / 1e6:,.{(2 if value < 1e8 else 0) if digits is None else digits}f}"

    return _cell(key, shown, False)


def small(key: str) -> Cell:
    """A number near zero, to one digit."""
    return _cell(key, lambda value: f"{value:.0e}" if value else "0", False)


def count(key: str) -> Cell:
    """A whole number."""
    return _cell(key, lambda value: f"{value:,.0f}", False)


def _cell(key: str, shown: Callable[[float], str], bounds: bool) -> Cell:
    def cell(row: Row) -> str:
        found = row.figures.get(key)
        if found is None:
            return ""
        if isinstance(found["value"], str):
            return found["value"]
        low_high = ", ".join(shown(bound) for bound in found.get("interval", ()))
        return shown(found["value"]) + (f" [{low_high}]" if bounds and low_high else "")

    return cell


def _seeds(row: Row) -> str:
    return f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}" if row.seeds else ""


def one_of(position: int, *words: str) -> Callable[[Row], bool]:
    """Rows whose names have one of these words at this place."""
    return lambda row: (row.name.split(", ") + [""] * position)[position] in words


def both(key: str, digits: int = 1, forms: tuple[str, str] = ("dense", "both in TT")) -> Cell:
    """A figure of two forms beside each other, of a row that was spread over them."""
    return lambda row: " / ".join(filter(None, (number(f"{form}: {key}", digits)(row) for form in forms)))


SETS = ("egogestar", "weizmann_actions", "shrec_depth_gestures")
DEMO = "runs/demo/model.int8.onnx"
TABLES: dict[str, Table | Listing] = {
    "demo": Listing("tour", "vidlet demo --out runs/demo", origin=True),
    "demo predict": Listing("tour", f"vidlet predict {DEMO} runs/demo/sequence.mp4"),
    "demo evaluate": Listing("tour", f"vidlet evaluate {DEMO} runs/demo/clips", (2, 4)),
    "demo benchmark": Listing("tour", f"vidlet benchmark {DEMO}"),
    "demo inspect": Listing("tour", f"vidlet inspect {DEMO}", (5, 6)),
    "auto": Table(
        "suite",
        (
            ("set", part(0)),
            ("split", part(1)),
            ("clips", clips),
            ("float32", share("float32")),
            ("int8", share("int8")),
            ("int8 - float32, points", points("int8 - float32")),
            ("best plain classifier", share("plain")),
            ("which", text("which")),
            ("bytes, int8", count("bytes")),
            ("ms a frame", number("ms a frame")),
        ),
        where=lambda row: part(2)(row) == "auto" and len(row.name.split(", ")) == 3,
    ),
    "few": Table(
        "few",
        (
            ("set", part(0)),
            ("split", part(1)),
            ("training clips", part(2)),
            ("seeds", lambda row: str(len(row.seeds))),
            ("clips", clips),
            ("auto", share("auto")),
            ("mobilenetv2-grid-gru", share("before")),
            ("best plain classifier", share("plain")),
            ("which", text("which")),
        ),
    ),
    "default": Table(
        "real_clips",
        (
            ("set", part(0)),
            ("recipe", part(2)),
            ("split", part(1)),
            ("clips", clips),
            ("float32", share("float32")),
            ("int8", share("int8")),
            ("int8 - float32, points", points("int8 - float32")),
            ("bytes float32", count("float32, bytes")),
            ("bytes int8", count("int8, bytes")),
        ),
        where=lambda row: (
            row.name
            in (
                "egogestar, 5 folds, mobilenetv2-grid-gru",
                "shrec_depth_gestures, own split, mobilenetv2-grid-gru-large",
                "weizmann_actions, 9 folds, mobilenetv2-grid-statistics",
                "weizmann_actions, 9 folds, mobilenetv2-grid-gru",
            )
        ),
    ),
    "recipes": Table(
        "real_clips",
        (
            ("recipe", name),
            ("egogestar (61 clips)", share("egogestar: int8")),
            ("weizmann_actions (30)", share("weizmann_actions: int8")),
            ("shrec (510)", share("shrec_depth_gestures: int8")),
            ("bytes", count("egogestar: int8, bytes")),
        ),
        where=lambda row: part(0)(row) in SETS and part(1)(row) == "own split" and len(row.name.split(", ")) == 3,
        spread=(2, 0),
    ),
    "none": Table(
        "none",
        (
            ("set", part(0)),
            ("split", part(1)),
            ("`--none`", part(2)),
            ("threshold", number("threshold", 2)),
            ("false events an hour, known kinds", number("known kinds", 0)),
            ("unseen kinds", number("unseen", 0)),
            ("recall", share("recall")),
            ("accuracy", share("accuracy")),
            ("test clips", clips),
        ),
    ),
    "labels": Table(
        "labels",
        (
            ("set", name),
            ("clips", clips),
            ("flipped, all seeds", count("flipped")),
            ("among the first tenth", share("tenth")),
            ("each seed", text("each seed")),
            ("in as many places as are flipped", share("first")),
        ),
    ),
    "gigabyte": Table(
        "gigabyte",
        (
            ("step", name),
            ("bytes, float32", count("model")),
            ("float16", count("model.half")),
            ("seconds", number("seconds", 0)),
            ("of processor", number("cpu_seconds", 0)),
            ("peak memory, MB", millions("peak_bytes")),
            ("GAP@20", number("gap20", 3)),
        ),
    ),
    "cost of clips": Table(
        "cost",
        (
            ("workers", part(1)),
            ("features, hours", number("features (h)", 2)),
            ("merge, one process", number("merge (h)", 2)),
            ("30 epochs of a head, one worker", number("head, one worker (h)", 1)),
            ("money, all three", number("money", 0)),
            ("takes longest", text("limit")),
        ),
        one_of(0, "clips"),
    ),
    "cost of records": Table(
        "cost",
        (
            ("workers", part(1)),
            ("5 epochs, hours", number("training (h)", 0)),
            ("money", number("money", 0)),
            ("takes longest", text("limit")),
        ),
        one_of(0, "records"),
    ),
    "cost check": Table(
        "cost",
        (
            ("shards", part(1)),
            ("clips", clips),
            ("slowest, measured (s)", number("measured (s)", 1)),
            ("model (s)", number("model (s)", 1)),
            ("model / measured", number("model / measured", 2)),
        ),
        one_of(0, "check"),
    ),
    "fit": Table(
        "fit",
        (
            ("budget, time", lambda row: f"{part(2)(row)}, {part(3)(row)}"),
            ("seed", lambda row: str(row.seeds[0])),
            ("chosen", text("what")),
            ("bytes", count("bytes")),
            ("ms a frame", number("ms a frame")),
            ("where it was chosen", share("chosen at")),
            ("test", share("test")),
            ("seconds", count("seconds")),
        ),
        where=lambda row: part(0)(row) == "shrec_depth_gestures" and part(4)(row) == "fit",
    ),
    "boxes": Table(
        "boxes",
        (
            ("set", part(0)),
            ("network", lambda row: row.name.partition(", ")[2]),
            ("images", clips),
            ("float32: mAP .5", share("float32, mAP .5")),
            (".5:.95", share("float32, mAP .5:.95")),
            ("int8: mAP .5", share("int8, mAP .5")),
            (".5:.95", share("int8, mAP .5:.95")),
            ("int8 - float32, points", points("int8 - float32")),
            ("bytes float32", count("float32, bytes")),
            ("int8", count("int8, bytes")),
        ),
    ),
    "extractor": Table(
        "extractor",
        (
            ("MobileNetV2, 224 x 224", name),
            ("ms a frame, median", number("ms", 2)),
            ("5th percentile", number("p05_ms", 2)),
            ("times the quickest of its cut", number("ratio", 2)),
        ),
    ),
    "hands": Table(
        "hands",
        (
            ("network", name),
            ("bytes", count("bytes")),
            ("ms of processor a frame, median", number("ms", 2)),
            ("time, ours = 1", number("ratio", 2)),
        ),
    ),
    "models": Table(
        "models",
        (
            ("set, recipe", lambda row: row.name.rpartition(", ")[0]),
            ("file", lambda row: f"`{row.name.rpartition(', ')[2]}`"),
            ("bytes", count("bytes")),
            ("ms of processor a frame", number("frame_ms", 2)),
            ("times as fast", number("faster", 2)),
            ("by the clock, p50 / p95", lambda row: f"{number('frame_p50_ms')(row)} / {number('frame_p95_ms')(row)}"),
            ("a clip, ms", number("clip_ms", 0)),
            ("load, ms", number("load_ms", 0)),
            ("peak memory, MB", millions("peak_bytes", 0)),
            ("accuracy", share("accuracy")),
            ("- float32, points", points("- float32")),
            ("divergence, nats", number("divergence", 4)),
        ),
    ),
    "trainings": Table(
        "suite",
        (
            ("set", part(0)),
            ("recipe", part(2)),
            ("split", part(1)),
            ("seeds", lambda row: str(len(row.seeds))),
            ("minutes a training, median", number("minutes")),
        ),
        where=lambda row: "minutes" in row.figures,
    ),
    "records": Table(
        "records",
        (
            ("records of 1024 + 128 numbers a frame", name),
            ("a second", count("records_s")),
            ("MB a second", millions("bytes_s", 0)),
        ),
    ),
    "live": Table(
        "live",
        (
            ("model, watched for", name),
            ("model alone, p50 / p95, ms", lambda row: f"{number('own_p50_ms')(row)} / {number('own_p95_ms')(row)}"),
            ("delay, p50 / p95, ms", lambda row: f"{count('p50_ms')(row)} / {count('p95_ms')(row)}"),
            ("p95 beyond the model, ms", number("beyond_ms")),
            ("frames answered / dropped", lambda row: f"{count('frames')(row)} / {count('dropped')(row)}"),
            (
                "resident memory, begin / middle / end, MB",
                lambda row: " / ".join(millions(f"{at}_bytes", 1)(row) for at in ("begin", "middle", "end")),
            ),
        ),
    ),
    "netvlad": Table(
        "netvlad_speed",
        (
            ("K32-H1024, 3,862 classes", lambda row: row.name.removeprefix("all, ")),
            ("examples a second", number("examples_per_s")),
            ("a step, s", number("step_s", 2)),
            ("in the large products, share of a step", number("share_of_step_in_products", 2)),
            ("peak memory, MB", millions("peak_bytes", 0)),
        ),
        where=lambda row: "examples_per_s" in row.figures,
    ),
    "netvlad products": Table(
        "netvlad_speed",
        (
            ("a large product of a step", lambda row: row.name.rpartition(", ")[2]),
            ("inputs", count("inputs")),
            ("outputs", count("outputs")),
            ("forward, of a plain product's rate", number("forward_share_of_plain", 2)),
            ("backward", number("backward_share_of_plain", 2)),
        ),
        where=lambda row: "forward_gflops" in row.figures,
    ),
    "metrics": Table(
        "metrics",
        (
            ("scored", lambda row: row.name.removesuffix(", figures")),
            ("classes", count("classes")),
            ("processor time, s", number("cpu_s")),
            ("peak memory, MB", millions("peak_bytes", 0)),
            ("as one matrix, MB", millions("one_matrix_bytes", 0)),
        ),
        where=lambda row: "cpu_s" in row.figures,
    ),
    "phones": Table(
        "phones",
        (
            ("set, recipe", lambda row: row.name.rpartition(", ")[0]),
            ("file", lambda row: row.name.rpartition(", ")[2]),
            ("`.onnx`, MB", millions("onnx_bytes")),
            ("`.tflite`, MB", millions("bytes")),
            ("time of a frame, `.onnx` = 1", number("ratio", 2)),
            ("drawn frames: score differs by", small("score_difference")),
            ("state", small("state_difference")),
            ("same label", share("same_label")),
        ),
    ),
    "runtime": Table(
        "runtime",
        (
            ("file", name),
            ("frames", count("frames")),
            ("decoding and sampling, ms", number("decode_ms")),
            ("its frames, ms", number("frames_ms")),
            ("file to label, ms", number("classify_ms")),
            ("of the sum", number("ratio", 2)),
            ("peak of `predict`, MB", millions("predict_peak_rss_bytes")),
            ("`vidlet --help`, s", number("help_s", 2)),
            ("importing the runtime, s", number("import_runtime_s", 2)),
            ("installed, MB", millions("installed_bytes")),
        ),
    ),
    "decode": Table(
        "decode",
        (
            ("clips", lambda row: row.name.partition(": ")[0]),
            ("sampled", lambda row: row.name.partition(": ")[2]),
            ("ours, ms a clip", number("vidlet (ms)")),
            ("OpenCV", number("opencv (ms)")),
            ("every frame decoded and converted", number("full decode (ms)")),
            ("OpenCV's time, ours = 1", number("opencv / vidlet", 2)),
        ),
    ),
    "long streams": Table(
        "long_stream",
        (
            ("set, recipe", lambda row: row.name.rpartition(", ")[0]),
            ("storage", lambda row: row.name.rpartition(", ")[2]),
            ("difference, first minute", number("first", 4)),
            ("last minute", number("last", 4)),
            ("largest", number("most", 4)),
            ("same label", share("equal")),
            ("same where float32 is decided", share("sure")),
        ),
    ),
    "extract": Table(
        "extract",
        (
            ("set, recipe", name),
            ("clips", count("clips")),
            ("frames", count("frames")),
            ("cores", count("cores")),
            ("frames a second", number("frames_s", 0)),
            ("processor time a frame, ms", number("cpu_ms", 2)),
            ("peak memory of the process, MB", number("peak_mb", 0)),
        ),
    ),
    "precision": Table(
        "precision",
        (
            ("recipe", name),
            ("float32, ms", number("float32")),
            ("bfloat16, ms", number("bfloat16")),
            ("times faster", number("ratio", 2)),
        ),
    ),
    "tensor-train products": Table(
        "tensor_train",
        (
            ("57,600 -> 1,024, batch 16, forward and backward", name),
            ("nn.Linear, ms", number("nn.Linear (ms)")),
            ("TTLinear, ms", number("TTLinear (ms)")),
            ("times faster", number("nn.Linear / TTLinear")),
            ("an opt_einsum expression", number("nn.Linear / opt_einsum expression")),
            ("tensorly-torch, factorized", number("nn.Linear / tensorly-torch, factorized")),
        ),
        where=lambda row: row.name.startswith("linear"),
    ),
    "tensor-train lstm": Table(
        "tensor_train",
        (
            ("an LSTM on 160 x 120 pixels, batch 16, 6 frames", name),
            ("nn.LSTM, ms", number("nn.LSTM (ms)")),
            ("TTLSTM, ms", number("TTLSTM (ms)")),
            ("times faster", number("nn.LSTM / TTLSTM")),
            ("hidden in a train too", number("nn.LSTM / TTLSTM, hidden in TT too")),
        ),
        where=lambda row: row.name.startswith("LSTM"),
    ),
    "tensor-train convolutions": Table(
        "tensor_train",
        (
            ("TTConv3d, time, dense = 1", name),
            ("inference", number("inference: ratio", 2)),
            ("training", number("training: ratio", 2)),
        ),
        where=lambda row: row.name.startswith("V"),
        spread=(0, 2),
    ),
    "tensor-train networks": Table(
        "tensor_train",
        (
            ("a training step of a 3-D network", lambda row: row.name.removeprefix("network ").rpartition(", ")[0]),
            ("dense, ms", number("dense (ms)", 0)),
            ("convolutions in trains, ms", number("trains (ms)", 0)),
            ("time, dense = 1", number("ratio", 2)),
        ),
        where=lambda row: row.name.startswith("network"),
    ),
    "tensor-train clips": Table(
        "tt_heads",
        (
            ("dense / train", name),
            ("bytes", both("bytes", 0)),
            ("load, ms", both("load_ms")),
            ("a frame, ms", both("frame_ms")),
        ),
        where=lambda row: row.name.startswith("clip"),
        spread=(0, 1),
    ),
    "tensor-train heads": Table(
        "tt_heads",
        (
            ("head", part(0)),
            ("form", part(1)),
            ("bytes", count("bytes")),
            ("ms a frame", number("frame_ms", 3)),
            ("load, dense = 1", number("load_share", 3)),
        ),
        where=lambda row: not row.name.startswith("clip"),
    ),
    "integer kernels": Table(
        "integer_kernels",
        (
            ("network", name),
            ("float, ms, least", number("float: least_ms")),
            ("int8", number("int8: least_ms")),
            ("int8 as 2-D", number("as 2-D: least_ms")),
            ("deepeye", number("deepeye: least_ms")),
            ("bytes, float", count("float: bytes")),
            ("int8", count("int8: bytes")),
        ),
        where=lambda row: "least_ms" in row.figures,
        spread=(0, 1),
    ),
    "recurrent cells": Table(
        "recurrent_int8",
        (
            ("inputs -> units", name),
            ("a frame, ms, least: float", number("GRU float: frame_ms_least", 3)),
            ("scan int8", number("GRU scan int8: frame_ms_least", 3)),
            ("a clip of 16: float", number("GRU float: clip_ms_least", 3)),
            ("scan int8", number("GRU scan int8: clip_ms_least", 3)),
        ),
        where=one_of(1, "GRU float", "GRU scan int8"),
        spread=(0, 1),
    ),
    "browser": Table(
        "browser",
        (
            ("file", name),
            ("model, ms a frame p50", number("model_ms")),
            ("p95", number("model_p95_ms")),
            ("resize, ms", number("resize_ms")),
            ("frames/s", number("frames_s")),
            ("load, s", number("load_s", 2)),
            ("sent, MB", millions("bytes")),
            ("gzipped, MB", millions("gzip_bytes")),
        ),
    ),
}
