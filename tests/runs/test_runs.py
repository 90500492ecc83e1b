"""The run folder: what it refuses, what it says of itself, and that only its own module spells its names."""

import json
import re
import shutil
from pathlib import Path

import pytest

import artifacts
import vidlet
from vidlet.errors import TrainingError
from vidlet.recipe import load_recipe
from vidlet.runs import (
    CHECKPOINT,
    METRICS,
    MODEL,
    RECIPE,
    RunFolder,
    add_evidence,
    alike,
    choose,
    model_file,
    shipped,
)  # fmt: skip
from vidlet.runtime import graph_sha256, read_metadata

SOURCE = Path(vidlet.__file__).parent


def test_a_folder_is_free_until_its_product_is_there(tmp_path):
    run = RunFolder.of(tmp_path / "run")
    run.check_free(resume=False)  # what is not there is free
    run.path.mkdir()
    run.check_free(resume=False)
    run.model.write_bytes(b"")
    with pytest.raises(
        TrainingError, match="holds a finished run; choose another --out, or --resume to finish this one"
    ):
        run.check_free(resume=False)
    with pytest.raises(TrainingError, match=r"holds a finished run; choose another --join$"):
        run.check_free("--join")
    run.check_free(resume=True)
    with pytest.raises(TrainingError, match="is a file, not a folder for a run"):
        RunFolder(run.model).check_free(resume=True)


def test_a_resumed_run_keeps_the_recipe_it_was_begun_with(tmp_path):
    run, plan = RunFolder.of(tmp_path), load_recipe("tiny-grid-gru")
    with pytest.raises(TrainingError, match=r"holds no recipe.toml; not a run folder"):
        run.recipe()
    run.save_recipe(plan, resume=True)  # nothing was begun
    assert run.recipe() == plan
    (run / CHECKPOINT).write_bytes(b"")
    run.save_recipe(load_recipe("mean"), resume=True)
    assert run.recipe() == plan
    run.save_recipe(load_recipe("mean"))
    assert run.recipe().name == "mean"


def test_a_new_file_adds_its_section_and_leaves_the_others(tmp_path):
    run = RunFolder.of(tmp_path)
    run.write_metrics({"files": {"a": 1}, "bytes": {"a": 2}, "epochs": 3})
    run.add_metrics("b", {"files": {"b": 4, "c": 5}, "bytes": {"b": 6, "c": 7}})
    assert json.loads((run / METRICS).read_text()) == {
        "files": {"a": 1, "b": 4},
        "bytes": {"a": 2, "b": 6},
        "epochs": 3,
    }
    (run / CHECKPOINT).write_bytes(b"12")
    assert run.result({"x": 1}) == {
        "out": str(tmp_path),
        "files": {METRICS: (run / METRICS).stat().st_size},
        "metrics": {"x": 1},
    }


def test_a_run_folder_stands_for_its_product(tmp_path):
    assert model_file(tmp_path) == tmp_path / MODEL
    assert model_file(tmp_path / "other.onnx") == tmp_path / "other.onnx"


def test_evidence_names_figure_data_command_and_the_graph_it_was_measured_of(tiny_run, tmp_path):
    from vidlet.datasets import read_table

    path, table = tmp_path / MODEL, read_table(tiny_run.clips)
    shutil.copyfile(tiny_run.model, path)
    before = graph_sha256(path.read_bytes())
    add_evidence(path, ["top5"], {"top5": 0.5, "images": 7}, "split val", table, "as tested", "images")
    assert read_metadata(path)["evidence"] == [
        {
            "what": "top5, split val",
            "value": 0.5,
            "data": table.root.name,
            "images": 7,
            "table_sha256": table.sha256(),
            "command": "as tested",
            "graph_sha256": before,
        }
    ]
    assert graph_sha256(path.read_bytes()) == before


@pytest.mark.parametrize("name", [MODEL, RECIPE, METRICS, CHECKPOINT])
def test_only_one_module_spells_the_names_of_a_run(name):
    allowed = {SOURCE / "runs" / "folder.py", SOURCE / "web" / "page_folder.py"}  # a page names its own model
    for path in sorted(set(SOURCE.rglob("*.py")) - allowed):
        code = re.sub(r'"""[\s\S]*?"""', "", path.read_text())  # docstrings may name what users see
        assert f'"{name}"' not in code, path


