"""What the steps of a chain learn from: the features that the file's own extractor will compute."""

import numpy as np
import onnx
import onnxruntime
import pytest

import vidlet
from vidlet.compression import find_chain
from vidlet.datasets import read_table
from vidlet.recipe import load_recipe
from vidlet.runs import RunFolder
from vidlet.tasks.clip_networks import Workshop, open_classifier
from vidlet.tasks.clips import labelled_clips
from vidlet.tasks.prepare_records import prepare_clips
from vidlet.video import read_clip


@pytest.fixture(scope="module")
def frozen_run(motion_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("product") / "run"
    changes = {
        "extractor.weights": "none", "extractor.width": 0.35, "extractor.input_size": [32, 32],
        "extractor.cut": "block2", "extractor.grid": 2, "training.epochs": 1, "compress": [],
    }  # fmt: skip
    vidlet.train(motion_clips, recipe="mobilenetv2-grid-gru", out=folder, overrides=changes)
    return folder


@pytest.mark.parametrize("graph", ["int8", "int4"])
def test_a_head_is_tuned_on_the_features_of_its_file(frozen_run, motion_clips, tmp_path, graph):
    plan, table = load_recipe(frozen_run / "recipe.toml"), labelled_clips(motion_clips)
    trained = open_classifier(RunFolder(frozen_run), plan, table)
    workshop = Workshop(plan, table, prepare_clips(plan, table, trained.extractor, False), trained.extractor)
    workshop.write(trained, find_chain(f"distill+{graph}"), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("features"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    clip = next(clip for clip in read_table(motion_clips) if clip.split == "train")
    feeds = {"frames": read_clip(clip.path, plan.sampling, trained.extractor.input_size).frames}
    for value in session.get_inputs():
        if value.name.startswith("state."):
            feeds[value.name] = np.zeros([1, *value.shape[1:]], np.float32)
    shipped = session.run(["features"], feeds)[0]

    row = [c for c in table if c.split == "train"].index(next(c for c in table if c.path == clip.path))
    learned = workshop.features(trained.extractor, find_chain(graph))[0].read(row)
    floating = workshop.features(trained.extractor)[0].read(row)
    step = np.abs(shipped).max() / 500  # stored features are rounded to 16 bits
    assert np.abs(learned - shipped).max() < step
    assert np.abs(floating - shipped).max() > 2 * step
