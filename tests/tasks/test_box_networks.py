"""A detector from a folder of images to the files of a run, and its figures measured on those files."""

import json

import pytest

import vidlet
from boxes_case import OVERRIDES, write_squares
from vidlet.datasets import read_boxes
from vidlet.errors import DataError, RecipeError, TrainingError
from vidlet.recipe import load_recipe
from vidlet.tasks.box_networks import for_machine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("detector")
    data = write_squares(root / "squares")
    whole = (data / "train" / "02.png").read_bytes()
    (data / "train" / "02.png").write_bytes(whole[: len(whole) // 2])
    return data, root / "run", vidlet.train(data, "tiny-yolov2", root / "run", OVERRIDES, command="as tested")


def test_a_run_leaves_its_files_and_says_what_it_could_not_use(run):
    _, folder, result = run
    models = {"model.onnx", "model.int8.onnx", "detector.pt"}
    texts = {"boxes.csv", "report.html", "metrics.json", "recipe.toml", "log.csv"}
    assert set(result["files"]) == models | texts and (folder / "checkpoint.pt").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(result["metrics"]))
    assert metrics["images"] == {"train": 14, "val": 3, "scored": 6} and metrics["split"] == "test"
    assert [row["path"].rpartition("/")[2] for row in metrics["skipped"]] == ["02.png"]
    assert len(metrics["dropped"]) == 1 and metrics["dropped"][0]["error"].endswith("no area")
    for name in ("model.onnx", "model.int8.onnx"):
        figures = metrics["files"][name]
        assert 0 <= figures["map50_95"] <= figures["map50"] <= 1
        assert figures["bytes"] == (folder / name).stat().st_size == result["files"][name]
    assert metrics["map50"] == metrics["files"]["model.onnx"]["map50"]
    assert metrics["files"]["model.int8.onnx"]["difference"]["against"] == "model.onnx"
    assert result["files"]["model.int8.onnx"] < 0.6 * result["files"]["model.onnx"]


def test_evaluate_gives_the_runs_figures_and_the_file_names_them(run):
    data, folder, result = run
    found = vidlet.evaluate(folder / "model.onnx", data)
    stored = result["metrics"]["files"]["model.onnx"]
    for key in ("map50", "map50_interval", "map50_95", "per_class", "boxes", "bytes"):
        assert found[key] == stored[key], key
    model = vidlet.load(folder / "model.onnx")
    assert model.box_labels == ("red", "green") and model.input_size == (64, 64)
    evidence = {row["what"]: row for row in model.metadata["evidence"]}
    assert evidence["map50, split test"]["value"] == stored["map50"]
    assert evidence["map50, split test"]["command"] == "as tested"
    assert evidence["map50, split test"]["table_sha256"] == found_table(data)


def found_table(data):
    return read_boxes(data).sha256()


def test_detectors_are_compared_by_map_with_intervals_and_in_pairs(run, tmp_path, monkeypatch):
    data, folder, result = run
    files = [folder / "model.onnx", folder / "model.int8.onnx"]
    found = vidlet.compare(files, data=data, csv=tmp_path / "t.csv", report=tmp_path / "c.html")
    for file, row in zip(files, found["rows"], strict=True):
        figures = result["metrics"]["files"][file.name]
        assert (row["figure"], row["accuracy"]) == ("map50", figures["map50"])
        assert row["accuracy_interval"] == pytest.approx(figures["map50_interval"])
        assert (row["bytes"], row["clips"]) == (file.stat().st_size, 6)
        assert row["clip_ms"] > 0
    told = result["metrics"]["files"]["model.int8.onnx"]["difference"]
    assert found["rows"][1]["difference"] == {**{key: told[key] for key in ("mean", "low", "high")}, "clips": 6}
    assert ",map50," in (tmp_path / "t.csv").read_text()
    assert "mAP .5 on 6 each" in (tmp_path / "c.html").read_text()
    listed = vidlet.compare([folder])  # by its own figures, which have no pairs
    assert [row["accuracy"] for row in listed["rows"]] == [row["accuracy"] for row in found["rows"]]
    assert listed["rows"][1]["difference"] is None
    assert listed["notes"] == ["Differences of mAP .5 in pairs need every file's scores: --data DATA."]


def test_the_report_lays_the_curves_over_each_other(run):
    _, folder, _ = run
    page = (folder / "report.html").read_text()
    for text in ("Precision over recall", "red: precision", "model.int8.onnx", "mAP .5:.95", "no area", "data:image"):
        assert text in page, text


def test_a_finished_run_is_not_overwritten_and_a_wrong_class_is_named(run, tmp_path):
    data, folder, _ = run
    with pytest.raises(TrainingError, match="holds a finished run"):
        vidlet.train(data, "tiny-yolov2", folder, OVERRIDES)
    other = write_squares(tmp_path / "other")
    (other / "classes.txt").write_text("red\nblue\n")
    with pytest.raises(DataError, match="class 'blue' is not one of the model's"):
        vidlet.evaluate(folder / "model.onnx", other)
    with pytest.raises(TrainingError, match="was trained on red, green; the data have red, blue"):
        vidlet.train(
            other, "tiny-yolov2", tmp_path / "run", OVERRIDES | {"extractor.weights": str(folder / "detector.pt")}
        )


def test_a_stored_detector_is_where_another_run_starts(run, tmp_path):
    data, folder, _ = run
    overrides = OVERRIDES | {
        "extractor.weights": str(folder / "detector.pt"),
        "training.lr": 1e-9,
        "training.epochs": 1,
    }
    again = vidlet.train(data, "tiny-yolov2", tmp_path / "run", overrides | {"training.averaging.decay": 0.0})
    first = [float(line.split(",")[3]) for line in (folder / "log.csv").read_text().splitlines()[1:]]
    second = [float(line.split(",")[3]) for line in (tmp_path / "run" / "log.csv").read_text().splitlines()[1:]]
    assert abs(second[0] - first[-1]) < 0.25 * abs(first[0]) and again["metrics"]["epochs"] == 1


def test_what_cannot_be_trained_is_said_before_anything_is_decoded(run, tmp_path):
    data, _, _ = run
    with pytest.raises(RecipeError, match=r"unknown step .int4..*known: deepeye, half, int8, qat"):
        vidlet.train(data, "tiny-yolov2", tmp_path / "a", OVERRIDES | {"compress": ["int4"]})
    with pytest.raises(RecipeError, match="did you mean jitter"):
        vidlet.train(data, "tiny-yolov2", tmp_path / "a", OVERRIDES | {"training.augment": {"jiter": 1}})
    lonely = write_squares(tmp_path / "lonely")
    (lonely / "classes.txt").write_text("red\ngreen\nnever\n")
    with pytest.raises(DataError, match="class 'never' has no box in train"):
        vidlet.train(lonely, "tiny-yolov2", tmp_path / "a", OVERRIDES)
    with pytest.raises(DataError, match="cannot be used"):
        vidlet.train(data, "tiny-yolov2", tmp_path / "a", OVERRIDES, strict=True)


def test_the_recipe_takes_width_and_size_by_the_machine_unless_told():
    plan = load_recipe("tiny-yolov2")
    small, large = for_machine(plan, "cpu", {}), for_machine(plan, "cuda", {})
    assert (large.extractor.width, large.extractor.input_size) == (1.0, (416, 416))
    assert small.extractor.width < 1 and max(small.extractor.input_size) < 416
    told = for_machine(load_recipe("tiny-yolov2", {"extractor.width": 0.75}), "cpu", {"extractor.width": 0.75})
    assert told.extractor.width == 0.75 and told.extractor.input_size == small.extractor.input_size
    assert for_machine(small, "cuda", {}) == small
