"""Python says what the command line says: runs are opened by folder, loggers hear, predict takes what it takes."""

import json
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import vidlet
from artifacts import classifier, save
from vidlet.runs import RunFolder, choose
from vidlet.video import write_video


@pytest.fixture(scope="module")
def red_then_blue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    save(classifier(), folder / "m.onnx")
    red, blue = (np.full((12, 16, 3), color, np.uint8) for color in ((250, 5, 5), (5, 5, 250)))
    write_video(folder / "clip.mp4", [red] * 24 + [blue] * 24, 24)
    return folder


def test_a_score_on_clips_that_the_file_learned_from_is_told(tiny_run, capsys):
    vidlet.evaluate(tiny_run.folder, tiny_run.clips)
    assert "learned" not in capsys.readouterr().err
    vidlet.evaluate(tiny_run.folder, tiny_run.clips, fold="0/4")
    assert "warning: the file learned from these data with no --fold: clips that it learned" in capsys.readouterr().err


def test_a_run_is_loaded_by_its_folder_and_says_nothing(tiny_run, tmp_path, capsys):
    model = vidlet.load(tiny_run.folder)
    assert model.path == choose(RunFolder.of(tiny_run.folder)).path
    assert capsys.readouterr().err == ""
    (tmp_path / "model.int8.onnx").write_bytes(b"x")
    with pytest.raises(vidlet.VidletError, match=r"holds no model\.onnx; name one of model\.int8\.onnx"):
        vidlet.load(tmp_path)


def test_a_logger_hears_of_the_start_of_every_epoch_and_of_the_end(motion_clips, tmp_path):
    heard = []
    made = vidlet.train(
        motion_clips,
        "tiny-grid-gru",
        tmp_path / "run",
        {"compress": []},
        epochs=2,
        callback=lambda *told: heard.append(told),
    )
    assert [kind for kind, _ in heard] == ["start", "epoch", "epoch", "end"]
    start = heard[0][1]
    assert (start["recipe"]["training"]["epochs"], start["out"]) == (2, str(tmp_path / "run"))
    assert (start["train"], len(start["labels"])) == (made["metrics"]["clips"]["train"], 8)
    json.dumps(start)
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    for (_, figures), row in zip(heard[1:3], rows[1:], strict=True):
        logged = dict(zip(rows[0].split(","), row.split(","), strict=True))
        assert (figures["epoch"], figures["epochs"]) == (int(float(logged["epoch"])), 2)
        assert figures["val_loss"] == pytest.approx(float(logged["val_loss"]), rel=1e-4)
    assert heard[3][1] == made


def test_a_list_of_clips_is_named_in_order_and_a_notebook_shows_the_best_labels(red_then_blue):
    model = vidlet.load(red_then_blue / "m.onnx")
    clip = red_then_blue / "clip.mp4"
    one = model.classify(clip)
    assert model.classify([clip, clip]) == [one, one]
    best = max(one.scores, key=one.scores.__getitem__)
    assert f"<tr><th>{best}</th><td>{one.score:.3f}</td></tr>" in one._repr_html_()
    assert "<b>" not in vidlet.Prediction("<b>", 1.0, {"<b>": 1.0})._repr_html_()


def test_predict_takes_a_live_source_its_events_and_their_clips(red_then_blue, tmp_path):
    view = []
    does = {"save": tmp_path / "events", "around_s": 0.5, "command": f"echo $VIDLET_LABEL >> {tmp_path}/told.txt"}
    event = {"on": "red", "above": 0.7, "min_s": 0.2, **does}
    clip = red_then_blue / "clip.mp4"
    lines = list(vidlet.predict(red_then_blue / "m.onnx", clip, live=True, show=view.append, **event))
    assert next(line["label"] for line in lines if "label" in line) == "red"
    (clip,) = [line for line in lines if "clip" in line]
    assert clip["event"] == "red"
    assert [str(path) for path in (tmp_path / "events").iterdir()] == [clip["clip"]]
    assert view[0].dtype == np.uint8
    assert (tmp_path / "told.txt").read_text() == "red\n"
    with pytest.raises(vidlet.VidletError, match="is for live sources"):
        list(vidlet.predict(red_then_blue / "m.onnx", red_then_blue / "clip.mp4", on="red"))


def test_the_loggers_of_the_docs_use_figures_that_there_are(monkeypatch, tmp_path):
    told = {
        "start": {"recipe": {"name": "tiny"}, "data": "clips", "out": "runs/a", "labels": ["a"], "train": 3},
        "epoch": {"epoch": 1.0, "epochs": 2, "train_loss": 0.5, "val_loss": 0.6},
        "end": {"out": "runs/a", "files": {}, "metrics": {"accuracy": 0.75}},
    }
    wandb, mlflow = mock.MagicMock(), mock.MagicMock()
    wandb.summary = {}
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    tells = lambda data, out, callback: [callback(*one) for one in told.items()]  # noqa: E731
    monkeypatch.setattr(vidlet, "train", tells, raising=False)
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "callback=" in block]
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
    mlflow.log_metrics.assert_called_once_with({"train_loss": 0.5, "val_loss": 0.6}, step=1)
    mlflow.log_metric.assert_called_once_with("accuracy", 0.75)
    wandb.log.assert_called_once_with(told["epoch"], step=1)
    assert wandb.summary == {"accuracy": 0.75}
