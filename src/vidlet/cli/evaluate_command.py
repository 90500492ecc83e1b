"""`vidlet evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from ..wording import as_json, shown
from . import options

EXAMPLE = "example: vidlet evaluate runs/a/model.int8.onnx clips/ --split test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet evaluate`."""
    parser.add_argument("model", metavar="MODEL|RUN", help="a model file (.onnx), or a run folder: its file to ship")
    options.add_data(parser)
    parser.add_argument(
        "--split", choices=["train", "val", "test", "all"], help="clips to score (test, or val where there is no test)"
    )
    options.add_threads(parser)
    parser.add_argument(
        "--against", metavar="MODEL", help="another file on the same clips: differences, class by class"
    )
    parser.add_argument(
        "--report", metavar="FILE", help="with --against: an HTML page, with the clips they disagree on"
    )
    parser.add_argument(
        "--verify", action="store_true", help="hold the figures against those that the file says of itself"
    )
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score the file, print a table of classes."""
    from ..jobs.evaluate import evaluate

    found = evaluate(
        args.model, args.data, args.split, args.fold, args.strict, args.threads, args.against, args.report, args.verify
    )
    if args.out:
        from ..files import write_text

        write_text(args.out, as_json(found, indent=1))
    if not args.json:
        (print_boxes if "map50" in found else print_classes)(found)
        if "against" in found:
            print_differences(found)
        if "verified" in found:
            print_verified(found["verified"])
        if args.report:
            print(f"report: {args.report}")
    return found


def print_verified(verified: dict[str, Any]) -> None:
    """What the file says of itself, and whether it holds."""
    print()
    for item in verified["checked"]:
        print(f"{'holds' if item['holds'] else 'DIFFERS'}: {item['what']}: the file says {item['said']}, "
              f"measured {item['measured']}")  # fmt: skip
    if verified["other"]:
        print(f"not measured here: {shown(', '.join(verified['other']))}")
    if not verified["checked"]:
        print("the file says nothing of these clips")
    if not verified["same_file"]:
        print("DIFFERS: the file is not the one that was measured (its graph has another hash)")
    if not verified["same_data"]:
        print("the data are not those that it was measured on (the table has another hash)")


def print_differences(found: dict[str, Any]) -> None:
    """The other file's figures, and where the two differ."""
    from ..reports import points_interval, points_text, text_table

    other = found["against"]
    gap = other["difference"]
    print(
        f"\nagainst {other['model']}: accuracy {other['accuracy']:.3f}, macro F1 {other['macro_f1']:.3f}, "
        f"{other['bytes']:,} bytes\n"
        f"difference {points_text(gap['mean'])} points of accuracy, 95 % interval "
        f"{points_interval(gap['low'], gap['high'])} (paired, over groups)\n"
        f"both right on {other['both']} clips, only this file on {other['only']}, only the other on "
        f"{other['only_against']}, neither on {other['neither']}\n"
    )
    rows = []
    for name, figures in other["per_class"].items():
        f1 = figures["f1"]
        interval = points_interval(f1["low"], f1["high"])
        rows.append([name, f"{f1['model']:.2f}", f"{f1['against']:.2f}", points_text(f1["difference"]), interval])
    print(text_table(rows, ["class", "F1", "other", "points", "95 % interval"], "lrrrr"))


def print_classes(found: dict[str, Any]) -> None:
    """The figures of a classifier, class by class."""
    from ..reports import text_table

    low, high = found["accuracy_interval"]
    if found.get("gap20") is not None:
        first = f"GAP@20 {found['gap20']:.4f}   PERR {found['perr']:.4f}   MAP {found['map']:.4f}   Hit@1"
        last = "of labels at 0.5"
    else:
        first, last = "accuracy", f"calibration error {found['ece']:.3f}"
    top = f"top-5 {found['top5']:.3f}   " if len(found["per_class"]) > 5 else ""  # of fewer it would be 1
    print(
        f"{first} {found['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}   "
        f"{top}macro F1 {found['macro_f1']:.3f}   {last}\n"
        f"{found['clips']} {found['split']} clips, {len(found['skipped'])} skipped   "
        f"{found['bytes']:,} bytes   {found['clip_ms']['p50']:.0f} ms a clip, decoding included (median)\n"
    )
    rows = [
        [name, f"{c['precision']:.2f}", f"{c['recall']:.2f}", f"{c['f1']:.2f}", str(c["support"])]
        for name, c in found["per_class"].items()
    ]
    print(text_table(rows, ["class", "precision", "recall", "F1", "clips"], "lrrrr"))
    for item in found["skipped"]:
        print(shown(f"skipped {item['error']}"))


def print_boxes(found: dict[str, Any]) -> None:
    """The figures of a detector, class by class."""
    from ..reports import text_table

    low, high = found["map50_interval"]
    print(
        f"mAP at IoU 0.5 {found['map50']:.3f}, 95 % interval {low:.3f} to {high:.3f}   "
        f"11-point {found['map50_11']:.3f}   mAP .5:.95 {found['map50_95']:.3f}\n"
        f"{found['images']} {found['split']} images, {len(found['skipped'])} skipped   "
        f"{found['bytes']:,} bytes   {found['image_ms']['p50']:.0f} ms an image, decoding included (median)\n"
    )
    rows = [
        [name, _rate(c["ap50"]), _rate(c["ap50_95"]), str(c["truths"]), str(c["detections"])]
        for name, c in found["per_class"].items()
    ]
    print(text_table(rows, ["class", "AP .5", "AP .5:.95", "boxes", "found"], "lrrrr"))
    for item in found["skipped"]:
        print(shown(f"skipped {item['error']}"))


def _rate(value: float | None) -> str:
    """A figure in three digits; a class that has no boxes has none."""
    return "-" if value is None else f"{value:.3f}"
