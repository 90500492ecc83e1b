"""The recipe ``auto`` resolved: features of all cuts in one pass, the decision, and the recipe that it comes to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import extractor_graph
from ..datasets import Clip, ClipTable, group_folds
from ..errors import DataError, RecipeError, VidletError
from ..features import Extracted, extract, narrowed, thinned
from ..files import cache_folder, write_text
from ..metrics import rate_interval
from ..models import build_extractor
from ..models.extractors import JointCuts
from ..models.head import flat_size
from ..progress import bar, say
from ..recipe import Recipe, Sampling, load_recipe, recipe_from_dict, recipe_to_dict
from ..runs import SELECTION, RunFolder
from ..selection import Decision, Pool, decide
from ..selection.candidates import Places
from ..selection.decide import training_of, worth_of_looks
from ..selection.wide import decide_widely
from ..training import FeatureClips
from ..training.classification import Moments
from ..video import probe
from .doubts import held_out_findings
from .prepare import moments, targets_of
from .prepare_records import EXTRACTOR, prepare_records, widths_of, with_val

AUTO = "auto"  # head.name of a recipe whose head is chosen by measuring
MOST, TARGETS = 1500, 3e6  # clips that candidates are measured on; clips times classes
STAGED = 2 * MOST  # clips to learn from, above which all cuts see only those that candidates are measured on
LARGEST = 2e8  # records times classes, above which nothing is solved
FALLBACK = "records-video"
FEW_FRAMES = 16  # in the median clip, below which clips are looked at more often, for a try
FASTER, FASTER_GAINS = 4, 0.01  # times as often, at most; what twice as often must gain, of ``worth``
LOOKED_AT = 50  # clips whose lengths are asked for
MANY = 1000  # records, from which on probes are solved with all of them, and trained heads are tried
HELD = 0.2  # of them
TRIALS = "trials"  # in a run: checkpoints of heads that are tried, until the choice is made


def resolve_auto(
    plan: Recipe, table: ClipTable, run: RunFolder, device: str, resume: bool
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe that ``auto`` comes to for these clips, and what was found on the way (metrics.json, ``selection``).

    Features of all cuts are computed in one pass, test clips' too, which are not looked at; those of the chosen cuts
    are stored as the chosen extractor's own. All cuts take 13 kB a frame: of more than ``STAGED`` clips they see only
    those that candidates are measured on, and the chosen ones alone see the others. A decision in ``run`` is taken as
    it stands where ``resume``.

    Raises:
        RecipeError: an ``auto`` that is fine-tuned, or of maps that stay whole.
        DataError: no clip could be read.
    """
    if plan.training.mode != "frozen":
        raise RecipeError(f"{plan.name}: head.name 'auto' chooses on stored features; training.mode must be 'frozen'")
    identity = [recipe_to_dict(plan), table.sha256()]
    known = run / SELECTION
    if resume and known.exists():
        stored = json.loads(known.read_text("utf-8"))
        if stored["identity"] == json.loads(json.dumps(identity)):
            return recipe_from_dict(stored["recipe"]), stored["findings"]
    if table.records is not None:
        trials = run / TRIALS
        if not resume:
            shutil.rmtree(trials, ignore_errors=True)
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        own, findings = _of_records(plan, table, device, trials, key)
        shutil.rmtree(trials, ignore_errors=True)
    else:
        own, findings = _of_clips(plan, table, device)
    saved = {"identity": identity, "recipe": recipe_to_dict(own), "findings": findings}
    write_text(known, json.dumps(saved, indent=1))
    if "chosen" in findings:
        say(f"auto: {' and '.join(findings['chosen'])}; {_told(findings)} on training clips that were held out")
    return own, findings


def _told(findings: Mapping[str, Any]) -> str:
    if "gap20" in findings:
        return f"GAP@20 {findings['gap20']:.4f}"
    low, high = findings["accuracy_interval"]
    return f"{findings['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def _findings(decision: Decision, seen: Sequence[Clip], table: ClipTable) -> dict[str, Any]:
    """What was found, with an interval of the accuracy over the groups of the clips that it was measured on."""
    right, found = decision.choice.right, decision.findings()
    if right is not None:
        known = np.isfinite(right)
        groups = [clip.group for clip, own in zip(seen, known, strict=True) if own]
        low, high, _ = rate_interval(right[known] > 0, groups)
        found["accuracy_interval"] = [low, high]
    return found | held_out_findings(decision.choice.probabilities, seen, table)


