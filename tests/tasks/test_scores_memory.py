"""Of what files say of clips the scores are kept, not the predictions: these name every class anew."""

import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from vidlet.datasets import Clip, ClipTable
from vidlet.runtime import Prediction
from vidlet.tasks import clips as scoring


def test_predictions_are_let_go_as_clips_are_scored(monkeypatch):
    labels = tuple(f"class {number}" for number in range(50))
    models = [SimpleNamespace(labels=labels, path=Path(f"run/{name}.onnx")) for name in "ab"]
    table = ClipTable(tuple(Clip(Path(f"{i}.mp4"), (labels[i % 50],)) for i in range(200)), labels, Path())
    alive, most = weakref.WeakSet(), []

    def said(models, _, clip):
        number = int(clip.path.stem)
        most.append(len(alive))
        found = []
        for shift in range(len(models)):
            scores = {name: float(i == (number + shift) % 50) for i, name in enumerate(labels)}
            found.append(Prediction(labels[number % 50], 1.0, scores, damage="cut off" if number == 7 + shift else ""))
        alive.update(found)
        return found

    monkeypatch.setattr(Prediction, "__hash__", object.__hash__)
    monkeypatch.setattr(scoring, "classify_clip", said)
    first, second = scoring.score_together(models, table)
    assert max(most) < 40
    np.testing.assert_array_equal(first.scores.argmax(1), np.arange(200) % 50)
    np.testing.assert_array_equal(second.scores.argmax(1), (np.arange(200) + 1) % 50)
    np.testing.assert_array_equal(first.labels, np.arange(200) % 50)
    assert [clip.path.stem for clip in first.clips] == [f"{i}" for i in range(200)]
    assert (first.damaged, second.damaged) == ((("7.mp4", "cut off"),), (("8.mp4", "cut off"),))
