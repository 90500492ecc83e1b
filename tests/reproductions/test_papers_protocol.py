"""The papers' own protocols: which clips train and test, what of a recipe is the paper's, and that runs are kept."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vidlet.datasets import Clip, ClipTable, read_table
from vidlet.errors import DataError, RecipeError
from vidlet.jobs.papers import papers
from vidlet.reproductions import deepeye, mobile, protocol, tt3dcnn
from vidlet.reproductions.experiment import Effort
from vidlet.reproductions.protocol import FOLDS, Asked, Case, copies, plan_of, reductions, run_cases

SMALL = {  # a network and clips of a size that a test can train
    "extractor.input_size": [16, 16], "head.options": {"network": "small", "frames": 4}, "sampling.frames": 4,
    "training.batch": 16,
}  # fmt: skip


def table(labels: str = "a b", groups: int = 5, clips: int = 2) -> ClipTable:
    made = [
        Clip(Path(f"/x/{label}/{group}_{k}.mp4"), (label,), f"p{group}")
        for label in labels.split()
        for group in range(groups)
        for k in range(clips)
    ]
    return ClipTable(tuple(made), tuple(sorted(labels.split())), Path("/x"))


def folds(kind: str, of: ClipTable, one_way: tuple[str, ...] = ()) -> list[protocol.Fold]:
    return FOLDS[kind](Asked(of, Path("/x"), one_way))


@pytest.mark.parametrize("kind", ["by clip", "by group", "one group", "copies", "copies by group"])
def test_every_clip_is_scored_once_and_never_by_a_network_that_was_trained_on_it(kind):
    of = table()
    made = folds(kind, of)
    assert len(made) == 5
    scored = [copy for fold in made for copy in fold.scored]
    assert len(scored) == len(set(scored))
    assert {number for number, *_ in scored} == set(range(len(of)))
    for fold in made:
        assert not set(fold.train) & set(fold.scored)
        assert {of.clips[number].label for number, *_ in fold.scored} == {"a", "b"}


def test_folds_of_groups_keep_a_group_and_its_copies_together():
    of = table()
    for kind in ("by group", "one group", "copies by group"):
        for fold in folds(kind, of):
            tested = {of.clips[number].group for number, *_ in fold.scored}
            assert not tested & {of.clips[number].group for number, *_ in fold.train}
            assert all(copy[1:] == (False, False) for copy in fold.scored)
    assert len(folds("copies by group", of)[0].train) == 4 * len(folds("by group", of)[0].train)
    leaked = folds("copies", of)[0]  # the paper's folds do not: copies of a clip stand on both sides
    assert {number for number, *_ in leaked.scored} & {number for number, *_ in leaked.train}


def test_classes_with_a_direction_have_no_copies_that_are_another_class():
    of = table("wave swipe_left swipe_right", 1, 1)
    found = {label: [c[1:] for c in copies(of) if of.clips[c[0]].label == label] for label in of.labels}
    every = [(False, False), (False, True), (True, False), (True, True)]
    assert found == {"wave": every, "swipe_left": [(False, False)], "swipe_right": [(False, False)]}
    assert [c for c in copies(of, ("wave",)) if of.clips[c[0]].label == "wave"] == [(0, False, False)]


def test_the_splits_of_the_data_watch_val_and_score_test(tmp_path):
    split = table().with_clips(
        dataclasses.replace(clip, split=("train", "val", "test")[i % 3]) for i, clip in enumerate(table())
    )
    [fold] = folds("given", split)
    of = {
        kind: {split.clips[number].split for number, *_ in getattr(fold, kind)}
        for kind in ("train", "watched", "scored")
    }
    assert of == {"train": {"train"}, "watched": {"val"}, "scored": {"test"}}
    [whole] = folds("given whole", split)
    assert {split.clips[number].split for number, *_ in whole.train} == {"train", "val"}
    with pytest.raises(DataError, match="need its lists"):
        FOLDS["three splits"](Asked(split, tmp_path))


def test_where_train_and_test_are_given_a_tenth_of_all_clips_is_watched_and_not_trained_on():
    of = table("a b", 20, 1)  # 40 clips in 20 groups, of which 6 test
    split = of.with_clips(
        dataclasses.replace(clip, split="test" if int(clip.group[1:]) < 6 else "train") for clip in of
    )
    [fold] = folds("given", split)
    assert (len(fold.train), len(fold.watched), len(fold.scored)) == (24, 4, 12)
    groups = [{split.clips[number].group for number, *_ in part} for part in (fold.train, fold.watched)]
    assert not groups[0] & groups[1]


def test_the_three_splits_of_ucf101_are_three_folds_of_all_its_clips(tmp_path):
    for label in ("Archery", "YoYo"):
        (tmp_path / label).mkdir()
        for group in (1, 2, 8):
            (tmp_path / label / f"v_{label}_g{group:02d}_c01.avi").touch()
    videos = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.avi"))
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
    for split, tested in ((1, "g01"), (2, "g02"), (3, "g08")):
        (lists / f"trainlist0{split}.txt").write_text("".join(f"{v} 1\n" for v in videos if tested not in v))
        (lists / f"testlist0{split}.txt").write_text("".join(f"{v}\n" for v in videos if tested in v))
    of = read_table(tmp_path)
    made = FOLDS["three splits"](Asked(of, tmp_path))
    assert [{of.clips[number].group for number, *_ in fold.scored} for fold in made] == [{"g01"}, {"g02"}, {"g08"}]
    assert [case.name for case in tt3dcnn.cases(tmp_path)] == ["UCF101, dense", "UCF101, TT"]
    assert tt3dcnn.cases(tmp_path)[1].flow == "ucf-flow-tt"


def test_ucf11_has_rows_of_both_its_protocols_and_two_groups_in_three_classes_are_two_folds(tmp_path):
    for name in ("basketball", "biking", "diving"):
        for group in (1, 2):
            folder = tmp_path / name / f"v_{name}_{group:02d}"
            folder.mkdir(parents=True)
            (folder / f"v_{name}_{group:02d}_01.mpg").touch()
    found = {case.name: case.folds for case in tt3dcnn.cases(tmp_path)}
    assert found == {
        "UCF11, k-fold, dense": "by clip",
        "UCF11, k-fold, TT": "by clip",
        "UCF11, leave one group out, dense": "one group",
        "UCF11, leave one group out, TT": "one group",
    }
    for recipe in ("ucf-rgb", "ucf-flow-tt"):
        assert plan_of(recipe, tt3dcnn.cases(tmp_path)[0], Effort(protocol="paper"), 0).training.clip_norm == 0
    assert len(FOLDS["one group"](Asked(read_table(tmp_path), tmp_path))) == 2  # not one for each class and group


@pytest.mark.parametrize(
    ("network", "batch", "lr"),
    [("VIVA-1", 100, 0.01), ("VIVA-2", 100, 0.01), ("VIVA-3", 50, 0.01), ("VIVA-4", 25, 0.005), ("VIVA-5", 25, 0.005)],
)
def test_the_3d_networks_are_trained_as_printed(network, batch, lr):
    of = {case.name: case for case in tt3dcnn.cases(Path("/nowhere"))}
    for form, dropout in (("dense", 0.5), ("TT", 0.3)):
        plan = plan_of("viva-1", of[f"{network} {form}"], Effort(protocol="paper"), 0)
        told = plan.training
        assert (told.batch, told.lr, told.epochs, told.optimizer, told.early_stopping) == (batch, lr, 100, "sgd", 0)
        assert told.clip_norm == 0  # the paper shortens no gradient
        assert (told.schedule.kind, told.schedule.step_epochs, told.schedule.step_factor) == ("step", 30, 0.1)
        assert (plan.sampling.rule, plan.sampling.frames, plan.extractor.input_size) == ("uniform", 32, (28, 62))
        assert plan.head.options["network"] == network.lower() and plan.head.options["dropout"] == dropout
        assert told.augment["contrast"] == 0.25 and plan.head.options["pixel_drop"] == 0.5
    assert {f"{network} TT, folds of subjects", "convolutions", "VIVA-3 TT, kept by dropout: 0.7"} <= set(of)


def test_both_forms_of_a_network_can_be_trained_at_the_same_dropout():
    of = {case.name: case for case in tt3dcnn.cases(Path("/nowhere"))}
    for network in ("VIVA-1", "VIVA-2", "VIVA-3"):
        plans = [
            plan_of("viva-1", of[f"{network} {form}, equal dropout"], Effort(seeds=3), 0) for form in ("dense", "TT")
        ]
        assert [plan.head.options["dropout"] for plan in plans] == [0.3, 0.3]
        assert [plan.head.options["tt"] for plan in plans] == ["none", "both"]
        assert plans[0].training == plans[1].training
        assert of[f"{network} TT, equal dropout"].folds == "copies by group"


def test_the_rank_study_has_rows_on_single_frames():
    of = {case.name: case for case in tt3dcnn.cases(Path("/nowhere"))}
    wanted = {"dense": ("none", 0), "rank 4": ("convolutions", 4), "rank 16": ("convolutions", 16)}
    for name, (form, rank) in wanted.items():
        plan = plan_of("viva-1", of[f"CNN-2, {name}"], Effort(), 0)
        assert plan.head.name == "frame-network"
        assert plan.head.options == {"network": "cnn-2", "tt": form, "rank": rank}
        assert (plan.extractor.input_size, plan.sampling.frames) == ((32, 32), 1)


def test_the_thesis_is_trained_at_its_rate_until_validation_stops_it():
    found = {case.name: case for case in mobile.cases("inception_v3.pth")}
    assert len(found) == 6 + 4
    for name, scale in (("quantized MobileNetV2, GRU", 1 / 6), ("Inception-v3, GRU", 1.0)):
        plan = plan_of(found[name].recipe, found[name], Effort(protocol="paper"), 3)
        assert (plan.sampling.frames, plan.training.lr, plan.training.seed) == (25, 1e-5, 3)
        assert plan.training.schedule.kind == "keras-decay" and plan.training.early_stopping > 0
        assert plan.head.options == {"scale": scale}
        single = found[name.replace("GRU", "single frame")]
        assert plan_of(single.recipe, single, Effort(), 0).head.options == {"scale": scale}
    printed = found["quantized MobileNetV2, LSTM, input dropout .005"]
    assert plan_of(printed.recipe, printed, Effort(), 0).head.options["input_dropout"] == 0.005
    assert "inception_v3.pth" in str(found["Inception-v3, single frame"].changes)


def test_the_dropout_of_the_input_can_be_read_both_ways():
    from vidlet.models import build_head
    from vidlet.recipe import Head

    for option, expected in ({}, 0.5), ({"input_dropout": 0.005}, 0.005), ({"dropout": 0.2}, 0.2):
        head = build_head(Head("gru", option), (8,), 3)
        assert head.dropout.p == expected
        assert head.classifier[4].p == option.get("dropout", 0.5)


def test_the_t_rnn_is_trained_as_yang_et_al_say():
    case = Case("x", "tt-lstm-pixels", deepeye.TRAINED, "by group")
    plan = plan_of("tt-lstm-pixels", case, Effort(protocol="paper"), 0)
    assert (plan.training.lr, plan.training.batch, plan.training.weight_decay) == (1e-4, 16, 0.0)
    assert plan.sampling.frames == 6 and plan.training.augment == {"redraw": 4}


def test_fewer_epochs_keep_the_course_of_the_rate_and_are_said():
    case = tt3dcnn.cases(Path("/nowhere"))[0]
    plan = plan_of("viva-1", case, Effort(epochs=10, protocol="paper"), 0)
    assert (plan.training.epochs, plan.training.schedule.step_epochs) == (10, 3)
    assert plan_of("viva-1", case, Effort(epochs=500), 0).training.epochs == 100  # never more than the paper's
    assert reductions(Effort(protocol="paper")) == []
    assert reductions(Effort(epochs=2, clips=0.5, folds=1)) == [
        "2 epochs at most",
        "0.5 of the clips",
        "the first 1 folds",
    ]


def test_a_protocol_runs_on_real_clips_and_a_finished_run_is_not_run_again(motion_clips, tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    cases = [Case("one", "viva-1", SMALL, "copies"), Case("two", "viva-1", SMALL | {"training.lr": 0.02}, "by clip")]
    effort = Effort(epochs=1, folds=1, clips=0.5, protocol="paper")
    first = run_cases(cases, motion_clips, effort, log)
    assert set(first) == {"one", "two"} and len(log.read_text().splitlines()) == 2
    [run] = first["one"]
    assert (run["fold"], run["folds"], run["epochs"], run["seed"]) == (0, 5, 1, 0)
    assert run["scored"] > first["two"][0]["scored"]  # copies are scored, too
    assert sum(values[3] for values in run["per_class"].values()) == run["scored"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]  # checkpoints of finished runs are gone
    monkeypatch.setattr(protocol, "_run", lambda *_: pytest.fail("trained again"))
    assert run_cases(cases, motion_clips, effort, log) == first
    assert list(run_cases(cases, motion_clips, dataclasses.replace(effort, rows=("TWO",)), log)) == ["two"]
    with pytest.raises(RecipeError, match=r"no row has 'thre' in its name.*known: one; two"):
        run_cases(cases, motion_clips, dataclasses.replace(effort, rows=("thre",)), log)


def test_a_run_that_was_killed_goes_on_at_its_last_epoch(motion_clips, tmp_path, monkeypatch):
    from vidlet.reproductions import experiment

    cases = [Case("one", "viva-1", SMALL | {"head.options": {**SMALL["head.options"], "dropout": 0.0}}, "by clip")]
    effort = Effort(epochs=2, folds=1, clips=0.3, protocol="paper")
    whole = run_cases(cases, motion_clips, effort, tmp_path / "whole.jsonl")["one"][0]
    real, seen = experiment.train_network, []

    def killed(*args, report, **kw):
        def stop(row, epochs):
            report(row, epochs)
            raise KeyboardInterrupt

        return real(*args, report=stop, **kw)

    monkeypatch.setattr(experiment, "train_network", killed)
    with pytest.raises(KeyboardInterrupt):
        run_cases(cases, motion_clips, effort, tmp_path / "log.jsonl")
    assert not (tmp_path / "log.jsonl").exists()

    def noted(*args, report, **kw):
        return real(*args, report=lambda row, epochs: (seen.append(row["epoch"]), report(row, epochs)), **kw)

    monkeypatch.setattr(experiment, "train_network", noted)
    again = run_cases(cases, motion_clips, effort, tmp_path / "log.jsonl")["one"][0]
    assert seen == [2]
    assert {k: v for k, v in again.items() if k != "epoch_s"} == {k: v for k, v in whole.items() if k != "epoch_s"}


def test_two_streams_answer_together(motion_clips, tmp_path):
    pytest.importorskip("cv2")
    small = {
        "extractor.input_size": [16, 16], "head.options": {"network": "small", "frames": 4},
        "sampling.max_frames": 4, "training.batch": 16, "training.micro_batch": 0,
    }  # fmt: skip
    case = Case("both", "ucf-rgb", small, "by clip", "ucf-flow")
    effort = Effort(epochs=1, folds=1, clips=0.2, protocol="paper")
    both = run_cases([case], motion_clips, effort, tmp_path / "log.jsonl")["both"][0]
    one = run_cases([dataclasses.replace(case, flow="")], motion_clips, effort, tmp_path / "log.jsonl")["both"][0]
    assert both["parameters"] == 2 * one["parameters"] and both["bytes"] > 1.9 * one["bytes"]
    assert both["scored"] == one["scored"]


def test_turned_clips_are_mirrored_and_played_backwards(motion_clips):
    from vidlet.training import FrameClips

    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(1, 2, 3, 4, 3).repeat(3, 0)
    clips = FrameClips(lambda i: frames[i], np.eye(3, dtype=np.float32), ["a", "b", "c"])
    turned = clips.some(np.array([2, 0])).turned([(True, False), (False, True)])
    assert turned.names == ["c", "a"] and turned.targets.argmax(1).tolist() == [2, 0]
    assert np.array_equal(turned.read(0), frames[2][:, :, ::-1])
    assert np.array_equal(turned.read(1), frames[0][::-1])


def test_the_papers_protocol_fills_the_table_and_says_what_was_reduced(monkeypatch, tmp_path):
    values = {"VIVA-3 dense": (0.8, 0.7), "VIVA-3 TT": (0.7, 0.6), "VIVA-3 TT, folds of subjects": (0.5, 0.4)}
    values |= {"VIVA-2 dense, equal dropout": (0.6, 0.6), "VIVA-2 TT, equal dropout": (0.5, 0.4)}
    made = {
        name: [{"accuracy": a, "bytes": 9, "epoch_s": 1.0, "scored": 7} for a in both] for name, both in values.items()
    }
    monkeypatch.setattr(protocol, "run_cases", lambda *_: made)
    found = papers("tt3dcnn", "clips", out=str(tmp_path / "x"), protocol="paper", folds=2, epochs=3)
    of = {r["name"]: r["measured"] for t in found["tables"] for r in t["rows"]}
    assert of["VIVA-3 dense: accuracy"] == 0.75 and of["VIVA-3 dense: spread of the accuracy"] == 0.0707
    assert of["VIVA-3: lost by TT"] == pytest.approx(0.1)
    assert of["VIVA-3 TT, folds of subjects: accuracy"] == 0.45
    assert of["VIVA-2, equal dropout: lost by TT"] == pytest.approx(0.15)
    assert of["VIVA-2, equal dropout: lost by TT: spread over pairs"] == 0.0707
    assert of["VIVA-2 TT, equal dropout: spread of the accuracy"] == 0.0707
    assert of["VIVA-2 dense: accuracy"] is None
    assert found["measured_on"]["reduced"] == ["3 epochs at most", "the first 2 folds"]
    json.dumps(found)


def test_what_belongs_to_the_papers_protocol_alone_is_refused_elsewhere(capsys):
    with pytest.raises(RecipeError, match="folds and rows are of use with data and the paper's protocol only"):
        papers("tt3dcnn", "clips", folds=2)
    with pytest.raises(RecipeError, match=r"no protocol 'papre' \(did you mean paper"):
        papers("tt3dcnn", "clips", protocol="papre")
    with pytest.raises(RecipeError, match="an extractor is of use with mobile and data only"):
        papers("deepeye", "clips", extractor="x.onnx")


def test_a_single_frame_is_scaled_as_in_the_thesis_or_standardized():
    import torch

    from vidlet.models import build_head
    from vidlet.recipe import Head

    seen = torch.full((1, 2, 4), 6.0)
    for option, expected in ({"scale": 1 / 6}, 1.0), ({}, 4.0):
        head = build_head(Head("single", option), (4,), 3).eval()
        head.calibrate(torch.full((4,), 2.0), torch.ones(4))  # (6 - 2) / 1
        head.classifier = torch.nn.Identity()
        logits, _ = head(seen, {"sum": torch.zeros(1, 4), "count": torch.zeros(1, 1)}, None)
        assert torch.allclose(logits, torch.full((1, 4), expected))


def test_a_rows_name_means_that_row_and_words_mean_all_that_hold_them():
    of = tt3dcnn.cases(Path("/nowhere"))
    assert [case.name for case in protocol.chosen_cases(of, ["viva-1 tt"])] == ["VIVA-1 TT"]
    found = [case.name for case in protocol.chosen_cases(of, ["VIVA-1", "convolutions"])]
    assert found == [
        "VIVA-1 dense", "VIVA-1 TT", "convolutions", "VIVA-1 dense, folds of subjects", "VIVA-1 TT, folds of subjects",
        "VIVA-1 dense, equal dropout", "VIVA-1 TT, equal dropout",
    ]  # fmt: skip
    assert protocol.chosen_cases(of, []) == of
