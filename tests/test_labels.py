"""Names of classes in cells: whatever a name is, what is written is read again."""

import numpy as np
import pytest

from vidlet.datasets import read_table
from vidlet.labels import join_labels, split_labels
from vidlet.tasks.clips import Scored, predictions_csv
from vidlet.tasks.compare_runs import _listed, of_scores


@pytest.mark.parametrize(
    "names", [("run", "jump"), ("a|b",), ("a|b", "c"), ("a\\", "b"), ("a\\|", "b|"), ("\\",), ("|x", "C:\\y")]
)
def test_names_in_a_cell_are_read_as_they_were_written(names):
    assert split_labels(join_labels(names)) == names


def test_bars_separate_names_and_a_backslash_before_one_keeps_it(tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"")
    (tmp_path / "2.mp4").write_bytes(b"")
    (tmp_path / "clips.csv").write_text("path,label\n1.mp4,run| jump\n2.mp4,on\\|off\n", encoding="utf-8")
    assert [clip.labels for clip in read_table(tmp_path)] == [("run", "jump"), ("on|off",)]


def test_a_class_folder_with_a_bar_is_one_class_in_a_list_of_predictions_too(tmp_path):
    for name in ("on|off/1.mp4", "still/2.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True)
        (tmp_path / "clips" / name).write_bytes(b"")
    table = read_table(tmp_path / "clips")
    assert table.labels == ("on|off", "still") and not table.multi_label
    scores = np.eye(2, dtype=np.float32)
    scored = Scored(tuple(table), scores, np.arange(2), np.zeros(2), (), (), table.labels)
    listing = tmp_path / "predictions.csv"
    listing.write_text(predictions_csv({"model.onnx": scored}), encoding="utf-8")
    said = of_scores("a", tmp_path, scored, {"bytes": 1, "accuracy": 1.0})
    assert _listed(listing)["model.onnx"] == said.answers
    assert said.right(list(said.answers)) == [True, True]
