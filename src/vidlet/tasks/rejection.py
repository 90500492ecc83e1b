"""None of these: the threshold that a training ships in its files, and what it lets through where nothing happens."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..compression import Trained
from ..datasets import Background, Clip, ClipTable, between_segments
from ..errors import VidletError
from ..metrics import Rejection, choose_threshold, named_scores
from ..progress import bar, say
from ..recipe import Recipe
from ..runs import RunFolder
from ..runtime import Model, load, predict_timeline, read_metadata, write_metadata
from ..training import ClipNetwork, Clips, predict_logits
from ..training.linear import log_probabilities
from .clips import Scored, score_clips
from .doubts import none_index, rejection_scores
from .prepare import Prepared
from .prepare_records import prepare_clips


def find_rejection(
    plan: Recipe,
    table: ClipTable,
    network: Trained,
    prepared: Prepared,
    background: Background | None,
    product: Path,
    held_out: Mapping[str, Sequence[float]] | None,
) -> tuple[Rejection, Background] | None:
    """The threshold by clips that were not trained on; None where nothing says how "none of these" looks.

    Without a background it is what clips that are cut from longer videos leave between them.

    Args:
        product: the float32 file; its temperature is meant.
        held_out: what the choice of the recipe said of training clips that it held out; None: validation clips are
            asked.
    """
    if table.records is not None:
        return None
    background = background or between_segments(table)
    if background is None:
        return None
    if held_out is None and plan.training.val_too and len(table.of_split("test")):
        say("no threshold was chosen between the clips: all others than test clips train (training.val_too)")
        return None
    temperature = read_metadata(product).get("temperature")
    if held_out is None:
        scores = _scores(plan, network, prepared.val, temperature, table.multi_label)
        held_out = rejection_scores(scores, np.asarray(prepared.val.targets), none_index(table))
    false: Sequence[float] = held_out["false"]
    if background.windows:
        false = _named_in(background.windows, plan, table, network, temperature)
    return choose_threshold(held_out["right"], false), background


def reject_by_file(model: Model, val: ClipTable, background: Background) -> Rejection:
    """The threshold by what a file says of clips that it was not trained on, and of what lies between them."""
    said = score_clips(model, val)
    none = said.names.index(background.label) if background.label else None
    found = rejection_scores(said.scores, said.truth, none)
    false: Sequence[float] = found["false"]
    if background.windows:
        asked = val.with_clips(replace(clip, labels=val.labels[:1]) for clip in background.windows)  # not looked at
        false = named_scores(score_clips(model, asked).scores)[1].tolist()
    return choose_threshold(found["right"], false)


def _scores(plan: Recipe, network: Trained, clips: Clips, temperature: float | None, multi_label: bool) -> np.ndarray:
    """Probabilities (N, K) of clips as the file gives them."""
    whole = ClipNetwork(network.head, None if plan.training.mode == "frozen" else network.extractor)
    logits = predict_logits(whole, clips, plan.training.batch).astype(np.float64)
    found: np.ndarray = np.exp(log_probabilities(logits / (temperature or 1.0), multi_label))
    return found


def _named_in(
    windows: Sequence[Clip], plan: Recipe, table: ClipTable, network: Trained, temperature: float | None
) -> list[float]:
    """The scores with which something is named in windows that show nothing."""
    plain = replace(plan, training=replace(plan.training, val_too=False, one_way=()))
    asked = [replace(clip, labels=table.labels[:1], split="val") for clip in windows]  # the label is not looked at
    found = prepare_clips(plain, table.with_clips([*table.of_split("train"), *asked]), network.extractor, False)
    scores = _scores(plan, network, found.val, temperature, table.multi_label)
    return named_scores(scores)[1].tolist()


def ship_threshold(run: RunFolder, names: Sequence[str], threshold: float, label: str) -> None:
    """Write into model files from which score on a label is named, and which label is never."""
    for name in names:
        metadata = read_metadata(run / name)
        metadata["none"] = {"threshold": threshold} | ({"label": label} if label else {})
        write_metadata(run / name, metadata)


def measure_rejection(
    run: RunFolder,
    names: Sequence[str],
    background: Background,
    threshold: float,
    scored: Mapping[str, Scored],
    seconds: float = math.inf,
) -> dict[str, dict[str, Any]]:
    """False events on held out background and recall on the scored clips, of each file at its threshold.

    Args:
        seconds: behind which no further video is looked at, of each file; one is in any case.

    Returns:
        file -> ``false_events``, ``background_hours``, ``false_events_an_hour`` (None without any background),
        ``recall_at_threshold``: the share of the scored clips that are named rightly.
    """
    return {
        name: _false_events(run, name, background.held, seconds)
        | {"recall_at_threshold": _recall(scored[name], threshold, background)}
        for name in names
    }


def _false_events(run: RunFolder, name: str, held: Sequence[Clip], limit_s: float) -> dict[str, Any]:
    model, events, seconds, began = load(run / name, threads=1), 0, 0.0, time.monotonic()
    with bar(f"false events of {name}") as move:
        for done, clip in enumerate(held, 1):
            if seconds and time.monotonic() - began > limit_s:
                break
            try:
                found = predict_timeline(model, clip.path, start_s=clip.start_s, end_s=clip.end_s)
            except VidletError as error:
                say(f"skipped: {error}")
                continue
            events += len(found.segments)
            seconds += found.duration_s - (clip.start_s or 0.0)
            move(done, len(held))
    rate = round(3600 * events / seconds, 2) if seconds else None
    return {"false_events": events, "background_hours": round(seconds / 3600, 4), "false_events_an_hour": rate}


def _recall(scored: Scored, threshold: float, background: Background) -> float:
    none = scored.names.index(background.label) if background.label in scored.names else None
    best, sure = named_scores(scored.scores, none)
    something = np.array([background.label not in clip.labels for clip in scored.clips], bool)
    right = scored.truth[np.arange(len(best)), best] & (sure >= threshold) & (sure > 0)
    return float(right[something].mean()) if something.any() else float("nan")


def rejection_line(found: Mapping[str, Any], name: str, figures: Mapping[str, Any]) -> str:
    """What is shipped and what it lets through, in a line."""
    lost = 100 * (found["recall_without"] - found["recall"])
    kept = f"{100 * found['recall']:.1f} % of held out clips are named rightly, {lost:.1f} points fewer than without"
    line = f"names nothing below {found['threshold']:.2g}: {kept}"
    rate = figures.get("false_events_an_hour")
    if rate is None:
        return f"{line}; no background is left to count false events on"
    minutes = 60 * figures["background_hours"]
    return f"{line}; {name}: {rate:.1f} false events an hour ({figures['false_events']} in {minutes:.1f} min held out)"


def ship_rejection(
    run: RunFolder,
    names: Sequence[str],
    rejection: Rejection,
    background: Background,
    source: str | None,
    scored: Mapping[str, Scored],
    metrics: dict[str, Any],
    seconds: float = math.inf,
) -> None:
    """Put the threshold into files, measure them for about so many seconds, and put what was found into ``metrics``."""
    ship_threshold(run, names, rejection.threshold, background.label)
    for name, figures in measure_rejection(run, names, background, rejection.threshold, scored, seconds).items():
        metrics["files"][name] |= figures
    metrics["none"] = {
        "label": background.label,
        "source": source,
        "told": background.told,
        **{key: value if math.isfinite(value) else None for key, value in rejection._asdict().items()},
    }
    say(rejection_line(metrics["none"], names[-1], metrics["files"][names[-1]]))
