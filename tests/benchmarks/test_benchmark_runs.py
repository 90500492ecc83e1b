"""What benchmarks train is trained once, and what they tell of it is that of the files that ship."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks" / where) for where in ("", "studies", "speed")]
import boxes  # noqa: E402

import live  # noqa: E402
import models  # noqa: E402
import runs  # noqa: E402
from vidlet.metrics import Truth  # noqa: E402


def test_a_finished_run_is_not_repeated_and_one_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runs.subprocess, "run", lambda command, check: asked.append(command[3:]))
    folder = tmp_path / "run"
    assert runs.finished(folder, "train", "clips", "--seed", 0) == folder
    folder.mkdir()
    runs.finished(folder, "train", "clips")
    (folder / "report.html").touch()
    runs.finished(folder, "train", "clips")
    out = ["--out", str(folder)]
    assert asked == [["train", "clips", "--seed", "0", *out], ["train", "clips", *out, "--resume"]]


def test_runs_with_other_files_than_the_usual_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "finished", lambda folder, *words: folder)
    usual, other = (
        runs.stored(Path("data/hands"), "mean", chains, tmp_path) for chains in (runs.CHAINS, ("int8", "half"))
    )
    assert (usual.name, other.name) == ("hands-mean", "hands-mean-int8-half")


def test_a_table_whose_second_split_is_called_val_is_one_of_test_clips(tmp_path):
    data = tmp_path / "hands"
    data.mkdir()
    (data / "clips.csv").write_text("path,label,split\na.mp4,wave,train\nb.mp4,wave,val\n", "utf-8")
    with (Path(runs.tested(data, tmp_path / "out")) / "clips.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["path"], row["split"]) for row in csv.DictReader(file)] == [
            (str(data / "a.mp4"), "train"),
            (str(data / "b.mp4"), "test"),
        ]
    (data / "clips.csv").write_text("path,label,split\na.mp4,wave,train\nb.mp4,wave,test\n", "utf-8")
    assert runs.tested(data, tmp_path / "out") == str(data)


def test_the_chain_of_a_file_stands_in_its_name():
    assert [runs.chain_of(name) for name in ("model.onnx", "model.int8.onnx")] == ["float32", "int8"]
    assert len(runs.folder_name("a" * 300)) < 130 and runs.folder_name("a b/c") == "ab_c"


@pytest.fixture
def detectors(monkeypatch):
    """Two files of two seeds on four images of one box: float32 finds it always, int8 in the images of its seed."""
    box = np.array([[0.1, 0.1, 0.5, 0.5]])
    truths = tuple(Truth(box, np.array([0]), np.array([False])) for _ in range(4))
    hit, missed = np.array([[0.1, 0.1, 0.5, 0.5, 0.9, 0]]), np.zeros((0, 6))

    class Model:
        def __init__(self, path):
            self.path, self.bytes = path, len(path.name)

    def score_images(model, table):
        whole, first = model.path.name == "model.onnx", model.path.parent.name == "seed0"
        found = tuple(hit if whole or (i < 3) == first else missed for i in range(4))
        return boxes.ScoredImages((), found, truths, np.full(4, 0.002), (), ("thing",))

    monkeypatch.setattr(boxes, "load", lambda path, threads: Model(path))
    monkeypatch.setattr(boxes, "score_images", score_images)


def run_folder(folder, **told):
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"seconds": 120, **told}), "utf-8")
    return folder


def test_a_detectors_row_is_the_mean_over_seeds_and_int8_is_compared_image_by_image(tmp_path, detectors):
    sizes = {"model.onnx": 0, "model.int8.onnx": 0}
    found = boxes.figures_of([run_folder(tmp_path / f"seed{seed}", bytes=sizes) for seed in (0, 1)], ())
    assert found["float32, mAP .5"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert found["int8, mAP .5"]["value"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["int8 - float32"]["value"] == pytest.approx(-0.5)
    low, high = found["int8 - float32"]["interval"]
    assert low <= -0.5 <= high <= 0
    assert (found["int8, ms"]["value"], found["minutes"]["value"]) == (2.0, 2.0)


def test_the_file_that_a_search_found_stands_under_its_storage(tmp_path, detectors):
    chosen = {"name": "block12", "epochs": 5, "chain": "int8"}
    found = boxes.figures_of([run_folder(tmp_path / "seed0", bytes={"model.onnx": 0}, chosen=chosen)], ())
    assert "int8, mAP .5" in found and "float32, mAP .5" not in found
    assert found["what"]["value"] == "block12, 5 epochs"


def test_what_stands_of_a_files_speed_is_the_median_of_its_rounds_and_its_ratio_in_each(monkeypatch, tmp_path):
    taken = iter([(4, 2), (8, 2), (6, 6)])  # of float32 and int8, round by round
    pending = []

    def benchmark(path, seconds):
        if not pending:
            pending.extend(next(taken))
        ms = pending.pop(0)
        times = {"p50": ms, "p95": 2 * ms, "least": ms}
        return {"frame_ms": times, "clip_ms": times, "load_ms": 1.0, "peak_rss_bytes": 5, "clip_frames": 7}

    monkeypatch.setattr(models, "benchmark", benchmark)
    found = models.speed({"float32": tmp_path, "int8": tmp_path}, 3, 1.0)
    assert found["float32"]["frame_ms"]["value"] == 6 and found["int8"]["frame_ms"]["value"] == 2
    assert [found[chain]["faster"]["value"] for chain in found] == [1, 2]


def test_memory_of_a_watcher_is_looked_at_when_all_has_settled():
    told = live.resident({"memory": [(0, 1), (25, 5), (60, 9), (90, 0), (120, 7)], "p95_ms": 30, "own_p50_ms": 10})
    places = ("begin", "middle", "end", "most")
    assert [told[f"{place}_bytes"] for place in places] == [5, 9, 7, 9] and told["beyond_ms"] == 20
