"""Networks that a search trains end to end, extractor and head."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vidlet.datasets import read_table
from vidlet.errors import RecipeError
from vidlet.jobs.compress import compress
from vidlet.jobs.fit import fit
from vidlet.models import build_extractor
from vidlet.models.mobilenets import MobileNetV2
from vidlet.recipe import load_recipe
from vidlet.runs import MODEL, RunFolder
from vidlet.runtime import benchmark, load
from vidlet.search import cards, course, halving, realize, tuned
from vidlet.search import clips as module
from vidlet.search.budget import Budget
from vidlet.search.course import Asked
from vidlet.search.data import judge
from vidlet.search.space import ALONE, TUNED, Space, cuts_of
from vidlet.search.trials import TrialLog
from vidlet.search.tuned import FineTuning, Pace, Tuner, candidate_of, recipes_of
from vidlet.tasks import TASKS, clip_networks
from vidlet.tasks.clip_networks import open_classifier
from vidlet.video import write_video

RECIPE = """
[sampling]
hz = 4.0
max_frames = 6
[extractor]
name = "mobilenetv2"
width = 0.35
input_size = [32, 32]
cut = "block2"
grid = 2
weights = "{weights}"
[head]
name = "grid-gru"
options = {{ channels = 4, project = 8, hidden = 8 }}
[training]
mode = "finetune"
head_epochs = 2
epochs = 2
batch = 8
lr = 1e-3
extractor_lr = 1e-3
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.manual_seed(0)
    torch.save(MobileNetV2(0.35, "block2").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def recipe(weights):
    path = weights.with_name("quick.toml")
    path.write_text(RECIPE.format(weights=weights))
    return str(path)


@pytest.fixture(scope="module")
def space(weights):
    extractors = cuts_of(width=0.35, weights=str(weights), size=32, cuts=("block2",), grid=2)
    return Space(extractors, epochs=1, rounds=(1.0,), begin=("default",))


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """Times from a few calls, no drawn trials, one file; a fine-tuned file is the best of all, however good it is."""
    with pytest.MonkeyPatch.context() as patch:
        for place in (realize, course, cards):
            patch.setattr(place, "benchmark", lambda path, seconds, threads: benchmark(path, 0.02, threads))
        patch.setattr(halving, "DRAWS", 0)
        patch.setattr(module, "ALONE", ALONE[:2])
        patch.setattr(module, "finalists", lambda *given: halving.finalists(*given)[:1])
        patch.setattr(tuned, "HOPELESS", 1.0)
        for place in (clip_networks, tuned):
            patch.setattr(place, "HEAD_FIRST", replace(clip_networks.HEAD_FIRST, least_updates=4))
        patch.setattr(module, "best_first", lambda points: sorted(points, key=lambda p: p.candidate.kind != TUNED))
        patch.setattr(module, "deliverable", lambda points, *given: points)
        patch.setenv("VIDLET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Thirty clips of three colors in ten groups, of which two are test: so few that three folds judge."""
    folder, rng = tmp_path_factory.mktemp("tuned") / "clips", np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,label,group,split"]
    for number in range(30):
        color = np.roll([200, 60, 60], number % 3)
        frames = np.clip(color + rng.normal(0, 25, (6, 32, 32, 3)), 0, 255).astype(np.uint8)
        write_video(folder / f"{number}.mp4", list(frames), 4)
        group = number // 3
        rows.append(f"{number}.mp4,{'rgb'[number % 3]},g{group},{'test' if group > 7 else 'train'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


def records(folder, kind):
    lines = [json.loads(line) for line in (folder / "trials.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def found(clips, space, recipe, tmp_path_factory):
    """A search that ended in the second fold of its fine-tuning, and was gone on with.

    Yields its folder, its result, and the folds that each of the two trained.
    """
    out, folds = tmp_path_factory.mktemp("fit") / "run", []
    given = {"max_size": 200_000, "time": 3600, "out": out, "workers": 1, "space": space, "fine_tune": recipe}
    predict = tuned.predict_logits

    def killed(network, val, batch):
        folds.append(len(val))
        if len(folds) == 2:
            raise SystemExit
        return predict(network, val, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuned, "predict_logits", killed)
        with pytest.raises(SystemExit):
            fit(clips, **given)
        assert not records(out, "tuned") and records(out, "tuning")
        return out, fit(clips, **given, resume=True), folds


def test_a_search_goes_on_with_the_fold_in_which_it_ended(found):
    out, _, folds = found
    assert len(folds) == 4  # the second fold again, and the third
    assert len(records(out, "tuning")) == len(records(out, "tuned")) == 1
    assert not (out / "tuned").exists()
    outcome = records(out, "tuned")[0]["outcome"]
    assert 0 <= outcome["accuracy"] <= 1 and outcome["seconds"] > 0


def test_a_fine_tuned_network_is_delivered_as_a_run_that_can_be_gone_on_from(found, clips, recipe):
    out, result, _ = found
    chosen = result["metrics"]["chosen"]
    assert chosen["candidate"]["kind"] == TUNED and result["metrics"]["refit"] is True
    assert chosen["judged_accuracy"] == records(out, "tuned")[0]["outcome"]["accuracy"]
    assert "quick" in result["metrics"]["solved"]
    run, table = RunFolder(out), read_table(clips)
    plan = run.recipe()
    assert plan.training.mode == "finetune" and (out / "extractor.pt").exists()
    trained, begun = open_classifier(run, plan, table), load_recipe(recipe)
    before = build_extractor(begun.extractor).backbone.state_dict()
    moved = [name for name, value in trained.extractor.backbone.state_dict().items() if (value != before[name]).any()]
    assert any(name.endswith("weight") for name in moved)
    compress(out, clips, ["int8"])
    clip = next(iter(table.of_split("test"))).path
    scores = [
        np.array(list(load(file).classify(clip).scores.values())) for file in (out / MODEL, out / "model.int8.onnx")
    ]
    assert abs(scores[0] - scores[1]).max() < 0.05


def test_the_files_of_its_storages_share_one_training(found):
    out, _, _ = found
    own = [p for p in records(out, "file") if p["candidate"]["kind"] == TUNED]
    assert len(own) > 1 and own[0]["chain"] != own[1]["chain"]
    assert {p["judged"] for p in own} == {own[0]["judged"]}
    assert len(list((out / "files").glob("*.extractor.pt"))) == 1


def asked(folder, clips, fine_tune, seconds=600.0):
    return Asked(str(clips), folder, Budget(), seconds, fine_tune=fine_tune)


def test_what_there_is_no_time_for_is_not_begun_and_named_where_it_was_asked_for(
    clips, space, recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "conclude", lambda course, *given: course)
    for step in ("search", "make_files"):
        monkeypatch.setattr(module.ClipSearch, step, lambda self: None)
    monkeypatch.setattr(module.ClipSearch, "trials", SimpleNamespace(trials=[]), raising=False)
    slow = tmp_path / "slow.toml"
    slow.write_text(Path(recipe).read_text("utf-8").replace("epochs = 2\nbatch", "epochs = 1000000\nbatch"))
    found = fit(clips, time=600, out=tmp_path / "slow", workers=1, space=space, fine_tune=str(slow))
    [why] = [text for text in found.missed if "fine-tuned" in text]
    assert re.fullmatch(r"slow is not fine-tuned: all of it would take about \d.*", why)
    for unasked in ("auto", "no"):
        found = fit(clips, time=600, out=tmp_path / unasked, workers=1, space=space, fine_tune=unasked)
        assert not [text for text in found.missed if "fine-tuned" in text]
        assert not any(record["candidate"] for record in found.log.of("tuned"))


def test_unasked_the_largest_network_within_the_budget_is_tried_on_many_clips_alone(clips, tmp_path, monkeypatch):
    judged, log = judge(clips), TrialLog(tmp_path / "trials.jsonl", "x")
    seen = []

    def affordable(candidate):
        seen.append(candidate.plan.extractor.cut)
        return candidate.plan.extractor.cut == "block6"

    tuner = Tuner(asked(tmp_path, clips, "auto"), judged, log, tmp_path, affordable)
    assert tuner._choose(lambda: 1e6) == (None, "") and not seen
    monkeypatch.setattr(tuned, "FEW_CLIPS", 10)
    monkeypatch.setattr(FineTuning, "pace", lambda self: Pace(0.01, 1.0))
    candidate, why = tuner._choose(lambda: 1e6)
    assert why == "" and candidate.plan.extractor.cut == "block6" and candidate.plan.extractor.input_size == (128, 128)
    assert [cut for i, cut in enumerate(seen) if cut not in seen[:i]] == ["block12", "block10", "block6"]
    whole = load_recipe(tuned.RECIPE).training.epochs
    assert next(log.of("tuning"))["epochs"] == candidate.plan.training.epochs == whole
    narrow = FineTuning(tuner.asked, judged, candidate, tmp_path)
    needed = narrow.epochs(Pace(0.01, 1.0), 1e6)[1]
    candidate, _ = tuner._choose(lambda: needed / 3 / tuned.SHARE)
    assert candidate.plan.extractor.input_size == (tuned.SMALL, tuned.SMALL)
    assert whole / 2 <= candidate.plan.training.epochs < whole  # in the last training, too
    assert tuner._choose(lambda: needed / 50)[0] is None


def test_epochs_are_as_many_as_the_time_does_for(clips, recipe, tmp_path):
    judged = judge(clips)
    training = FineTuning(asked(tmp_path, clips, recipe), judged, candidate_of(next(recipes_of(recipe, 0))), tmp_path)
    training.plan = replace(training.plan, training=replace(training.plan.training, epochs=100))
    pace = Pace(0.0, 2.0, 30.0)
    counts = [training.epochs(pace, left)[0] for left in (10, 300, 500, 1000, 10_000)]
    assert counts[0] == 0 and counts == sorted(counts) and counts[-1] == 100
    for left, count in zip((300, 500), counts[1:3], strict=True):
        assert len(judged.folds) * (count * 2.0 + 30.0) <= tuned.SHARE * left
    assert not training.enough(49) and training.enough(50)


def test_only_what_trains_end_to_end_can_be_named(clips, refused):
    refused("fit", clips, "--fine-tune", "mobilenetv2-grid-gru", said=("--fine-tune", "'frozen'", "finetune"))
    refused(
        "fit", clips, "--fine-tune", "mobilenetv2-grid-gru-finetnue", said="did you mean mobilenetv2-grid-gru-finetune"
    )


def test_other_data_have_nothing_to_fine_tune(tmp_path, recipe):
    with pytest.raises(RecipeError, match="--fine-tune"):
        TASKS["records"].check_options(RecipeError, fine_tune=load_recipe(recipe))
    with pytest.raises(RecipeError, match="--fine-tune"):
        TASKS["boxes"].check_options(RecipeError, fine_tune=load_recipe(recipe))


def test_clips_that_cannot_be_read_do_not_end_a_search(clips, recipe, tmp_path):
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    judged = judge(folder)
    val = judged.folds[0].of_split("val").clips
    val[0].path.write_bytes(b"no video")
    log = TrialLog(tmp_path / "trials.jsonl", "x")
    tuner = Tuner(asked(tmp_path, folder, recipe), judged, log, tmp_path, lambda candidate: True)
    assert tuner._choose(lambda: 1e6)[0] is not None
    for clip in val:
        clip.path.write_bytes(b"no video")
    candidate, why = tuner._choose(lambda: 1e6)
    assert candidate is None and "quick is not fine-tuned: " in why and "no readable clip in split val" in why


def test_any_network_that_trains_end_to_end_can_be_asked_for(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(FineTuning, "pace", lambda self: Pace(0.01, 1.0))
    for number, name in enumerate(("viva-1", "tiny-grid-gru")):  # the first has no operations before its head
        log = TrialLog(tmp_path / f"{number}.jsonl", "x")
        tuner = Tuner(asked(tmp_path, clips, name), judge(clips), log, tmp_path, lambda candidate: True)
        candidate, why = tuner._choose(lambda: 1e6)
        assert why == "" and candidate.plan.name == name and next(log.of("tuning"))["epochs"] > 0
        assert tuner._choose(lambda: 1.0)[0] is None
