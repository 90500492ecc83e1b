"""`vidlet predict`."""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, RecipeError
from ..wording import as_json, shown
from . import options

if TYPE_CHECKING:
    from ..live.actions import EventActions
    from ..live.event_clips import EventClips
    from ..runtime import Model

EXAMPLE = "example: vidlet predict runs/a/model.int8.onnx clip.mp4 --save annotated.mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet predict`."""
    parser.add_argument(
        "model",
        metavar="MODEL|RUN",
        help="a model file (.onnx), or a run folder: the quicker of its equally good files",
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
        "--around",
        type=options.number(float, 0, 3600),
        metavar="S",
        help="--on with --save: seconds before and after (3)",
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="write the segments as CSV; of records, a submission: id, 20 classes and scores"
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
    """Print one result a source: a line of JSON each, or label and segments for people."""
    from ..video import is_live

    if args.on is None and (args.action or args.webhook):
        raise RecipeError("--command and --webhook need --on LABEL, which says when")
    if args.around is not None and not (args.on is not None and _names_folder(args.save)):
        raise RecipeError("--around S needs --on LABEL and --save FOLDER, where the clips go")
    if args.live or args.show or is_live(args.source):
        if args.fps is not None:
            raise RecipeError("--fps is for folders of frames that are read as files, not for live sources")
        if args.on is None and _names_folder(args.save):
            raise RecipeError(f"--save {args.save}: a folder gets a clip an event of --on LABEL; the view needs a file")
        _live(args)
        return None
    if args.on is not None:
        raise RecipeError("--on LABEL is for live sources: a camera, a stream, or a file with --live")
    from ..jobs.predict import predict

    for found in predict(
        args.model, args.source, args.threshold, args.min_s, args.save, args.threads, args.strict, args.csv, args.fps
    ):
        print(as_json(found) if args.json else _result_text(found), flush=True)
    return None


def _result_text(found: dict[str, Any]) -> str:
    """What was said of a source, for people: its label or its segments, a moment of a detector, or what is wrong."""
    if "error" in found:
        return shown(found["error"])  # it begins with the source
    if "time_s" in found:
        return f"{shown(found['source'])}: {_moment_text(found)}"
    segments = found.get("segments")
    best = f"{shown(found['label'])} {found['score']:.3f}"
    if segments is not None and len(segments) > 1:
        best = f"{len(segments)} segments"  # one label for all of them would say nothing
    elif segments == []:
        best = f"nothing  (below threshold; most likely {best})"
    lines = [f"{shown(found['source'])}: {best}"]
    lines += [f"  damaged: {shown(found['damage'])}"] if "damage" in found else []
    lines += [
        f"  {s['start_s']:8.2f} - {s['end_s']:8.2f} s  {shown(s['label'])}  {s['score']:.3f}" for s in segments or ()
    ]
    return "\n".join(lines)


def _live(args: argparse.Namespace) -> None:
    from ..live.watching import LiveFigures, predict_live
    from ..progress import say
    from ..runs import quickest
    from ..runtime import load
    from .window import Window

    figures, model = LiveFigures(), load(quickest(args.model, args.threads), threads=args.threads)
    printing = threading.Lock()  # lines of finished clips come from another thread

    def show_line(line: dict[str, Any]) -> None:
        with printing:
            print(as_json(line) if args.json else _moment_text(line), flush=True)

    clips: EventClips | None = None
    actions = _actions(args, model, say) if args.on is not None else None
    if actions is not None and _names_folder(args.save):
        actions.clips = clips = _clips(args, model, show_line, say)
    lines = predict_live(
        model,
        args.source,
        args.threshold,
        args.min_s,
        None if clips else args.save,
        Window(f"vidlet {shown(args.source)}").show if args.show else None,
        figures,
        each=actions,
        tell=say,
        frames=clips.push if clips else None,
    )
    try:
        for line in lines:
            show_line(line)
    finally:
        lines.close()
        if actions is not None:
            actions.close()
        found = figures.to_dict()
        delay = found["delay_ms"]
        say(
            f"{shown(args.source)}: {found['frames']} frames answered, {found['dropped']} dropped; delay p50 "
            f"{delay['p50']:.0f} ms, p95 {delay['p95']:.0f} ms"
        )
    if actions is not None and actions.lost:
        raise DataError(f"{shown(args.source)}: {', '.join(actions.lost)}")


def _names_folder(save: str | None) -> bool:
    """Whether --save means clips in a folder; a name that ends like a file's is the view as a video."""
    return save is not None and (Path(save).is_dir() or save.endswith(("/", os.sep)) or not Path(save).suffix)


def _clips(
    args: argparse.Namespace, model: Model, tell: Callable[[dict[str, Any]], None], say: Callable[[str], None]
) -> EventClips:
    from ..live.event_clips import AROUND_S, EventClips

    def told(line: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the next line of the main thread finds out
            tell(line)

    around_s = AROUND_S if args.around is None else args.around
    return EventClips(args.save, model.rate_hz, around_s, _event_s(args, model), told, say)


def _actions(args: argparse.Namespace, model: Model, say: Callable[[str], None]) -> EventActions:
    """What is done once an event."""
    from ..live.actions import EventActions
    from ..live.events import EventRule

    shipped = model.threshold if "none" in model.metadata else EventRule.above
    rule = EventRule(args.on, shipped if args.above is None else args.above, min_s=_event_s(args, model))
    return EventActions(model, rule, str(args.source), args.action, args.webhook, say)


def _event_s(args: argparse.Namespace, model: Model) -> float:
    """An event lasts as long as a segment must, see --min-s."""
    return model.median_s / 4 if args.min_s is None else float(args.min_s)


def _moment_text(line: dict[str, Any]) -> str:
    """A moment for people: when, the action and its score, how many boxes; or where the clip of an event is."""
    if "clip" in line:
        return f"{line['time_s']:9.2f} s  {shown(line['event'])}  {line['score']:.3f}  {shown(line['clip'])}"
    boxes = f"  {len(line['boxes'])} boxes" if "boxes" in line else ""
    action = f"{shown(line['label']) or '-'}  {line['score']:.3f}" if line["score"] or "boxes" not in line else ""
    return f"{line['time_s']:9.2f} s  {action}{boxes}"
