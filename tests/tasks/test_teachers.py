"""Teachers from the command line: files teach by stored answers what they would teach by being asked each time."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from steps_material import CLASSES, SHAPE, made_up, material, trained
from vidlet.cli import main
from vidlet.compression.distill import ensemble_teacher
from vidlet.datasets import read_table
from vidlet.datasets.residual import render_residual
from vidlet.errors import RecipeError, TrainingError
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.train import train
from vidlet.models import build_head
from vidlet.recipe import Head, load_recipe
from vidlet.runtime import load, read_metadata
from vidlet.tasks.cached import cached_scores
from vidlet.tasks.clips import labelled_clips, score_clips
from vidlet.tasks.teachers import open_teachers, taught
from vidlet.training import ClipNetwork, Draw, StoredAnswers, TaughtClips, Teacher, predict_logits, train_network

RNG = np.random.default_rng(0)


def whole(answers: np.ndarray, multi_label: bool = False) -> StoredAnswers:
    """All K probabilities of each clip, kept."""
    classes = np.broadcast_to(np.arange(answers.shape[1]), answers.shape)
    return StoredAnswers(((classes, answers),), answers.shape[1], multi_label)


def test_answers_by_hand():
    one = (np.array([[2, 0], [1, 3]]), np.array([[0.5, 0.3], [0.8, 0.2]], np.float32))
    two = (np.array([[0, 1], [3, 2]]), np.array([[1.0, 0.0], [0.6, 0.2]], np.float32))
    single = StoredAnswers((one, two), 4, False)[[1, 0]]
    np.testing.assert_allclose(single[0], [0.05, 0.45, 0.1, 0.4], atol=1e-7)  # two lacks .2: .1 each to 0 and 1
    np.testing.assert_allclose(single[1], [0.65, 0.05, 0.25, 0.05], atol=1e-7)
    many = StoredAnswers((one, two), 4, True)[[1]]
    np.testing.assert_allclose(many[0], [0, 0.4, 0.1, 0.4], atol=1e-7)


def test_batches_bring_the_answers_of_their_own_clips_and_nothing_else_changes():
    clips = made_up(10, 0)
    answers = RNG.dirichlet(np.ones(CLASSES), 10).astype(np.float32)
    order = RNG.permutation(10).tolist()
    for amounts in (None, {"speed": 0.2, "noise": 0.3}, {"mixup": 0.5}):
        plain = list(clips.batches(Draw(4, order, amounts, (3,))))
        found = list(TaughtClips(clips, whole(answers)).batches(Draw(4, order, amounts, (3,))))
        for n, (before, after) in enumerate(zip(plain, found, strict=True)):
            assert before.names == after.names
            for key in ("x", "mask", "y"):
                torch.testing.assert_close(getattr(after, key), getattr(before, key))
            if amounts != {"mixup": 0.5}:
                np.testing.assert_array_equal(after.answers.numpy(), answers[order[4 * n : 4 * n + 4]])
    mixed = TaughtClips(clips, whole(clips.targets)).batches(Draw(4, order, {"mixup": 0.5}, (3,)))
    for batch in mixed:  # a teacher that says the label is mixed as the label is
        torch.testing.assert_close(batch.answers, batch.y)
    assert (TaughtClips(clips, whole(answers)).targets == clips.targets).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_stored_answers_teach_as_the_teacher_that_is_asked(multi_label):
    teacher = trained("mean")
    config = replace(material().config, epochs=2, augment={}, optimizer="sgd", lr=0.05, micro_batch=5)
    clips, val = made_up(24, 4), made_up(8, 1)
    logits = torch.from_numpy(predict_logits(ClipNetwork(teacher.head), clips, 8))
    answers = (logits.sigmoid() if multi_label else logits.softmax(1)).numpy()
    weights = []
    for stored in (False, True):
        torch.manual_seed(0)
        network = ClipNetwork(build_head(Head("gru", {"hidden": 6}), SHAPE, CLASSES))
        asked = ensemble_teacher([ClipNetwork(teacher.head).eval()], 0.7, multi_label)
        given = TaughtClips(clips, whole(answers, multi_label)) if stored else clips
        how = Teacher(None, share=0.7) if stored else asked
        train_network(network, given, val, config, multi_label=multi_label, teacher=how)
        weights.append(network.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-5, rtol=1e-4)


def test_clips_and_answers_must_be_of_one_number():
    with pytest.raises(ValueError, match="10 clips and the answers of 9"):
        TaughtClips(made_up(10, 0), whole(np.zeros((9, CLASSES), np.float32)))


STUDENT = ["--epochs", "2", "--set", "compress=[]", "--set", "training.averaging.last=0"]


@pytest.fixture(scope="module")
def taught_records(tmp_path_factory):
    """records/, two teachers of other heads on them, and student/, taught by both; with a cache of its own."""
    root = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDLET_CACHE", str(root / "cache"))
        render_residual(root / "records", 96, 24, 24, seed=0, classes=5)
        small = {"compress": [], "training.epochs": 2, "training.averaging.last": 0}
        train(root / "records", "records-mean", root / "mean", small | {"head.options.hidden": 8})
        vlad = {"head.options": {"clusters": 4, "hidden": 8, "experts": 1, "sampled": 10, "momentum": 0.1}}
        train(root / "records", "gated-netvlad-small", root / "vlad", small | vlad)
        words = ["train", str(root / "records"), "--recipe", "records-mean", "--out", str(root / "student"), *STUDENT]
        words += ["--teacher", str(root / "mean"), "--teacher", str(root / "vlad" / "model.onnx"), "--json"]
        assert main([*words, "--set", "training.teacher_share=1"]) == 0
        yield root


def test_the_answers_are_the_files_mean_scores_of_the_training_records(taught_records, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(taught_records / "cache"))
    table = labelled_clips(taught_records / "records", stored=True)
    teachers = open_teachers([taught_records / "mean", taught_records / "vlad"], table)
    clips = made_up(96, 0)
    backwards = tuple(reversed(table.of_split("train").clips))
    found = taught(clips, backwards, table, teachers, strict=True)
    asked = [score_clips(model, table.of_split("train")).scores for model in teachers]
    np.testing.assert_allclose(found.answers[range(96)], (sum(asked) / 2)[::-1], atol=1e-6)
    assert len(list((taught_records / "cache" / "predictions").iterdir())) == 2  # each file was asked once


def test_a_taught_run_says_by_whom_and_learned_what_they_say(taught_records):
    run = taught_records / "student"
    metrics = json.loads((run / "metrics.json").read_text())
    assert [teacher["path"].split("/")[-2:] for teacher in metrics["teachers"]] == [
        ["mean", "model.onnx"],
        ["vlad", "model.onnx"],
    ]
    assert metrics["teachers"][0]["sha256"] in read_metadata(run / "model.onnx")["provenance"]["taught_by"]
    assert load_recipe(run / "recipe.toml").training.teacher_share == 1
    assert evaluate(run / "model.onnx", taught_records / "records")["gap20"] == metrics["gap20"]


def test_the_student_competes_in_the_ensemble(taught_records, tmp_path, monkeypatch):
    from vidlet.jobs.ensemble import ensemble

    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    runs = [taught_records / name for name in ("mean", "vlad", "student")]
    found = ensemble(taught_records / "records", runs, 10**6, tmp_path / "best")
    assert "student/model.onnx" in found["metrics"]["ensemble"]["candidates"]


def test_a_file_teaches_clips(tiny_run, tmp_path):
    out = tmp_path / "student"
    words = ["train", str(tiny_run.clips), "--recipe", "tiny-grid-gru", "--teacher", str(tiny_run.folder)]
    words += ["--epochs", "1", "--set", "compress=[]", "--set", "head.options.hidden=8", "--out", str(out), "--json"]
    assert main(words) == 0
    assert [found["path"] for found in json.loads((out / "metrics.json").read_text())["teachers"]] == [
        str(tiny_run.model)
    ]


def test_a_clip_that_a_teacher_cannot_read_has_its_label_for_an_answer(tiny_run, monkeypatch):
    table = labelled_clips(tiny_run.clips)
    clips = table.of_split("train").clips
    monkeypatch.setattr(
        "vidlet.tasks.teachers.cached_scores",
        lambda model, found, strict: (_top(len(found) - 1, len(table.labels)), list(range(1, len(found)))),
    )
    teachers = open_teachers([tiny_run.folder], table)
    given = taught(made_up(len(clips), 0), clips, table, teachers, strict=False)
    first, second = given.answers[[0, 1]]
    assert first.argmax() == table.labels.index(clips[0].label) and first.max() == first.sum() == 1
    assert second.max() < 1


def _top(clips: int, classes: int):
    from vidlet.compression.ensemble_search import top_scores

    return top_scores(np.full((clips, classes), 1 / classes, np.float32))


def test_what_cannot_teach_is_named(taught_records, tiny_run, tmp_path):
    records = labelled_clips(taught_records / "records", stored=True)
    with pytest.raises(TrainingError, match=r"takes frames; .*records holds stored features"):
        open_teachers([tiny_run.folder], records)
    with pytest.raises(TrainingError, match="neither a model file nor a run folder"):
        open_teachers([tmp_path], records)
    render_residual(tmp_path / "others", 40, 10, 10, seed=1, classes=7)
    with pytest.raises(TrainingError, match=r"must have the 7 labels of the data; it has 5, and only one"):
        open_teachers([taught_records / "mean"], labelled_clips(tmp_path / "others", stored=True))
    with pytest.raises(TrainingError, match="--refit-all: not with --teacher"):
        train(tiny_run.clips, "tiny-grid-gru", tmp_path / "x", refit_all=True, teachers=[tiny_run.folder])
    with pytest.raises(RecipeError, match=r"teacher_share must be above 0 and at most 1, got 0"):
        load_recipe("records-mean", {"training.teacher_share": 0.0})


def test_a_clip_that_was_replaced_is_scored_again(tiny_run, motion_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    clips = read_table(motion_clips).with_clips(list(read_table(motion_clips))[:2])
    own = [tmp_path / clip.path.name for clip in clips]
    for clip, path in zip(clips, own, strict=True):
        shutil.copyfile(clip.path, path)
    table = clips.with_clips(replace(clip, path=path) for clip, path in zip(clips, own, strict=True))
    model = load(tiny_run.model, threads=1)
    first = cached_scores(model, table)[0].scores
    shutil.copyfile(own[0], own[1])
    again = cached_scores(model, table)[0].scores
    assert not np.allclose(first[0], first[1])
    assert np.allclose(again[0], first[0]) and np.allclose(again[1], first[0])
