"""The recipe auto on real files: clips and records, its decision stored, made again by the run's recipe, resumed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from video_level import draw_video_level
from vidlet.datasets import Clip, ClipTable, read_table
from vidlet.errors import DataError
from vidlet.features import FeatureStore
from vidlet.jobs.train import train
from vidlet.recipe import load_recipe
from vidlet.runtime import load
from vidlet.selection import Decision, Pool
from vidlet.selection.choose import Choice
from vidlet.tasks import auto
from vidlet.tasks.auto import _slower
from vidlet.training import FeatureClips
from vidlet.video.frames import VideoInfo

SMALL = {
    "extractor.width": 0.35,
    "extractor.input_size": [64, 64],
    "extractor.weights": "none",
    "extractor.cut": "block4/2+head/0",
    "training.epochs": 2,
}


@pytest.fixture(scope="module")
def chosen(motion_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    return folder / "run", train(motion_clips, "auto", folder / "run", SMALL)


@pytest.mark.slow
def test_a_run_of_auto_holds_the_recipe_that_it_came_to_and_what_was_tried(chosen, motion_clips, tmp_path):
    run, result = chosen
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["selection"]["chosen"]
    assert {c["name"] for c in metrics["selection"]["candidates"]} >= set(metrics["selection"]["chosen"])
    recipe = load_recipe(run / "recipe.toml")
    assert recipe.head.name == "blend"
    assert len(recipe.head.options["members"]) >= len(
        metrics["selection"]["chosen"]
    )  # a trained one may be there twice
    again = train(motion_clips, run / "recipe.toml", tmp_path / "again")
    assert again["metrics"]["accuracy"] == result["metrics"]["accuracy"]
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    scores = [load(folder / "model.onnx")(frames, None)[0] for folder in (run, tmp_path / "again")]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


@pytest.mark.slow
def test_of_very_many_clips_all_cuts_see_those_that_candidates_are_measured_on(motion_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "STAGED", 30)
    monkeypatch.setattr(auto, "_most", lambda table: 24)
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    seen, extract = [], auto.extract
    monkeypatch.setattr(auto, "extract", lambda table, *a, **k: (seen.append(len(table)), extract(table, *a, **k))[1])
    found = train(motion_clips, "auto", tmp_path / "run", SMALL)
    assert seen == [24]
    learned = len(read_table(motion_clips).of_split("train")) + len(read_table(motion_clips).of_split("val"))
    settings = [json.loads(spec.read_text()) for spec in (tmp_path / "cache" / "features").glob("*/spec.json")]
    assert max(len(FeatureStore(tmp_path / "cache" / "features", setting)) for setting in settings) >= learned
    assert found["metrics"]["selection"]["chosen"]
    assert found["metrics"]["accuracy"] > 0.2


@pytest.mark.slow
def test_every_training_says_how_it_stands_to_plain_classifiers(chosen):
    metrics = chosen[1]["metrics"]
    assert list(metrics["baselines"]["accuracy"]) == ["chance", "one frame", "mean", "mean and deviation"]
    assert set(metrics["baselines"]["difference"]) == {"model.onnx", "model.int8.onnx"}
    best = metrics["baselines"]["accuracy"][metrics["baselines"]["best"]]
    assert metrics["baselines"]["difference"]["model.onnx"]["mean"] == pytest.approx(metrics["accuracy"] - best)


def test_a_training_of_frames_is_held_against_the_colors_of_a_grid(tiny_run):
    found = tiny_run.result["metrics"]["baselines"]
    assert set(found["accuracy"]) == {"chance", "one frame", "mean", "mean and deviation"}


def test_the_accuracy_of_held_out_clips_has_an_interval_over_people():
    """Three people are all named rightly, one never; of a fifth nobody was asked. Four people say little of others."""
    people = np.repeat(["ann", "bob", "cid", "dee", "eve"], 10)
    clips = tuple(Clip(Path(f"{i}.mp4"), ("wave",), who, "train") for i, who in enumerate(people))
    right = np.repeat([1.0, 1.0, 1.0, 0.0, np.nan], 10)
    said = np.where(np.isnan(right)[:, None], np.nan, [[0.6, 0.4]])
    choice = Choice((), (), 0.75, 0.5, 1.0, said, right=right)
    found = auto._findings(Decision(choice, (), {}), clips, ClipTable(clips, ("wave", "walk"), Path()))
    low, high = found["accuracy_interval"]
    assert low < 0.5
    assert high > 0.9
    assert auto._told(found) == f"0.750 [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize(
    ("sizes", "held"),
    [
        ([1] * 100, 20),  # records without groups
        ([20, 20, 20, 20, 20], 20),
        ([90, 4, 3, 3], 10),  # a group that is most of the set is learned from
        ([100], 20),  # of one group, single records are held out
        ([60, 40], 40),
        ([3, 2], 2),
    ],
)
def test_about_a_fifth_of_the_records_is_held_out_in_whole_groups_where_these_are_small(sizes, held):
    single = len(set(sizes)) == 1 and sizes[0] == 1
    groups = ["" if single else f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    clips = [Clip(Path(f"{i}"), ("a",), group) for i, group in enumerate(groups)]
    found = auto._held_part(clips)
    assert found.sum() == held
    if len(sizes) > 1 and not single:
        assert not {g for g, own in zip(groups, found, strict=True) if own} & {
            g for g, own in zip(groups, found, strict=True) if not own
        }


@pytest.mark.slow  # half a minute: a network is trained twice, and three files are written
def test_many_records_of_many_labels_get_a_hidden_layer_where_that_is_better(tmp_path, monkeypatch):
    """What no linear classifier sees is learned by the head that is tried on all records."""
    monkeypatch.setattr(auto, "MANY", 500)
    data = draw_video_level(tmp_path / "set", {"train": 900, "val": 200})
    found = train(data, out=tmp_path / "run", overrides={"compress": []})["metrics"]
    selection = found["selection"]
    figures = {c["name"]: c["gap20"] for c in selection["candidates"] if "gap20" in c}
    assert len(figures) >= 2
    assert "features records-video" in selection["chosen"]
    best_probe = max(value for name, value in figures.items() if "records-video" not in name)
    assert selection["gap20"] == pytest.approx(max(selection["gap20"], *figures.values()))
    assert selection["gap20"] > best_probe + 0.02
    assert found["gap20"] > best_probe
    assert load(tmp_path / "run" / "model.onnx").labels == tuple(f"thing {i}" for i in range(7))


def test_a_group_for_each_class_is_refused_in_a_line(tmp_path):
    """Whole groups are held out, so a class that is one group would be scored and never learned."""
    labels = [f"c{i % 4}" for i in range(24)]
    np.savez(tmp_path / "features.npz", rgb=np.random.default_rng(0).integers(0, 255, (24, 3, 8), np.uint8))
    rows = [f"r{i},{label},{label}" for i, label in enumerate(labels)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group", *rows]))
    with pytest.raises(DataError, match="has no clip in train; where a group holds clips of one class alone"):
        train(tmp_path, out=tmp_path / "run")


def pool_of(course) -> Pool:
    """Sixty clips of two classes; ``course(kind, t)`` is what frame t of a clip shows."""
    rng = np.random.default_rng(0)
    targets = np.eye(2)[np.arange(60) % 2]
    clips = [
        np.array([course(i % 2, t) + rng.normal(0, 0.3, 4) for t in range(8)], np.float32) for i in range(len(targets))
    ]
    features = FeatureClips(clips.__getitem__, targets.astype(np.float32), ["clip"] * 60, np.ones(4, np.float32))
    held = [np.arange(60) // 20 == fold for fold in range(3)]
    return Pool(features, targets, {"head": (0, (4,))}, held)


def test_frames_between_others_are_kept_where_they_tell_classes_apart():
    assert _slower(pool_of(lambda kind, t: kind * (t % 2)), 2) == 1
    assert _slower(pool_of(lambda kind, t: kind * (t % 4 == 2)), 4) == 2
    assert _slower(pool_of(lambda kind, t: kind * (t // 4)), 4) == 4


@pytest.mark.parametrize(
    ("seconds", "fps", "times"), [(1.0, 30.0, 2), (0.4, 30.0, 4), (0.4, 25.0, 2), (1.0, 10.0, 1), (3.0, 30.0, 1)]
)
def test_short_clips_are_looked_at_more_often_but_not_more_often_than_they_have_frames(
    monkeypatch, seconds, fps, times
):
    told = VideoInfo("a.mp4", 64, 64, fps, seconds, round(seconds * fps), 0, "h264", "yuv420p")
    monkeypatch.setattr(auto, "probe", lambda path: told)
    table = ClipTable(
        (Clip(Path("a.mp4"), ("a",), split="train"), Clip(Path("b.mp4"), ("b",), split="test")), ("a", "b"), Path()
    )
    sampling = load_recipe("auto").sampling
    assert auto._times_more(sampling, table) == times
    assert auto._times_more(replace(sampling, hz=6.0), table) == 1  # a rate that somebody asked for
