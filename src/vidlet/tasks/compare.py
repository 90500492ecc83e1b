"""Two model files on the same clips: class by class, with paired intervals, and the clips on which they disagree."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import ClipTable
from ..errors import DataError, VidletError
from ..metrics import Difference, comparison_summary
from ..reports import FileRow, Report, write_report
from ..reports.comparison import Disagreement, class_differences, disagreements
from ..runtime import Model, benchmark
from .clip_report import small_clip
from .clips import Scored, score_clips, summarize

PICTURES = 6  # of clips that only one of the two names rightly, for each of them


def compare_models(
    model: Model,
    against: Model,
    table: ClipTable,
    names: tuple[str, str],
    strict: bool = False,
    report: str | Path | None = None,
) -> dict[str, Any]:
    """Score two loaded files on the clips of ``table``; what ``evaluate`` returns of the first, and ``against``.

    ``against`` is {"model", "accuracy", "accuracy_interval", "macro_f1", "bytes", "clip_ms", ...comparison_summary's
    keys, "disagree": a list of {"path", "label", "predicted", "score", "against_predicted", "against_score",
    "right"}}; a clip that one of the two could not read is left out of the comparison.

    Args:
        names: how the two are called.
        report: an HTML file to write.

    Raises:
        DataError: the files know different labels or give several a clip, or no clip could be read by both.
    """
    for loaded, name in zip((model, against), names, strict=True):
        if loaded.multi_label or loaded.box_labels:
            raise DataError(f"{name}: gives several labels or boxes; --against compares files of one label a clip")
    if set(model.labels) != set(against.labels):
        only = sorted(set(model.labels) ^ set(against.labels))
        raise DataError(
            f"{names[0]} and {names[1]} do not name the same classes: {', '.join(map(repr, only[:5]))} "
            f"{'is' if len(only) == 1 else 'are'} known to one only; compare files of the same labels"
        )
    first, second = paired(score_clips(model, table, strict), score_clips(against, table, strict))
    found = summarize(first, model)
    theirs = summarize(second, against)
    summary = comparison_summary(first.scores, second.scores, first.labels, first.groups, first.names)
    differing = _disagreements(first, second)
    found["against"] = {
        "model": names[1],
        **{key: theirs[key] for key in ("accuracy", "accuracy_interval", "top5", "macro_f1", "bytes", "clip_ms")},
        **summary,
        "disagree": [_listed(clip) for clip in differing],
    }
    if report is not None:
        _write(Path(report), (model, against), names, (found, theirs), first, differing)
    return found


def paired(first: Scored, second: Scored) -> tuple[Scored, Scored]:
    """The clips that both could read, in one order, with the scores' columns in the first one's order of classes.

    Raises:
        DataError: there is no such clip.
    """
    places = {(clip.path, clip.start_s, clip.end_s, clip.row): i for i, clip in enumerate(second.clips)}
    rows = [(i, places.get((c.path, c.start_s, c.end_s, c.row))) for i, c in enumerate(first.clips)]
    both = [(i, j) for i, j in rows if j is not None]
    if not both:
        raise DataError("no clip could be read by both files")
    columns = [second.names.index(name) for name in first.names]
    one, other = ([pair[side] for pair in both] for side in (0, 1))
    return (
        replace(
            first,
            clips=tuple(first.clips[i] for i in one),
            scores=first.scores[one],
            labels=first.labels[one],
            clip_s=first.clip_s[one],
        ),
        replace(
            second,
            clips=tuple(second.clips[j] for j in other),
            scores=second.scores[other][:, columns],
            labels=first.labels[one],
            clip_s=second.clip_s[other],
            names=first.names,
        ),
    )


def _disagreements(first: Scored, second: Scored) -> list[Disagreement]:
    """Clips named differently: those first on which one is right, the surest wrong answer first."""
    found = []
    for clip, ours, theirs in zip(first.clips, first.scores, second.scores, strict=True):
        a, b = int(ours.argmax()), int(theirs.argmax())
        if a != b:
            found.append(
                Disagreement(
                    str(clip.path), clip.label, first.names[a], float(ours[a]), first.names[b], float(theirs[b])
                )
            )
    wrong = {"model": lambda c: c.against_score, "against": lambda c: c.score, "neither": lambda c: 0.0}
    return sorted(found, key=lambda c: (c.right == "neither", -wrong[c.right](c)))


def _listed(clip: Disagreement) -> dict[str, Any]:
    return {
        "path": clip.name,
        "label": clip.label,
        "predicted": clip.predicted,
        "score": clip.score,
        "against_predicted": clip.against_predicted,
        "against_score": clip.against_score,
        "right": clip.right,
    }


def _pictured(clips: Sequence[Disagreement], scored: Scored) -> list[Disagreement]:
    """The same clips, the first few of each kind with their frames; a name is the file's."""
    of = {str(clip.path): clip for clip in scored.clips}
    shown, left = [], {"model": PICTURES, "against": PICTURES, "neither": 0}
    for clip in clips:
        source = of[clip.name]
        named = replace(clip, name=source.path.name)
        if left[clip.right] > 0:
            left[clip.right] -= 1
            try:
                frames, fps = small_clip(source.path, source.start_s, source.end_s)
                named = replace(named, frames=np.asarray(frames), fps=fps)
            except VidletError:
                pass  # it was readable a moment ago; a report without this picture is still a report
        shown.append(named)
    return shown


def _write(
    path: Path,
    models: tuple[Model, Model],
    names: tuple[str, str],
    figures: tuple[dict[str, Any], dict[str, Any]],
    scored: Scored,
    differing: Sequence[Disagreement],
) -> None:
    short = short_names(names)
    summary = figures[0]["against"]
    rows = []
    for model, name, found, gap in zip(models, short, figures, (summary["difference"], None), strict=True):
        timed = benchmark(model.path, seconds=1.0, threads=1)
        difference = Difference(**gap) if gap else None
        rows.append(
            FileRow(
                name, "", found["accuracy"], found["accuracy_interval"], difference, found["bytes"], timed["frame_ms"]
            )
        )
    sections = [
        class_differences(summary, *short),
        disagreements(_pictured(differing, scored), summary, *short),
    ]
    write_report(
        path,
        Report(
            title=f"{short[0]} against {short[1]}",
            summary=f"Two files on the same {figures[0]['clips']} clips, scored through the runtime.",
            product=short[0],
            split="scored",
            groups=len(set(scored.groups)) if any(scored.groups) else None,
            metrics=figures[0],
            bytes=figures[0]["bytes"],
            frame_ms=rows[0].frame_ms,
            machine=f"{platform.machine()}, 1 thread",
            files=[rows[1], rows[0]],
            extra=[section for section in sections if section is not None],
        ),
    )


def short_names(names: tuple[str, str]) -> tuple[str, str]:
    """File names, with the folders that are needed to tell them apart."""
    a, b = (Path(name).parts for name in names)
    for count in range(1, max(len(a), len(b)) + 1):
        one, other = "/".join(a[-count:]), "/".join(b[-count:])
        if one != other:
            return one, other
    return f"{names[0]} (1)", f"{names[1]} (2)"
