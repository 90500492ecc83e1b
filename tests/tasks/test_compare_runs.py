"""Runs beside each other: by hand, on the clips that they share, and from the command to table, CSV and page."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import vidlet
from vidlet.cli import main
from vidlet.errors import DataError
from vidlet.metrics import paired_bootstrap

GROUPS = [f"p{i // 4}" for i in range(16)]
TRUTH = ["run", "wave"] * 8


def made(folder: Path, answers: dict[str, list[str]], size: int = 900, prefix: str = "clips", first: int = 0) -> Path:
    """A run folder as far as it is compared: 16 clips of four people, and what its files said of them."""
    folder.mkdir(parents=True)
    rows = []
    for name, said in answers.items():
        (folder / name).write_bytes(b"0" * (size if name == "model.onnx" else size // 3))
        for i, predicted in enumerate(said, first):
            rows.append([name, f"{prefix}/{TRUTH[i]}/{i:02d}.mp4", GROUPS[i], TRUTH[i], predicted, "0.9"])
    with (folder / "predictions.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["file", "path", "group", "label", "predicted", "score"], *rows])
    sections = {name: {"clip_ms": {"p50": 12.5, "p95": 20.0}} for name in answers}
    (folder / "metrics.json").write_text(json.dumps({"split": "test", "files": sections, "bytes": {}}))
    return folder


def wrong_at(*places: int) -> list[str]:
    return ["jump" if i in places else label for i, label in enumerate(TRUTH)]


@pytest.fixture
def runs(tmp_path) -> Path:
    made(tmp_path / "a", {"model.onnx": wrong_at(0, 1, 2), "model.int8.onnx": wrong_at(0, 1, 2, 3)})
    made(tmp_path / "b", {"model.onnx": wrong_at(15)}, size=3000)
    return tmp_path


def test_figures_are_those_of_the_lists_and_differences_are_in_pairs_over_groups(runs):
    found = vidlet.compare([runs / "a", runs / "b"])
    names = [row["name"] for row in found["rows"]]
    assert names == [f"{runs}/a/model.onnx", f"{runs}/a/model.int8.onnx", f"{runs}/b"]
    assert [row["accuracy"] for row in found["rows"]] == [13 / 16, 12 / 16, 15 / 16]
    assert [(row["bytes"], row["clip_ms"], row["clips"]) for row in found["rows"]] == [
        (900, 12.5, 16), (300, 12.5, 16), (3000, 12.5, 16),
    ]  # fmt: skip
    assert found["rows"][0]["difference"] is None
    own, first = (
        [guess == label for guess, label in zip(wrong_at(*at), TRUTH, strict=True)] for at in ((15,), (0, 1, 2))
    )
    expected = paired_bootstrap(own, first, GROUPS)
    assert found["rows"][2]["difference"] == {**expected._asdict(), "clips": 16}
    other = vidlet.compare([runs / "a", runs / "b"], against=str(runs / "b"))
    assert (other["against"], other["rows"][2]["difference"]) == (f"{runs}/b", None)
    assert other["rows"][0]["difference"]["mean"] == pytest.approx(-2 / 16)
    with pytest.raises(DataError, match="--against runs/z: none of those compared"):
        vidlet.compare([runs / "a"], against="runs/z")


def test_runs_with_other_test_clips_are_compared_on_those_that_both_have(runs, tmp_path):
    made(tmp_path / "c", {"model.onnx": wrong_at(15)[8:]}, prefix="/elsewhere/clips", first=8)
    found = vidlet.compare([runs / "a", tmp_path / "c"])
    assert found["rows"][2]["difference"]["clips"] == 8  # found by the end of their paths
    assert found["rows"][2]["difference"]["mean"] == pytest.approx(-1 / 8)
    assert any("compared on the 8 clips in common" in note for note in found["notes"])
    made(tmp_path / "d", {"model.onnx": TRUTH}, prefix="others")
    found = vidlet.compare([runs / "a", tmp_path / "d"])
    assert found["rows"][2]["difference"] is None
    assert any("have no test clip in common" in note for note in found["notes"])


def test_the_command_prints_one_table_and_writes_csv_and_a_page(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert main(["compare", "a", "b", "--csv", "t.csv", "--report", "c.html", "--out", "o.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["a/model.onnx", "a/model.int8.onnx", "b"]
    assert "93.8 %" in lines[4]
    assert "+12.5 [" in lines[4]
    with (runs / "t.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert (rows[2]["name"], float(rows[2]["accuracy"]), float(rows[2]["points"])) == ("b", 15 / 16, 2 / 16)
    assert rows[0]["points"] == ""
    page = (runs / "c.html").read_text()
    told = ("3 files compared", "Over size and time", "a/model.int8.onnx: 75.0 %, 300 B, 12.5 ms")
    assert all(text in page for text in told)
    assert main(["compare", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((runs / "o.json").read_text())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such run; give --data DATA for files"),
        (["empty"], "empty: holds no predictions.csv of a finished run\n"),
        (["stopped"], "stopped: holds no predictions.csv of a finished run; give --data DATA to score its file now"),
        (["broken"], "not a run's list of predictions"),
    ],
)
def test_what_is_no_finished_run_is_one_line(runs, capsys, monkeypatch, words, said):
    monkeypatch.chdir(runs)
    for name in ("empty", "stopped", "broken"):
        (runs / name).mkdir()
    (runs / "stopped" / "model.onnx").touch()
    (runs / "broken" / "predictions.csv").write_text("path,label\na,b\n")
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_of_runs_is_told_how_to_name_them(runs):
    with pytest.raises(DataError, match=r"of a finished run; its runs are .*/\*"):
        vidlet.compare([runs])


def test_of_all_that_lies_in_a_folder_what_is_no_run_is_left_out_and_named(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    (runs / "empty").mkdir()
    (runs / "table.csv").touch()
    assert main(["compare", "empty", "a", "table.csv", "b"]) == 0
    out = capsys.readouterr().out
    assert "note: empty: holds no predictions.csv of a finished run; left out" in out
    assert "note: table.csv: not a run folder; give --data DATA for files; left out" in out
    assert [row["name"] for row in vidlet.compare(["a", "b"])["rows"]] == [
        row["name"] for row in vidlet.compare(["empty", "a", "table.csv", "b"])["rows"]
    ]


def test_files_without_lists_are_scored_on_the_data_and_agree_with_evaluate(tiny_run, tmp_path):
    files = [tiny_run.model, tiny_run.folder / "model.int8.onnx"]
    found = vidlet.compare(files, data=tiny_run.clips)
    for file, row in zip(files, found["rows"], strict=True):
        expected = vidlet.evaluate(file, tiny_run.clips, report=None)
        assert row["accuracy"] == expected["accuracy"]
        assert row["accuracy_interval"] == expected["accuracy_interval"]
        assert (row["bytes"], row["clips"]) == (expected["bytes"], expected["clips"])
    by_list = vidlet.compare([tiny_run.folder])
    assert [row["accuracy"] for row in by_list["rows"][:2]] == [row["accuracy"] for row in found["rows"]]


def test_on_given_data_a_run_has_a_line_a_file_as_by_its_own_list(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.folder, run)
    shutil.copyfile(run / "model.onnx", run / "model.all.onnx")
    names = ["model.onnx", *sorted(p.name for p in run.glob("model.*.onnx") if "all" not in p.name)]
    found, by_list = vidlet.compare([run, tiny_run.model], data=tiny_run.clips), vidlet.compare([run])
    assert [row["name"] for row in found["rows"]] == [*(f"{run}/{name}" for name in names), str(tiny_run.model)]
    assert "model.int8.onnx" in names and found["against"] == f"{run}/model.onnx"
    assert found["notes"] == [f"{run / 'model.all.onnx'} was trained on all clips; left out"]
    own = {row["name"]: (row["accuracy"], row["clips"], row["difference"]) for row in by_list["rows"]}
    for row in found["rows"][:2]:
        assert own[row["name"]] == (row["accuracy"], row["clips"], row["difference"])
    by_name = vidlet.compare([run / "model.all.onnx"], data=tiny_run.clips)  # named itself it is scored
    assert by_name["rows"][0]["accuracy"] == found["rows"][0]["accuracy"] and not by_name["notes"]


def test_several_chains_are_several_files_of_one_command(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    made = vidlet.compress(tmp_path / "run", tiny_run.clips, ["half", "half+compact"])
    names = ["model.onnx", "model.half.onnx", "model.half-compact.onnx"]
    assert list(made["metrics"]["files"]) == names
    known = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name in names[1:]:
        assert known["files"][name]["difference"]["against"] == "model.onnx"
        assert known["bytes"][name] == (tmp_path / "run" / name).stat().st_size
        listing = (tmp_path / "run" / f"predictions.{name.removeprefix('model.')}.csv").read_text()
        assert {line.split(",")[0] for line in listing.splitlines()[1:]} == {"model.onnx", name}
    assert {row["name"].rpartition("/")[2] for row in vidlet.compare([tmp_path / "run"])["rows"]} >= set(names)
    (tmp_path / "run" / "checkpoint.pt").touch()
    further = vidlet.compress(tmp_path / "run", tiny_run.clips, "half+compact+half", out=tmp_path / "further")
    added = {"model.half-compact-half.onnx", "predictions.half-compact-half.onnx.csv"}
    assert set(further["files"]) - set(made["files"]) == added
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == known  # the run is as it was
    there = {path.name for path in (tmp_path / "run").iterdir() if path.is_file() and path.name[0] != "."}
    copied = {path.name for path in (tmp_path / "further").iterdir()}
    assert copied - there == added
    assert there - copied == {"checkpoint.pt"}
    with pytest.raises(vidlet.VidletError, match="holds a finished run; choose another --out"):
        vidlet.compress(tmp_path / "run", tiny_run.clips, "half", out=tmp_path / "further")
    with pytest.raises(vidlet.VidletError, match="did you mean half"):
        vidlet.compress(tmp_path / "run", tiny_run.clips, ["half", "hald"])
