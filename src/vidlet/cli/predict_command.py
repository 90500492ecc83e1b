"""`vidlet predict`."""

from __future__ import annotations

import argparse
import contextlib
import threading
from typing import Any

from ..wording import as_json, shown
from . import options

EXAMPLE = "example: vidlet predict runs/a/model.int8.onnx clip.mp4 --save annotated.mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet predict`."""
    parser.add_argument(
        "model",
        metavar="MODEL|RUN",
        help="a model file (.onnx), or a run folder: its file to ship",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="video file, folder of videos or frames, camera (0), rtsp://, or records"
    )
    parser.add_argument(
        "--threshold",
        type=options.number(float, 0, 1),
        metavar="P",
        help="a segment needs this score (what the file says, else 0.5)",
    )
    parser.add_argument(
        "--min-s", type=options.number(float, 0), metavar="S", help="a segment needs this duration (1/4 training clip)"
    )
    parser.add_argument(
        "--save", "--out", dest="save", metavar="PATH",
        help="write the video with labels drawn on it; with --on, a folder: a clip around each event",
    )  # fmt: skip
    parser.add_argument("--live", action="store_true", help="play a file at its own speed, as a camera would")
    parser.add_argument("--show", action="store_true", help="show the live view in a window")
    parser.add_argument("--on", metavar="LABEL", help="live: act once each time this label appears")
    parser.add_argument(
        "--above",
        type=options.number(float, 0, 1),
        metavar="P",
        help="--on: from this score (what the file says, else 0.8)",
    )
    parser.add_argument(
        "--command", dest="action", metavar="CMD", help="--on: run it; it finds $VIDLET_LABEL and others"
    )
    parser.add_argument("--webhook", metavar="URL", help="--on: POST {source, label, score, time_s} as JSON")
    parser.add_argument(
        "--mqtt", metavar="URL", help="--on: a sensor at mqtt://HOST, which Home Assistant finds by itself"
    )
    parser.add_argument(
        "--around",
        type=options.number(float, 0, 3600),
        metavar="S",
        help="--on with --save: seconds before and after (3)",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="write the segments as CSV, of a detector the boxes of each frame, of records a submission",
    )
    parser.add_argument(
        "--fps",
        type=options.number(float, 0.001, 1000),
        metavar="N",
        help="frames a second of folders of frames (what their names tell, else 25)",
    )
    options.add_strict(parser)
    options.add_threads(parser)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Print one result a source or change: a line of JSON each, or label and segments for people."""
    from ..progress import working

    with working("load", plain_only=True):
        from ..jobs.predict import predict

    printing = threading.Lock()  # lines of finished clips come from another thread

    def show_line(line: dict[str, Any]) -> None:
        text = as_json(line) if args.json else _result_text(line)
        with printing:
            print(text, flush=True)

    window = None
    if args.show:
        from .window import Window

        window = Window(f"vidlet {shown(args.source)}").show
    lines = predict(
        args.model, args.source, args.threshold, args.min_s, args.save, args.threads, args.strict, args.csv, args.fps,
        live=args.live, on=args.on, above=args.above, command=args.action, webhook=args.webhook, mqtt=args.mqtt,
        around_s=args.around, show=window, tell=show_line,
    )  # fmt: skip
    with contextlib.closing(lines):
        for line in lines:
            show_line(line)
    return None


def _result_text(found: dict[str, Any]) -> str:
    """What was said of a source, for people: its label or its segments, a moment of a detector, or what is wrong."""
    if "error" in found:
        return shown(found["error"])  # it begins with the source
    if "time_s" in found:
        return f"{shown(found['source'])}: {_moment_text(found)}" if "source" in found else _moment_text(found)
    segments = found.get("segments")
    best = f"{shown(found['label'])} {found['score']:.3f}"
    if segments is not None and len(segments) > 1:
        best = f"{len(segments)} segments"  # one label for all of them would say nothing
    elif segments == []:
        best = f"nothing  (below threshold; most likely {best})"
    lines = [f"{shown(found['source'])}: {best}"]
    lines += [f"  damaged: {shown(found['damage'])}"] if "damage" in found else []
    lines += [f"  note: {shown(note)}" for note in found.get("notes", ())]
    lines += [
        f"  {s['start_s']:8.2f} - {s['end_s']:8.2f} s  {shown(s['label'])}  {s['score']:.3f}" for s in segments or ()
    ]
    return "\n".join(lines)


def _moment_text(line: dict[str, Any]) -> str:
    """A moment for people: when, the action and its score, how many boxes; or where the clip of an event is."""
    if "clip" in line:
        return f"{line['time_s']:9.2f} s  {shown(line['event'])}  {line['score']:.3f}  {shown(line['clip'])}"
    boxes = f"  {len(line['boxes'])} boxes" if "box_labels" in line else ""
    action = f"{shown(line['label']) or '-'}  {line['score']:.3f}" if line["score"] or not boxes else ""
    return f"{line['time_s']:9.2f} s  {action}{boxes}"
