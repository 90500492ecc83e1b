"""The commands on records: a run of stored features, its file's contract, scores, submissions, damage, ensembles."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import made_once
from vidlet.cli import main
from vidlet.datasets import Record, read_records, read_table, write_records
from vidlet.datasets.frame_record import quantize
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError, RecipeError, TrainingError
from vidlet.jobs.evaluate import evaluate
from vidlet.metrics import gap
from vidlet.recipe import load_recipe
from vidlet.runtime import graph_sha256, load
from vidlet.tasks.clips import figures_of, labelled_clips, score_clips, summarize
from vidlet.tasks.prepare_records import extractor_for, prepare_clips, recipe_for
from vidlet.tasks.records import HEADER, predict_records
from vidlet.training import Draw

CLASSES = 6
SMALL = {
    "head.options": {"clusters": 8, "hidden": 16, "experts": 2, "sampled": 20, "momentum": 0.1},
    "training.epochs": 3,
    "training.averaging.every": 4,
    "training.averaging.last": 4,
    "compress": ["int8"],
}


@pytest.fixture(scope="session")
def record_run(tmp_path_factory) -> Path:
    """A folder with records/ and the run of a small NetVLAD on them, run/; tests must not write into it."""

    def make(folder: Path) -> dict:
        from vidlet.jobs.train import train

        render_residual(folder / "records", 160, 40, 40, seed=0, classes=CLASSES)
        return train(folder / "records", "gated-netvlad-small", folder / "run", SMALL)

    return made_once(tmp_path_factory, "records", make)[0]


@pytest.fixture
def test_records(record_run):
    return list(read_records(str(record_run / "records" / "test*")))


def scores_of(model, records):
    return np.stack([[*model.classify(record).scores.values()] for record in records])


def test_the_file_takes_rgb_and_audio_and_streams(record_run, test_records):
    for name in ("model.onnx", "model.int8.onnx"):
        model = load(record_run / "run" / name, threads=1)
        assert model.inputs == {"rgb": (64,), "audio": (16,)}
        assert model.metadata["inputs"] == ["rgb", "audio"]
        assert "resize" not in model.metadata
        features = test_records[0].features
        whole, _ = model(features)
        state = None
        for t in range(len(features["rgb"])):
            scores, state = model({key: array[t : t + 1] for key, array in features.items()}, state)
        np.testing.assert_allclose(scores, whole, atol=1e-5)
        named = model.classify(test_records[0])
        np.testing.assert_allclose([*named.scores.values()], whole[0], atol=1e-7)
        assert named.frames == len(features["rgb"])


def test_the_figures_are_those_of_the_file(record_run, test_records):
    metrics = json.loads((record_run / "run" / "metrics.json").read_text())
    scores = scores_of(load(record_run / "run" / "model.onnx", threads=1), test_records)
    labels = np.zeros((len(test_records), CLASSES))
    for row, record in zip(labels, test_records, strict=True):
        row[list(record.labels)] = 1
    assert metrics["gap20"] == pytest.approx(gap(scores, labels), abs=1e-9)
    assert metrics["accuracy"] == metrics["hit1"]
    again = evaluate(record_run / "run" / "model.onnx", record_run / "records")
    assert {key: again[key] for key in ("gap20", "hit1", "perr", "map")} == {
        key: metrics[key] for key in ("gap20", "hit1", "perr", "map")
    }
    assert "GAP@20" in (record_run / "run" / "report.html").read_text()


def test_models_of_many_labels_are_compared_by_gap(record_run, capsys):
    files = [str(record_run / "run" / name) for name in ("model.onnx", "model.int8.onnx")]
    assert main(["compare", *files, "--data", str(record_run / "records")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[2] == "GAP@20" and "points: GAP@20 minus that of" in out
    assert main(["compare", *files, "--data", str(record_run / "records"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    for file, row in zip(files, rows, strict=True):
        expected = evaluate(file, record_run / "records", report=None)
        low, high = row["accuracy_interval"]
        assert row["accuracy"] == expected["gap20"] and low < expected["gap20"] < high
    gap_between = rows[1]["difference"]
    assert gap_between["mean"] == pytest.approx(rows[1]["accuracy"] - rows[0]["accuracy"])
    assert gap_between["high"] - gap_between["low"] < rows[0]["accuracy_interval"][1] - rows[0]["accuracy_interval"][0]


def test_the_figures_of_a_large_set_come_in_chunks(record_run, monkeypatch):
    monkeypatch.setattr("vidlet.tasks.clips.CHUNK", 7)
    model = load(record_run / "run" / "model.onnx", threads=1)
    clips = labelled_clips(record_run / "records", stored=True).of_split("test")
    whole, parts = summarize(score_clips(model, clips), model), figures_of(model, clips)
    assert parts.keys() == whole.keys()
    for key in whole.keys() - {"clip_ms", "per_class", "accuracy_interval", "skipped", "damaged"}:
        assert parts[key] == pytest.approx(whole[key], abs=1e-12), key
    for key in ("per_class", "accuracy_interval", "skipped", "damaged"):
        assert parts[key] == whole[key]


def test_the_submission_has_the_scores_of_the_file_best_first(record_run, test_records, tmp_path, capsys):
    shards = str(record_run / "records" / "test*")
    out = tmp_path / "submission.csv"
    assert main(["predict", str(record_run / "run" / "model.onnx"), shards, "--csv", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == HEADER
    assert len(lines) == 1 + len(test_records) == 1 + len(capsys.readouterr().out.splitlines())
    model = load(record_run / "run" / "model.onnx", threads=1)
    for line, record in zip(lines[1:6], test_records, strict=False):
        name, pairs = line.split(",")
        numbers = np.array(pairs.split(), float).reshape(-1, 2)
        assert name == record.id
        assert (np.diff(numbers[:, 1]) <= 0).all()
        expected = np.array([*model.classify(record).scores.values()])
        np.testing.assert_allclose(numbers[:, 1], expected[numbers[:, 0].astype(int)], rtol=1e-5)


@pytest.fixture
def damaged(record_run, tmp_path):
    """The test records with a byte of one changed, and one whose label no class has."""
    records = list(read_records(str(record_run / "records" / "test*")))
    broken = Record("stranger", (CLASSES + 3,), records[0].features)
    offsets = write_records(tmp_path / "test0000.tfrecord", [*records[:6], broken])
    data = bytearray((tmp_path / "test0000.tfrecord").read_bytes())
    data[offsets[2] + 40] ^= 1
    (tmp_path / "test0000.tfrecord").write_bytes(data)
    (tmp_path / "classes.txt").write_text("\n".join(f"class{i:02d}" for i in range(CLASSES)))
    return tmp_path / "test0000.tfrecord", offsets


def test_damage_is_named_with_shard_offset_and_id_and_the_rest_is_scored(record_run, damaged):
    shard, offsets = damaged
    found = evaluate(record_run / "run" / "model.onnx", shard)
    assert found["clips"] == 5
    told = " ".join(item["error"] for item in found["skipped"])
    assert f"{shard}: at byte {offsets[2]}" in told
    assert "id stranger" in told and "outside 0..5" in told
    with pytest.raises(DataError, match=f"at byte {offsets[2]}"):
        evaluate(record_run / "run" / "model.onnx", shard, strict=True)


def test_predict_goes_on_past_damage(record_run, damaged):
    shard, offsets = damaged
    model = record_run / "run" / "model.onnx"
    rows = list(predict_records(model, shard))
    assert [row["error"] for row in rows if "error" in row] and len([r for r in rows if "error" not in r]) == 6
    said = [row for row in rows if "error" not in row]
    assert all(set(row) == {"source", "label", "score", "named", "scores", "segments"} for row in said)
    assert [row["named"] for row in said] == [row["score"] >= 0.5 for row in said] and said[0]["segments"] == []
    with pytest.raises(DataError, match=f"at byte {offsets[2]}"):
        list(predict_records(model, shard, strict=True))


def test_predict_of_nothing_but_damaged_records_fails(record_run, tmp_path):
    shard = tmp_path / "test0000.tfrecord"
    offsets = write_records(shard, list(read_records(str(record_run / "records" / "test*")))[:2])
    data = bytearray(shard.read_bytes())
    for offset in offsets[:2]:
        data[offset + 40] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="of its 2 records none has an answer"):
        list(predict_records(record_run / "run" / "model.onnx", shard))


def test_means_are_one_frame_of_codes(record_run):
    model = load(record_run / "run" / "model.onnx", threads=1)
    rng = np.random.default_rng(0)
    mean = {"mean_rgb": rng.normal(0, 0.5, 64).astype(np.float32), "mean_audio": np.zeros(16, np.float32)}
    expected, _ = model({key.removeprefix("mean_"): quantize(value)[None] for key, value in mean.items()})
    found = model.classify(Record("a", (), mean))
    np.testing.assert_allclose([*found.scores.values()], expected[0], atol=1e-7)


def test_a_record_without_the_sound_is_named(record_run, test_records):
    model = load(record_run / "run" / "model.onnx", threads=1)
    with pytest.raises(DataError, match=r"id silent: has no audio"):
        model.classify(Record("silent", (), {"rgb": test_records[0].features["rgb"]}))


def test_the_recipe_is_fitted_to_the_data(record_run):
    table = labelled_clips(record_run / "records", stored=True)
    plan = recipe_for(load_recipe("gated-netvlad"), table)
    assert plan.head.options["audio"] == 16
    silent = recipe_for(load_recipe("gated-netvlad", {"extractor.options.audio": False}), table)
    assert silent.head.options["audio"] == 0
    assert extractor_for(silent, table).inputs == {"rgb": 64}
    prepared = prepare_clips(silent, table, extractor_for(silent, table), strict=False)
    (batch,) = prepared.val.batches(Draw(3, [0, 1, 2]))
    assert batch.x.shape[2] == 64
    with pytest.raises(RecipeError, match=r"features has no extractor.cut, got 'block6'"):
        recipe_for(load_recipe("gated-netvlad", {"extractor.cut": "block6"}), table)
    with pytest.raises(RecipeError, match=r"audio is 128; the data have 16"):
        recipe_for(load_recipe("gated-netvlad", {"head.options.audio": 128}), table)
    with pytest.raises(RecipeError, match="gated-netvlad"):
        recipe_for(load_recipe("mobilenetv2-gru"), table)
    with pytest.raises(RecipeError, match="mode must be 'frozen'"):
        recipe_for(load_recipe("gated-netvlad", {"training.mode": "finetune"}), table)


def test_a_recipe_of_records_refuses_videos(motion_clips):
    with pytest.raises(RecipeError, match="holds videos"):
        recipe_for(load_recipe("gated-netvlad"), labelled_clips(motion_clips))


@pytest.fixture
def array_folder(tmp_path):
    """48 sequences of 5 frames of two classes, in features.npz; class numbers are not in the order of the names."""
    rng = np.random.default_rng(0)
    rows = ["name,label,label_id,group,split"]
    frames = rng.integers(100, 140, (48, 5, 12), dtype=np.uint8)
    for i in range(48):
        frames[i, :, 0] = 200 if i % 2 else 50
        split = ("train", "train", "validate")[i // 2 % 3]
        rows.append(f"clip{i},{('zig', 'apex')[i % 2]},{i % 2},p{i % 8},{split}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    np.savez_compressed(tmp_path / "features.npz", rgb=frames)
    return tmp_path


def test_features_npz_trains_from_the_command_line(array_folder, capsys):
    out = array_folder / "run"
    words = ["train", str(array_folder), "--recipe", "records-mean", "--epochs", "12", "--out", str(out), "--json"]
    assert main([*words, "--set", "compress=[]", "--set", "training.batch=8"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["accuracy"] > 0.9
    assert metrics["split"] == "val"
    model = load(out / "model.onnx", threads=1)
    assert model.labels == ("zig", "apex")  # by label_id
    assert not model.multi_label
    assert model.inputs == {"rgb": (12,)}
    assert main(["predict", str(out / "model.onnx"), str(array_folder), "--csv", str(array_folder / "s.csv")]) == 0
    submitted = (array_folder / "s.csv").read_text().splitlines()
    assert len(submitted) == 49
    (array_folder / "clips.csv").write_text("\n".join(["name", *(f"clip{i}" for i in range(48))]))  # no labels at all
    assert main(["predict", str(out / "model.onnx"), str(array_folder), "--csv", str(array_folder / "s.csv")]) == 0
    assert (array_folder / "s.csv").read_text().splitlines() == submitted


def test_data_says_what_the_records_are(record_run, capsys):
    assert main(["data", str(record_run / "records"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["clips"]) == ("features", 240)
    assert report["splits"] == {"train": 160, "val": 40, "test": 40}


def test_a_table_of_one_shard_reads_it_by_name(record_run):
    table = read_table(record_run / "records" / "test0000.tfrecord")
    assert len(table) == 40 and table.records is not None
    assert table.records.read(table.clips[3].row).id == table.clips[3].path.name


def test_the_ensemble_is_one_file_within_the_bytes(record_run, tmp_path, monkeypatch):
    from vidlet.jobs.ensemble import ensemble

    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    run = record_run / "run"
    limit = (run / "model.onnx").stat().st_size + (run / "model.int8.onnx").stat().st_size
    found = ensemble(record_run / "records", [run], limit, tmp_path / "best")
    path = tmp_path / "best" / "model.onnx"
    metrics = found["metrics"]
    assert path.stat().st_size == metrics["bytes"]["model.onnx"] <= limit
    assert (
        metrics["ensemble"]["gap20_val"]
        >= max(c["gap20_val"] for c in metrics["ensemble"]["candidates"].values()) - 1e-5
    )
    assert evaluate(path, record_run / "records")["gap20"] == metrics["gap20"]
    assert len(list((tmp_path / "cache" / "predictions").iterdir())) == 2
    with pytest.raises(DataError, match="no model fits into 1000 bytes"):
        ensemble(record_run / "records", [run], 1000, tmp_path / "none")


def test_an_ensemble_that_was_broken_off_is_finished_with_resume_and_no_other_run_is_written_over(record_run, tmp_path):
    from vidlet.jobs.ensemble import ensemble

    run, limit = record_run / "run", 400_000
    whole = ensemble(record_run / "records", [run], limit, tmp_path / "whole")
    out = tmp_path / "broken"
    ensemble(record_run / "records", [run], limit, out)
    for name in ("metrics.json", "report.html", "recipe.toml"):  # as killed behind its model file
        (out / name).unlink()
    with pytest.raises(TrainingError, match=r"holds a finished run; .* or --resume to finish this one"):
        ensemble(record_run / "records", [run], limit, out)
    again = ensemble(record_run / "records", [run], limit, out, resume=True)
    assert again["metrics"]["ensemble"] == whole["metrics"]["ensemble"]
    assert graph_sha256((out / "model.onnx").read_bytes()) == graph_sha256((tmp_path / "whole/model.onnx").read_bytes())
    assert set(again["files"]) == set(whole["files"])
    shutil.copytree(run, tmp_path / "other")
    with pytest.raises(TrainingError, match="is no ensemble of these files"):
        ensemble(record_run / "records", [run], limit, tmp_path / "other", resume=True)
