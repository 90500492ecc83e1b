"""The demo."""

import pytest

from cli_case import one_object
from vidlet.video import probe

TINY = ("--recipe", "tiny-grid-gru", "--epochs", "1")


@pytest.mark.slow
def test_the_whole_demo_runs_on_a_few_clips(run, tmp_path):
    from html.parser import HTMLParser

    status, out, _ = run("demo", "--out", "demo", "--clips", "64", "--epochs", "2", "--json")
    found = one_object(out)
    assert status == 0
    assert set(found) == {"out", "files", "metrics"}
    rows = found["metrics"]["table"]
    assert [row["model"] for row in rows] == ["grid GRU", "grid GRU, int8", "single frame", "mean over time"]
    assert all({"accuracy", "accuracy_interval", "within_pairs", "bytes", "clip_ms"} <= set(row) for row in rows)
    folder = tmp_path / "demo"
    for name in (
        "model.onnx",
        "model.int8.onnx",
        "report.html",
        "annotated.mp4",
        "demo.json",
        "metrics.json",
        "log.csv",
    ):
        assert found["files"][name] == (folder / name).stat().st_size > 0
    assert probe(folder / "annotated.mp4").frames > 50
    parser = HTMLParser()
    page = (folder / "report.html").read_text()
    parser.feed(page)
    parser.close()
    assert page.index('id="the-lesson-order"') < page.index('id="files-compared"')
    again = run("demo", "--out", "demo", "--clips", "64", "--epochs", "2", "--json")
    assert again[0] == 0  # what is finished is not trained again
    assert one_object(again[1])["metrics"]["table"][0]["accuracy"] == rows[0]["accuracy"]


@pytest.mark.slow
def test_the_full_demo_teaches_its_lesson(run, tmp_path):
    status, out, _ = run("demo", "--out", "demo", "--json")
    assert status == 0
    within = {row["model"]: row["within_pairs"] for row in one_object(out)["metrics"]["table"]}
    assert within["grid GRU"] > 0.9
    assert within["grid GRU, int8"] > 0.9
    for name in ("single frame", "mean over time"):
        assert 0.35 <= within[name] <= 0.65


def test_the_demo_never_touches_a_folder_that_is_not_its_own(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    refused("demo", "--out", tmp_path / "mine", said=("is not empty", "choose another --out"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
