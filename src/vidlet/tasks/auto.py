"""The recipe ``auto`` resolved: features of all cuts in one pass, the decision, and the recipe that it comes to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..artifact import extractor_graph
from ..datasets import Clip, ClipTable, group_folds
from ..errors import DataError, RecipeError
from ..features import Extracted, extract, narrowed
from ..files import cache_folder, write_text
from ..models import build_extractor
from ..models.head import flat_size
from ..models.joint_cuts import JointCuts
from ..progress import bar, say
from ..recipe import Recipe, Sampling, load_recipe, recipe_from_dict, recipe_to_dict
from ..runs import SELECTION, RunFolder
from ..selection import Decision, Pool, decide
from ..selection.decide import training_of
from ..training import FeatureClips
from .doubts import held_out_findings
from .prepare import moments, targets_of
from .prepare_records import EXTRACTOR, prepare_records, widths_of, with_val

AUTO = "auto"  # head.name of a recipe whose head is chosen by measuring
MOST, TARGETS = 1500, 3e6  # clips that candidates are measured on; clips times classes
LARGEST = 2e8  # records times classes, above which nothing is solved
FALLBACK = "records-mean"


def resolve_auto(
    plan: Recipe, table: ClipTable, run: RunFolder, device: str, resume: bool
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe that ``auto`` comes to for these clips, and what was found on the way (metrics.json, ``selection``).

    Features of all cuts are computed in one pass, test clips' too, which are not looked at; those of the chosen cuts
    are stored as the chosen extractor's own. A decision in ``run`` is taken as it stands where ``resume``.

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
    own, findings = (_of_records if table.records is not None else _of_clips)(plan, table, device)
    saved = {"identity": identity, "recipe": recipe_to_dict(own), "findings": findings}
    write_text(known, json.dumps(saved, indent=1))
    if "chosen" in findings:
        share = f"{findings['accuracy']:.3f} on training clips that were held out"
        say(f"auto: {' and '.join(findings['chosen'])}; {share}")
    return own, findings


def _of_clips(plan: Recipe, table: ClipTable, device: str) -> tuple[Recipe, dict[str, Any]]:
    extractor = build_extractor(plan.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    with bar("features") as move:
        found = extract(table, graph, plan.sampling, extractor.input_size, cache_folder("features"), progress=move)
    alone = {plan.extractor.cut: (0, extractor.feature_shape)}
    places = extractor.places() if isinstance(extractor, JointCuts) else alone
    rows = [i for i, (clip, key) in enumerate(zip(table, found.keys, strict=True)) if key and _learned(clip, table)]
    if not rows:
        raise DataError(f"{table.root}: no readable clip in split train")
    clips = [table.clips[i] for i in rows]
    mean, std = moments(found.store.read(str(found.keys[i])).features for i in rows)
    whole = FeatureClips(
        lambda i: found.store.read(str(found.keys[rows[i]])).features,
        targets_of(clips, table.labels), [clip.path.name for clip in clips], std, plan.sampling.max_frames,
    )  # fmt: skip
    decision, seen = _decide(plan, table, clips, whole, places, (mean, std), device)
    chosen = decision.recipe(plan, table.multi_label, _training(decision, len(clips)))
    _store_own(chosen, decision, found, plan.sampling)
    return chosen, decision.findings() | held_out_findings(decision.choice.probabilities, seen, table)


def _of_records(plan: Recipe, table: ClipTable, device: str) -> tuple[Recipe, dict[str, Any]]:
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
    decision, seen = _decide(plan, table, prepared.clips, prepared.train, places, prepared.moments, device)
    chosen = decision.recipe(plan, table.multi_label, _training(decision, len(prepared.clips)))
    return chosen, decision.findings() | held_out_findings(decision.choice.probabilities, seen, table)


def _decide(
    plan: Recipe, table: ClipTable, clips: Sequence[Clip], whole: FeatureClips, places: Any, moments: Any, device: str
) -> tuple[Decision, list[Clip]]:
    """The decision, and the clips that were measured on.

    Raises:
        DataError: a class of which no clip is in train.
    """
    if not table.multi_label:
        _need_every_class(table, clips)
    most = int(max(200, min(MOST, TARGETS / len(table.labels))))
    rows = np.linspace(0, len(clips) - 1, min(len(clips), most)).astype(int)
    seen = whole if len(rows) == len(clips) else whole.some(rows)
    held = held_out(table, [clips[i] for i in rows])
    lengths = [len(seen.read(i)) for i in range(min(len(rows), 200))]
    targets = seen.targets.astype(np.float64)
    pool = Pool(seen, targets, places, held, table.multi_label)
    with bar("measure") as move:
        decision = decide(
            pool, plan, moments, records=table.records is not None, frames=float(np.median(lengths)), device=device,
            report=lambda what, done, total: move(done, total),
        )  # fmt: skip
    return decision, [clips[i] for i in rows]


def _need_every_class(table: ClipTable, clips: Sequence[Clip]) -> None:
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


def _learned(clip: Clip, table: ClipTable) -> bool:
    """Whether a clip is one to learn from: those of val too, where others test."""
    return clip.split == "train" or (clip.split == "val" and len(table.of_split("test")) > 0)


def _training(decision: Decision, clips: int) -> dict[str, Any]:
    return training_of([m.candidate for m in decision.choice.members], clips)


def _store_own(chosen: Recipe, decision: Decision, found: Extracted, sampling: Sampling) -> None:
    """Store the chosen cuts' features as those of the chosen extractor, which then has nothing to compute."""
    extractor = build_extractor(chosen.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    columns = decision.columns()
    assert len(columns) == flat_size(extractor.feature_shape)
    narrowed(found, columns, extractor.feature_shape, sampling, extractor.input_size, graph, cache_folder("features"))