@pytest.fixture
def alikes(tmp_path, monkeypatch):
    """A run of four files, of which three are as good, and what they take: name -> ms, and the names as measured."""
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    run = RunFolder.of(tmp_path / "run")
    run.path.mkdir()
    sections, measured = {"model.onnx": {"accuracy": 0.9}}, []
    for name, lost in (("model.int8.onnx", 0.005), ("model.int4.onnx", 0.3), ("model.half.onnx", -0.01)):
        difference = {"mean": -lost, "low": -lost - 0.02, "high": -lost + 0.02, "against": "model.onnx"}
        sections[name] = {"difference": difference}
    for name, padding in (
        ("model.onnx", 9000),
        ("model.int8.onnx", 1),
        ("model.int4.onnx", 0),
        ("model.half.onnx", 4000),
    ):
        artifacts.save(artifacts.classifier(), run / name, recipe={"name": padding * "x"})
    run.write_metrics({"files": sections, "bytes": {}})
    ms = {"model.onnx": 4.0, "model.int8.onnx": 2.0, "model.half.onnx": 3.9}

    def benchmark(path, seconds, threads, clip_frames):
        assert clip_frames == 1  # only frames are asked for
        measured.append(path.name)
        return {"frame_ms": {"p50": ms[path.name]}}

    monkeypatch.setattr("vidlet.runtime.benchmark", benchmark)
    return run, ms, measured


def test_of_a_run_the_quicker_of_its_equally_good_files_is_shipped_and_remembered(alikes, capsys):
    run, ms, measured = alikes
    assert alike(run) == {"model.onnx": 0.0, "model.int8.onnx": 0.005, "model.half.onnx": -0.01}
    for _ in range(2):
        assert shipped(run.path) == run / "model.int8.onnx"
        said = capsys.readouterr().err
        assert re.search(
            r"model   \S+model\.int8\.onnx \(2\.0 times quicker on this machine and [\d.]+ times smaller, "
            r"against model\.onnx: -0\.5 points \[-2\.5, \+1\.5\]\)\n",
            said,
        )
    assert measured == list(ms)  # once
    slower = {name: {"frame_ms": {"p50": time}} for name, time in (ms | {"model.int8.onnx": 5.9}).items()}
    assert choose(run, measured=slower).path == run / "model.half.onnx"  # as quick, and smaller
    assert shipped(run.path) == run / "model.half.onnx"  # what was measured last is known better
    assert shipped(run / "model.int4.onnx") == run / "model.int4.onnx"
    (run / METRICS).write_text("{")
    assert shipped(run.path) == run.model


@pytest.mark.parametrize(
    ("times", "shipped", "why"),
    [
        (
            (4.0, 3.9, 4.2),
            "model.int8.onnx",
            r"as quick on this machine and [\d.]+ times smaller, against model.onnx: -0",
        ),
        ((4.0, 9.9, 9.9), "model.onnx", r"model\.int8\.onnx is 2\.5 times slower on this machine"),
        (
            (4.0, 1.0, 0.5),
            "model.half.onnx",
            r"8\.0 times quicker on this machine and [\d.]+ times smaller, .* \+1\.0 po",
        ),
    ],
)
def test_of_equally_quick_files_the_smallest_is_shipped_and_the_reason_told(alikes, times, shipped, why):
    run, ms, _ = alikes
    ms |= dict(zip(ms, times, strict=True))
    choice = choose(run)
    assert choice.path.name == shipped and re.match(why, choice.why), choice


def test_a_file_that_costs_more_than_a_point_is_not_shipped_and_what_it_costs_is_said(alikes):
    run, _, measured = alikes
    sections = {name: figures for name, figures in run.metrics()["files"].items() if "4" in name or name == MODEL}
    run.write_metrics({"files": sections, "bytes": {}})
    choice = choose(run)
    assert choice.path == run.model and not measured
    assert re.fullmatch(
        r"model\.int4\.onnx, [\d.]+ times smaller, costs more than a point: -30\.0 points \[-32\.0, -28\.0\]",
        choice.why,
    )
    run.write_metrics({"files": {MODEL: {}}, "bytes": {}})
    assert choose(run).line() == str(run.model)  # alone it needs no reason


def test_every_command_takes_the_same_file_of_a_run(alikes, capsys):
    run, ms, _ = alikes
    for name in ("model.int8.onnx", "model.half.onnx"):
        choose(run, measured={other: {"frame_ms": {"p50": 1.0 + (other != name)}} for other in ms})
        assert vidlet.load(run.path).path == run / name
        assert vidlet.inspect(run.path)["path"] == str(run / name)
        assert f"model   {run / name} (" in capsys.readouterr().err
