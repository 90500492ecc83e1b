"""What is shipped of what was measured: written by the command that measured, marked when its code has changed."""

import json
from importlib import resources

import pytest

from vidlet.cli import main
from vidlet.errors import DataError
from vidlet.jobs.papers import papers
from vidlet.reproductions import EXPERIMENTS, PAPERS, protocol, results
from vidlet.reproductions.results import code_of, fill_stored, stored

RUN = {"accuracy": 0.75, "bytes": 9, "epoch_s": 1.0, "scored": 7}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A file of what a made-up run of VIVA-3 measured, by the command."""
    made = {"VIVA-3 dense": [RUN], "VIVA-3 TT, folds of subjects": [{**RUN, "accuracy": 0.5}]}
    monkeypatch.setattr(protocol, "run_cases", lambda *_: made)
    file = tmp_path / "kept.jsonl"
    data = tmp_path / "clips"
    data.mkdir()
    words = ["papers", "tt3dcnn", "--data", str(data), "--protocol", "paper", "--folds", "1", "--rows", "VIVA-3"]
    assert main([*words, "--record", str(file), "--out", str(tmp_path / "x"), "--device", "cpu", "--json"]) == 0
    return file


def test_what_a_command_measured_is_shown_without_data_with_where_it_comes_from(kept, capsys):
    found = papers("tt3dcnn", record=str(kept))
    of = {r["name"]: r for t in found["tables"] for r in t["rows"]}
    assert of["VIVA-3 dense: accuracy"]["measured"] == 0.75
    assert of["VIVA-3 dense: accuracy"]["printed"] == 0.8113
    assert of["VIVA-3 TT, folds of subjects: accuracy"]["measured"] == 0.5  # a row that the paper does not have
    assert of["VIVA-4 dense: accuracy"]["measured"] is None
    line = next(m for m in found["measurements"] if m["row"] == "VIVA-3 dense: accuracy")
    assert line["command"] == "vidlet papers tt3dcnn --data clips --protocol paper --folds 1 --rows VIVA-3"
    assert (line["value"], line["data"], line["reduction"], line["clips"]) == (0.75, "clips", "the first 1 folds", 7)
    assert line["changed"] == [] and line["version"] and line["date"] and line["machine"]
    capsys.readouterr()
    assert main(["papers", "tt3dcnn", "--record", str(kept)]) == 0
    text = capsys.readouterr().out
    assert line["command"] in text and "0.75" in text and "has changed" not in text


def test_a_value_whose_code_has_changed_is_marked(kept, monkeypatch, capsys):
    now = code_of("tt3dcnn")
    monkeypatch.setattr(results, "code_of", lambda paper: {**now, "models": "other"})
    assert all(line["changed"] == ["models"] for line in papers("tt3dcnn", record=str(kept))["measurements"])
    capsys.readouterr()
    main(["papers", "tt3dcnn", "--record", str(kept)])
    text = capsys.readouterr().out
    assert "0.75* [1]" in text and "* the code has changed since this was measured" in text


def test_a_star_is_of_the_value_that_is_shown_and_its_number_is_that_of_its_command(kept, capsys):
    line = json.loads(kept.read_text().splitlines()[0])
    old = {**line, "data": "elsewhere", "command": "vidlet papers tt3dcnn --data elsewhere", "code": {"models": "old"}}
    kept.write_text("".join(json.dumps(one) + "\n" for one in (old, {**line, "value": 0.8})))
    main(["papers", "tt3dcnn", "--record", str(kept)])
    text = capsys.readouterr().out
    assert "0.8 [2]\n" in text and "0.8*" not in text
    assert "elsewhere       7      1  the first 1 folds" in text  # what was reduced stands beside the number


def test_runs_that_an_older_code_finished_are_recorded_as_such(kept, monkeypatch, tmp_path):
    log = tmp_path / "x"
    log.write_text(json.dumps({"key": "1", "code": {**code_of("tt3dcnn"), "training": "old"}}) + "\n")
    data = str(tmp_path / "clips")
    words = ["papers", "tt3dcnn", "--data", data, "--protocol", "paper", "--rows", "VIVA-3", "--device", "cpu"]
    assert main([*words, "--record", str(kept), "--out", str(log), "--json"]) == 0
    assert all(line["changed"] == ["training"] for line in stored("tt3dcnn", kept) if not line["reduction"])
    log.write_text(json.dumps({"key": "1"}) + "\n")  # of a version that did not say
    assert main([*words, "--record", str(kept), "--out", str(log), "--json"]) == 0
    assert all(len(line["changed"]) == 4 for line in stored("tt3dcnn", kept) if not line["reduction"])


def test_the_last_value_of_a_row_counts_and_the_papers_own_protocol_first(kept):
    line = json.loads(kept.read_text().splitlines()[0])
    later = [{**line, "value": 0.8}, {**line, "value": 0.3, "protocol": "quick"}]
    kept.write_text("".join(json.dumps(one) + "\n" for one in (line, *later)))
    found = stored("tt3dcnn", kept)
    assert [one["value"] for one in found] == [0.8, 0.3]
    tables = papers("tt3dcnn")["tables"]
    fill_stored(tables, found)
    assert next(r for t in tables for r in t["rows"] if r["name"] == line["row"])["measured"] == 0.8
    assert stored("deepeye", kept) == []
    kept.write_text('{"paper": "tt3dcnn"}\n')
    with pytest.raises(DataError, match="line 1: not a measured value"):
        stored("tt3dcnn", kept)


def test_comments_do_not_change_a_codes_hash_and_code_does():
    meaning = results._meaning
    assert meaning("a.py", '"""Doc."""\nx = 1  # one\n') == meaning("a.py", '"""Other words."""\n\nx = 1\n')
    assert meaning("a.py", "x = 1") != meaning("a.py", "x = 2")
    assert meaning("a.py", "from .a import y\nx = y") == meaning("a.py", "from ..b.c import y\nx = y")  # it moved
    assert meaning("a.toml", "# words\na = 1") == meaning("a.toml", "a   = 1") != meaning("a.toml", "a = 2")


@pytest.mark.parametrize("paper", EXPERIMENTS)
def test_the_sources_of_each_experiment_are_there(paper):
    found = code_of(paper)
    more = {"recipes of UCF"} if paper == "tt3dcnn" else set()
    assert set(found) == {"training", "protocol", "models", "recipes"} | more
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_shipped_value_is_of_a_command_of_ours(paper):
    assert (resources.files("vidlet.reproductions") / "measured.jsonl").is_file()
    for line in stored(paper):
        assert line["command"].startswith(f"vidlet papers {paper} --data ")
        assert "/" not in line["data"] and isinstance(line["value"], (int, float))