def _of_clips(plan: Recipe, table: ClipTable, device: str) -> tuple[Recipe, dict[str, Any]]:
    extractor = build_extractor(plan.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    more = _times_more(plan.sampling, table)
    plan = replace(plan, sampling=replace(plan.sampling, hz=plan.sampling.hz * more))
    learned, looked = _learned(table), table
    if staged := len(learned) > STAGED:
        _need_every_class(table, learned)
        looked = table.with_clips(learned[i] for i in _spread(len(learned), _most(table)))
    splits = {clip.split for clip in learned}
    with bar("features") as move:
        found = extract(looked, graph, plan.sampling, extractor.input_size, cache_folder("features"), progress=move)
    alone = {plan.extractor.cut: (0, extractor.feature_shape)}
    places = extractor.places() if isinstance(extractor, JointCuts) else alone
    rows = [i for i, (clip, key) in enumerate(zip(looked, found.keys, strict=True)) if key and clip.split in splits]
    if not rows:
        raise DataError(f"{table.root}: no readable clip in split train")
    clips = [looked.clips[i] for i in rows]
    if not staged:
        _need_every_class(table, clips)
    own = moments(found.store.read(str(found.keys[i])).features for i in rows)
    whole = FeatureClips(
        lambda i: found.store.read(str(found.keys[rows[i]])).features,
        targets_of(clips, table.labels), [clip.path.name for clip in clips], own[1], plan.sampling.max_frames,
    )  # fmt: skip
    pool, seen = _pool(table, clips, whole, places)
    stored, slower = found, _slower(pool, more) if more > 1 else 1
    if slower > 1:
        pool, stored = _every(pool, slower), thinned(found, plan.sampling, slower, cache_folder("features"))
        plan = replace(plan, sampling=replace(plan.sampling, hz=plan.sampling.hz / slower))
    decision = _decide(plan, table, pool, own, device)
    chosen = decision.recipe(plan, table.multi_label, _training(decision, len(learned if staged else clips)))
    _store_own(chosen, decision, stored, plan.sampling)
    return chosen, _findings(decision, seen, table)


def _times_more(sampling: Sampling, table: ClipTable) -> int:
    """How many times as often clips are looked at for a try, a power of two: where the median clip has few frames.

    Never more often than there are frames, at most ``FASTER`` times, and not where the recipe names a rate of its own.
    """
    if sampling != load_recipe(AUTO).sampling:
        return 1
    clips = _learned(table)
    lengths = []
    for i in np.unique(np.linspace(0, len(clips) - 1, min(len(clips), LOOKED_AT)).astype(int)):
        try:
            lengths.append(_seconds_and_rate(clips[i]))
        except VidletError:
            continue  # it is told where it is read
    if not lengths:
        return 1
    seconds, rate = np.median(lengths, axis=0)
    more = 1
    while more < FASTER and seconds * sampling.hz * more < FEW_FRAMES and sampling.hz * more * 2 <= 1.1 * rate:
        more *= 2
    return more


def _seconds_and_rate(clip: Clip) -> tuple[float, float]:
    info = probe(clip.path)
    rate = clip.fps or info.fps
    whole = info.frames / clip.fps if clip.fps else info.duration_s
    return min(clip.end_s or whole, whole or np.inf) - (clip.start_s or 0.0), rate


def _slower(pool: Pool, most: int) -> int:
    """Of how many frames one is enough, a power of two up to ``most``; more must tell the clips apart better."""
    kept, best = most, worth_of_looks(_every(pool, most))
    while kept > 1 and (now := worth_of_looks(_every(pool, kept // 2))) > best + FASTER_GAINS:
        kept, best = kept // 2, now
    return kept


def _every(pool: Pool, count: int) -> Pool:
    """The clips of a pool with one of so many frames."""
    clips = pool.clips
    assert isinstance(clips, FeatureClips)
    return replace(pool, clips=clips.reading(lambda i: clips.read(i)[::count]))


def _of_records(
    plan: Recipe, table: ClipTable, device: str, trials: Path, identity: str
) -> tuple[Recipe, dict[str, Any]]:
    extractor = replace(plan.extractor, name=EXTRACTOR, cut="", grid=0, weights="none")
    plan = replace(
        plan, extractor=extractor, sampling=Sampling("rate", hz=1.0, max_frames=300), compress=("half", "int8")
    )
    if len(table) * len(table.labels) > LARGEST:
        say(f"auto: {len(table)} records of {len(table.labels)} classes are too many to solve; taking {FALLBACK}")
        own = load_recipe(FALLBACK)
        return replace(own, training=replace(own.training, seed=plan.training.seed)), {"fallback": FALLBACK}
    keys = tuple(widths_of(plan, table))
    prepared = prepare_records(plan, with_val(table), keys)
    assert isinstance(prepared.train, FeatureClips) and prepared.moments is not None
    places = {EXTRACTOR: (0, (prepared.moments[0].size,))}
    _need_every_class(table, prepared.clips)
    pool, seen = _pool(table, prepared.clips, prepared.train, places)
    frames = _median_frames(pool)
    decision = _decide(plan, table, pool, prepared.moments, device, frames)
    few = len(prepared.clips) < MANY or (frames > 1 and not table.multi_label)
    if len(prepared.clips) > len(seen) or not few:
        held = _held_part(prepared.clips)
        decision = decide_widely(
            decision, prepared.train, held, plan.training, prepared.moments, table.multi_label, frames, device, trials,
            identity,
        )  # fmt: skip
        seen = [clip for clip, own in zip(prepared.clips, held, strict=True) if own]
    chosen = decision.recipe(plan, table.multi_label, _training(decision, len(prepared.clips)))
    return chosen, _findings(decision, seen, table)


def _pool(table: ClipTable, clips: Sequence[Clip], whole: FeatureClips, places: Places) -> tuple[Pool, list[Clip]]:
    """What candidates are measured on, and its clips: all, or some where there are very many."""
    rows = _spread(len(clips), _most(table))
    seen = whole if len(rows) == len(clips) else whole.some(rows)
    chosen = [clips[i] for i in rows]
    held = held_out(table, chosen)
    return Pool(seen, seen.targets.astype(np.float64), places, held, table.multi_label), chosen


def _most(table: ClipTable) -> int:
    """On how many clips candidates are measured."""
    return int(max(200, min(MOST, TARGETS / len(table.labels))))


def _spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` of so many rows, from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def _median_frames(pool: Pool) -> float:
    assert isinstance(pool.clips, FeatureClips)
    return float(np.median([len(pool.clips.read(i)) for i in range(min(len(pool.targets), 200))]))


def _decide(
    plan: Recipe, table: ClipTable, pool: Pool, moments: Moments, device: str, frames: float | None = None
) -> Decision:
    frames = _median_frames(pool) if frames is None else frames
    with bar("measure") as move:
        return decide(
            pool, plan, moments, records=table.records is not None, frames=frames, device=device,
            report=lambda what, done, total: move(done, total),
        )  # fmt: skip


def _need_every_class(table: ClipTable, clips: Sequence[Clip]) -> None:
    """Raises DataError: one label a clip, and a class of which none is in train."""
    if table.multi_label:
        return
    missing = {clip.label for clip in table} - {clip.label for clip in clips}
    if missing:
        raise DataError(
            f"{table.root}: class {min(missing)!r} has no clip in train; where a group holds clips of one class alone, "
            "leave the groups empty to split by clip, or give the splits"
        )


def held_out(table: ClipTable, clips: Sequence[Clip]) -> list[np.ndarray]:
    """Folds by group: bool (N,) each, True where a clip is held out; single clips where there are too few groups."""
    count = len(clips)
    folds = 10 if count <= 40 else 5 if count <= 600 else 3
    plain = table.with_clips(replace(clip, split="") for clip in clips)
    groups = {clip.group or f"{clip.path}" for clip in clips}
    if len(groups) >= 3:
        parts = group_folds(plain, min(folds, len(groups)))
        return [np.array([clip.split == "test" for clip in part]) for part in parts]
    return [np.arange(count) % folds == i for i in range(folds)]


def _held_part(clips: Sequence[Clip]) -> np.ndarray:
    """Which clips (N,) are held out: about ``HELD`` of them, whole groups where these are small enough."""
    groups = [clip.group or f"{clip.path}" for clip in clips]
    sizes = Counter(groups)
    held: set[str] = set()
    count, wanted = 0, HELD * len(clips)
    for name in map(str, np.random.default_rng(0).permutation(sorted(sizes))):
        if count < wanted and count + sizes[name] <= 2 * wanted:
            held.add(name)
            count += sizes[name]
    if not held:
        return np.arange(len(clips)) % round(1 / HELD) == 0
    return np.array([group in held for group in groups])


def _learned(table: ClipTable) -> list[Clip]:
    """The clips to learn from: those of val too, where others test."""
    splits = ("train", "val") if len(table.of_split("test")) else ("train",)
    return [clip for clip in table if clip.split in splits]


def _training(decision: Decision, clips: int) -> dict[str, Any]:
    return training_of([m.candidate for m in decision.choice.members], clips)


def _store_own(chosen: Recipe, decision: Decision, found: Extracted, sampling: Sampling) -> None:
    """Store the chosen cuts' features as those of the chosen extractor, which then has nothing to compute."""
    extractor = build_extractor(chosen.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    columns = decision.columns()
    assert len(columns) == flat_size(extractor.feature_shape)
    narrowed(found, columns, extractor.feature_shape, sampling, extractor.input_size, graph, cache_folder("features"))
