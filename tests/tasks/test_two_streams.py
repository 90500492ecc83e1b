"""Two streams: flow stored as clips of the same names, labels and splits; scores of files averaged."""

import csv
import shutil

import numpy as np
import pytest

from vidlet.datasets import read_table
from vidlet.errors import DataError, RecipeError
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.fuse import fuse
from vidlet.progress import bar
from vidlet.recipe import load_recipe
from vidlet.runs import shipped
from vidlet.runtime import load
from vidlet.tasks.clips import labelled_clips, score_clips
from vidlet.tasks.flow import flow_clips, stream_name
from vidlet.video import read_clip
from vidlet.video.flow import flow_channels, flow_pictures, stored_flow

SMALL = {"extractor.input_size": [32, 40]}


def test_a_flow_picture_is_the_flow_to_half_a_level_and_what_is_faster_is_cut():
    flow = np.random.default_rng(0).uniform(-5, 5, (3, 4, 5, 2)).astype(np.float32)
    flow[0, 0, 0] = (30, -30)
    back = (flow_pictures(flow).astype(float) - 128) * (8 / 127)
    np.testing.assert_allclose(back, flow_channels(flow).clip(-8, 8), atol=0.5 * 8 / 127 + 1e-6)
    assert (flow_pictures(np.zeros((1, 2, 2, 2), np.float32)) == 128).all()


@pytest.fixture
def clips(motion_clips, tmp_path):
    """Six clips of the motion set, of two classes, with their splits and groups."""
    folder = tmp_path / "clips"
    folder.mkdir()
    table = read_table(motion_clips)
    chosen = [clip for split in ("train", "val", "test") for clip in list(table.of_split(split))[:2]]
    with (folder / "clips.csv").open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(["path", "label", "group", "split"])
        for clip in chosen:
            shutil.copy(clip.path, folder / clip.path.name)
            writer.writerow([clip.path.name, clip.label, clip.group, clip.split])
    return folder


def test_flow_clips_have_the_names_labels_groups_and_splits_of_the_clips(clips, tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    found = flow_clips(clips, tmp_path / "flow", overrides=SMALL)
    source, flow = labelled_clips(clips), read_table(tmp_path / "flow")
    assert found["metrics"] == {"clips": 6, "computed": 6}
    of = {stream_name(clip, source): (clip.labels, clip.group, clip.split) for clip in source}
    assert {stream_name(clip, flow): (clip.labels, clip.group, clip.split) for clip in flow} == of
    plan = load_recipe("ucf-flow", SMALL)
    frames = read_clip(source.clips[0].path, plan.sampling, (32, 40)).frames
    stored = read_clip(flow.clips[0].path, plan.sampling, (32, 40)).frames  # no resizing, no rate but its own
    np.testing.assert_array_equal(stored, flow_pictures(stored_flow(frames)))
    (flow.clips[1].path / "whole").unlink()  # as if the run had been killed in it
    assert flow_clips(clips, tmp_path / "flow", overrides=SMALL)["metrics"] == {"clips": 6, "computed": 1}


def test_a_recipe_of_another_rate_is_refused(clips, tmp_path):
    with pytest.raises(RecipeError, match="25 frames a second"):
        flow_clips(clips, tmp_path / "flow", "mobilenetv2-grid-gru")


def test_fused_scores_are_the_weighted_mean_of_the_streams(tiny_run):
    model, data = tiny_run.model, tiny_run.clips
    alone = evaluate(model, data)
    twice = fuse([(model, data), (model, data)])
    assert twice["accuracy"] == alone["accuracy"] and twice["top5"] == alone["top5"]
    assert twice["ece"] == pytest.approx(alone["ece"], abs=1e-6)  # the scores themselves, not their order alone
    assert twice["bytes"] == 2 * alone["bytes"]
    int8 = tiny_run.folder / "model.int8.onnx"
    assert fuse([(int8, data), (model, data)], [0, 1])["accuracy"] == alone["accuracy"]
    table = labelled_clips(data).of_split("test")
    one, two = (score_clips(load(path, threads=1), table) for path in (model, int8))
    right = (0.25 * one.scores + 0.75 * two.scores).argmax(1) == one.labels
    assert fuse([(model, data), (int8, data)], [1, 3])["accuracy"] == pytest.approx(right.mean())


def test_a_stream_may_be_a_run_and_a_bar_names_the_file_that_is_scored(tiny_run, monkeypatch):
    texts = []

    def noted(text):
        texts.append(text)
        return bar(text)

    monkeypatch.setattr("vidlet.tasks.clips.bar", noted)
    found = fuse([(tiny_run.folder, tiny_run.clips), (tiny_run.model, tiny_run.clips)])
    assert found["streams"][0]["model"] == str(shipped(tiny_run.folder, 1, told=False))
    assert f"evaluate {tiny_run.folder.name}/model.onnx" in texts


def test_streams_that_share_no_clip_or_no_weights_are_refused(tiny_run, clips):
    with pytest.raises(DataError, match="at least two"):
        fuse([(tiny_run.model, tiny_run.clips)])
    with pytest.raises(DataError, match="a weight each"):
        fuse([(tiny_run.model, tiny_run.clips)] * 2, [1.0])
    with pytest.raises(DataError, match="has no clip of"):
        fuse([(tiny_run.model, tiny_run.clips), (tiny_run.model, clips)])


def test_both_streams_are_the_same_network_on_other_channels():
    for form in ("", "-tt"):
        rgb, flow = (load_recipe(f"ucf-{kind}{form}") for kind in ("rgb", "flow"))
        assert (rgb.head, rgb.extractor, rgb.sampling) == (flow.head, flow.extractor, flow.sampling)
        assert not {"contrast", "saturation", "light"} & set(flow.training.augment)
