"""One clear line for every wrong word, for data that cannot be used and models that cannot be trusted."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cli_case import clips_of, copy_clips, one_object, write_rows
from vidlet.runtime import load, read_metadata, write_metadata
from vidlet.video import write_video

TINY = ("--recipe", "tiny-grid-gru", "--epochs", "1")


# Words that make no sense.


def test_unknown_commands_and_options_are_one_line(refused):
    refused("trian", said=("trian", "train"))
    refused("predict", said=("MODEL", "--help"))
    refused("predict", "m.onnx", "c.mp4", "--treshold", "1", said="--treshold")
    refused("export", "run", "--format", "coreml", "--out", "x", said=("coreml", "onnx"))


def test_unknown_recipes_and_keys_name_the_nearest(refused, motion_clips):
    refused("train", motion_clips, "--recipe", "tiny-grid-gur", said="did you mean tiny-grid-gru?")
    refused("train", motion_clips, *TINY, "--set", "training.epoch=3", said=("training.epoch", "did you mean epochs?"))
    refused("train", motion_clips, *TINY, "--set", "training.batch=many", said=("training.batch", "'many'"))
    refused("train", motion_clips, *TINY, "--set", "head.name=grid-gro", said="did you mean grid-gru?")
    refused("train", motion_clips, *TINY, "--set", "head.options.hiden=3", said="did you mean hidden?")
    refused("train", motion_clips, *TINY, "--set", 'compress=["int9"]', said="did you mean int8?")
    refused("train", motion_clips, *TINY, "--set", "training.augment.sped=0.1", said="did you mean speed?")
    refused("train", motion_clips, *TINY, "--set", "epochs", said="KEY=VALUE")
    refused("train", motion_clips, "--recipe", "none.toml", said="none.toml")
    refused("train", motion_clips, *TINY, "--fold", "5/5", said="--fold 5/5")


# Data that cannot be used.


def test_a_missing_folder_is_named(refused, tiny_run):
    refused("data", "nowhere", said="nowhere: no such")
    refused("train", "nowhere", *TINY, said="nowhere: no such")
    refused("evaluate", tiny_run.model, "nowhere", said="nowhere: no such")
    refused("predict", tiny_run.model, "nowhere.mp4", said="nowhere.mp4: no such")


def test_a_class_with_one_clip_is_named(refused, motion_clips, tmp_path):
    copy_clips(motion_clips, tmp_path / "clips", label={0: "lonely"})
    refused("train", tmp_path / "clips", *TINY, said=("lonely", "training needs two"))
    assert not (tmp_path / "runs").exists()


def test_two_classes_that_differ_in_case_are_named(refused, motion_clips, tmp_path):
    rows = copy_clips(motion_clips, tmp_path / "clips")
    rows[0]["label"] = rows[0]["label"].upper()
    write_rows(tmp_path / "clips", rows)
    for command in ("data", "train"):
        refused(command, tmp_path / "clips", said=(rows[0]["label"], "differ only in upper and lower case"))


def test_labels_that_name_no_file_are_counted_and_the_strict_stop(run, refused, motion_clips, tmp_path):
    copy_clips(motion_clips, tmp_path / "clips", path={3: "gone.mp4"})
    status, out, _ = run("data", tmp_path / "clips", "--json")
    assert status == 0
    assert [item["path"] for item in one_object(out)["skipped"]] == ["gone.mp4"]
    refused("data", tmp_path / "clips", "--strict", said=("gone.mp4: no such file", "1 of 48 clips"))
    refused("train", tmp_path / "clips", *TINY, "--strict", said="gone.mp4: no such file")
    every = {row: f"gone{row}.mp4" for row in range(48)}
    copy_clips(motion_clips, tmp_path / "all", path=every)
    refused("train", tmp_path / "all", *TINY, said=("48 of 48 clips cannot be used", "gone0.mp4"))


def test_unreadable_clips_are_skipped_counted_and_listed(run, refused, tiny_run, tmp_path):
    copy_clips(tiny_run.clips, tmp_path / "clips")
    victim = clips_of(tmp_path / "clips")[0]
    victim.write_bytes(victim.read_bytes()[:700])
    status, out, _ = run("evaluate", tiny_run.model, tmp_path / "clips", "--json")
    found = one_object(out)
    assert status == 0
    assert found["clips"] == len(clips_of(tmp_path / "clips")) - 1
    assert [item["path"] for item in found["skipped"]] == [str(victim)]
    assert found["skipped"][0]["error"].startswith(f"{victim}: ")
    assert str(victim) in run("evaluate", tiny_run.model, tmp_path / "clips")[1]
    refused("evaluate", tiny_run.model, tmp_path / "clips", "--strict", said=victim)
    assert str(victim.name) in run("data", tmp_path / "clips")[1]
    refused("data", tmp_path / "clips", "--strict", said=victim.name)
    refused("extract", tmp_path / "clips", "--recipe", "tiny-grid-gru", "--strict", said=victim)


def test_training_skips_what_it_cannot_read_and_says_so(refused, tiny_run):
    skipped = tiny_run.result["metrics"]["skipped"]
    assert [item["path"] for item in skipped] == [tiny_run.skipped]
    assert skipped[0]["error"].startswith(f"{tiny_run.skipped}: ")
    broken = Path(tiny_run.skipped).parents[2]
    refused("train", broken, *TINY, "--out", "run", "--strict", said=tiny_run.skipped)
    assert not Path("run", "model.onnx").exists()


def test_a_label_that_the_model_never_saw_is_named(refused, tiny_run, tmp_path):
    rows = copy_clips(tiny_run.clips, tmp_path / "clips")
    row = next(i for i, row in enumerate(rows) if row["split"] == "test")
    rows[row]["label"] = "yoga"
    write_rows(tmp_path / "clips", rows)
    name = Path(rows[row]["path"]).name
    refused("evaluate", tiny_run.model, tmp_path / "clips", said=("'yoga' is not one of the model's", name))


def test_a_split_without_clips_is_named(refused, run, tiny_run, tmp_path):
    rows = copy_clips(tiny_run.clips, tmp_path / "clips")
    write_rows(tmp_path / "clips", [row for row in rows if row["split"] != "test"])
    refused("evaluate", tiny_run.model, tmp_path / "clips", "--split", "test", said="no clips in split test")
    assert one_object(run("evaluate", tiny_run.model, tmp_path / "clips", "--json")[1])["split"] == "val"


def test_stored_features_are_refused_where_videos_are_needed(refused, tiny_run, tmp_path):
    np.savez(tmp_path / "features.npz", rgb=np.zeros((4, 3, 8), np.uint8))
    (tmp_path / "clips.csv").write_text(
        "name,label,group,split\n" + "".join(f"c{n},{('close', 'grow')[n % 2]},g{n},\n" for n in range(4))
    )
    for words, said in (
        (["train", tmp_path, *TINY], "holds stored features: take --recipe gated-netvlad"),
        (["evaluate", tiny_run.model, tmp_path], "stored features, no videos"),
        (["extract", tmp_path], "stored features, no videos"),
    ):
        refused(*words, said=(tmp_path, said))


@pytest.mark.parametrize("rule", ["rate", "uniform"])
def test_a_clip_shorter_than_the_model_wants_is_named_all_the_same(rule, run, tiny_run, tmp_path):

    model, clip = tmp_path / "model.onnx", tmp_path / "short.mp4"
    shutil.copy(tiny_run.model, model)
    if rule == "uniform":
        metadata = read_metadata(model)
        metadata["sampling"] = {"rule": "uniform", "frames": 25, "median_s": metadata["sampling"]["median_s"]}
        write_metadata(model, metadata)
    write_video(clip, np.full((2, 48, 64, 3), 90, np.uint8), fps=10)
    status, out, err = run("predict", model, clip, "--json")
    assert (status, err) == (0, "")
    found = one_object(out)
    assert found["label"] in load(model).labels
    if rule == "uniform":
        assert load(model).classify(clip).frames == 25


# Models that cannot be trusted.


@pytest.mark.parametrize("command", ["predict", "evaluate", "inspect", "benchmark", "export"])
@pytest.mark.parametrize("kind", ["absent", "truncated", "foreign", "empty", "external data", "pickle"])
def test_a_model_file_that_is_not_one_is_refused_in_one_line(command, kind, refused, tiny_run, tmp_path):
    path = tmp_path / "model.onnx"
    if kind == "truncated":
        path.write_bytes(tiny_run.model.read_bytes()[:20_000])
    elif kind == "foreign":
        path.write_bytes(clips_of(tiny_run.clips)[0].read_bytes())
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "external data":
        import onnx

        graph = onnx.load(tiny_run.model)
        tensor = graph.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        path.write_bytes(graph.SerializeToString())
    elif kind == "pickle":
        shutil.copy(tiny_run.folder / "extractor.pt", path)
    words = {
        "predict": [path, clips_of(tiny_run.clips)[0]],
        "evaluate": [path, tiny_run.clips],
        "inspect": [path],
        "benchmark": [path, "--seconds", "0.1"],
        "export": [path, "--out", tmp_path / "out.onnx"],
    }[command]
    refused(command, *words, said=path)
    assert not (tmp_path / "out.onnx").exists()
