"""Measured figures are data, and pages say what the data say."""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import figures  # noqa: E402
import results  # noqa: E402
import tables  # noqa: E402
from figures import Row, figure  # noqa: E402
from results import Run  # noqa: E402
from tables import Table, count, name, share  # noqa: E402


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of rows, and a package of one module beside it."""
    package = tmp_path / "src" / "vidlet"
    package.mkdir(parents=True)
    (package / "video.py").write_text('"""Says."""\n\ndef read():\n    return 1  # one\n', "utf-8")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "PACKAGE", package)
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "figures")
    figures.part_hash.cache_clear()
    yield tmp_path
    figures.part_hash.cache_clear()


def save(benchmark, *rows, parts=("video.py",)):
    figures.save(argparse.Namespace(figures=True), benchmark, rows, parts)


def test_the_pages_of_the_repository_say_what_the_data_say():
    for page in results.PAGES:
        text = page.read_text("utf-8")
        assert results.filled(text) == text, "python benchmarks/results.py --pages writes it anew"
    assert results.check() == 0


def test_every_row_of_the_repository_says_where_it_comes_from():
    for benchmark in figures.benchmarks():
        for row in figures.read(benchmark):
            assert row.command and row.machine and row.date and row.commit, row.name
            assert row.carried or row.code, row.name
            assert all(isinstance(found["value"], (int, float, str)) for found in row.figures.values())


def test_a_row_is_read_as_it_was_saved_with_its_code_date_and_machine(folder):
    save("suite", Row("hands, auto", {"int8": figure(0.95, 0.9, 1.0)}, [0, 1], 61, "python suite.py"))
    [row] = figures.read("suite")
    assert row.figures == {"int8": {"value": 0.95, "interval": [0.9, 1.0]}}
    assert (row.seeds, row.clips, row.command) == ([0, 1], 61, "python suite.py")
    assert set(row.code) == {"video.py"} and len(row.code["video.py"]) == 8
    assert row.date.startswith("20") and row.machine and not row.carried


def test_without_the_option_nothing_is_written(folder):
    figures.save(argparse.Namespace(figures=False), "suite", [Row("hands", {})], ["video.py"])
    assert figures.benchmarks() == []


def test_a_row_takes_the_place_of_the_one_of_its_name_and_of_what_was_carried_over_until_it_came(folder):
    old = Row("hands, 2 of 5 folds", {"int8": figure(0.8)}, carried="from a page", until="hands, 5 folds")
    figures.write("suite", [Row("feet", {"int8": figure(0.1)}), old])
    save("suite", Row("feet", {"int8": figure(0.2)}))
    assert [row.name for row in figures.read("suite")] == ["feet", "hands, 2 of 5 folds"]
    assert figures.read("suite")[0].figures["int8"]["value"] == 0.2
    save("suite", Row("hands, 5 folds", {"int8": figure(0.9)}))
    assert [row.name for row in figures.read("suite")] == ["feet", "hands, 5 folds"]


def test_a_row_is_old_when_what_runs_has_changed_and_not_when_a_comment_has(folder):
    module = folder / "src" / "vidlet" / "video.py"
    save("decode", Row("clip", {}))
    module.write_text('"""Says it otherwise."""\n\n\ndef read():\n    # the first\n    return 1\n', "utf-8")
    figures.part_hash.cache_clear()
    assert figures.read("decode")[0].changed() == []
    module.write_text("def read():\n    return 2\n", "utf-8")
    figures.part_hash.cache_clear()
    assert figures.read("decode")[0].changed() == ["video.py"]
    assert [line for line in results.stale() if "video.py changed since" in line]


def test_a_hash_of_a_folder_sees_every_file_of_it_and_its_name(folder):
    room = folder / "src" / "vidlet" / "room"
    room.mkdir()
    (room / "a.toml").write_text("a = 1 # kept\n", "utf-8")
    first = figures.part_hash("room")
    (room / "a.toml").rename(room / "b.toml")
    figures.part_hash.cache_clear()
    assert figures.part_hash("room") != first


def test_nested_results_become_a_row_for_each_object_that_holds_numbers():
    found = figures.rows_of({"clip": {"ours": {"ms": 1.5, "none": None, "samples": [1, 2]}, "seconds": 3}})
    assert [(row.name, dict(row.figures)) for row in found] == [
        ("clip", {"seconds": {"value": 3}}),
        ("clip, ours", {"ms": {"value": 1.5}}),
    ]


def test_a_table_has_intervals_and_marks_what_was_carried_over(folder):
    about = {"machine": "a machine", "date": "2026-01-02T03:04", "commit": "abc"}
    figures.write("suite", [
        Row("hands", {"int8": figure(0.951, 0.9, 1.0), "bytes": figure(1234)}, [0], 61, "python suite.py", **about),
        Row("feet", {"int8": figure(0.5)}, [0], 61, "python suite.py", **about, carried="it had stood here."),
    ])  # fmt: skip
    table = Table("suite", (("set", name), ("int8", share("int8")), ("bytes", count("bytes"))))
    assert table.text().splitlines() == [
        "| set | int8 | bytes |",
        "|---|---|---|",
        "| hands | 95.1 [90.0, 100.0] | 1,234 |",
        "| feet † | 50.0 |  |",
        "",
        "`python suite.py`: 2026-01-02, 1 seed, a machine, version abc.<br>",
        "† it had stood here.",
    ]


def test_a_spread_table_has_one_row_for_what_has_the_same_word():
    rows = [Row(f"{data}, own, gru", {"int8": figure(value)}) for data, value in (("hands", 0.1), ("feet", 0.2))]
    [row] = tables.spread(rows, 2, 0)
    assert share("hands: int8")(row) == "10.0" and share("feet: int8")(row) == "20.0"


def test_the_longest_not_run_comes_first_and_what_is_new_or_lacks_its_data_is_left_out(folder, capsys, monkeypatch):
    monkeypatch.setattr(results, "ROOT", folder)
    runs = [Run("a", "python a.py", 5), Run("b", "python b.py", 40), Run("c", "python c.py", 30),
            Run("d", "python d.py", 1, ("absent",))]  # fmt: skip
    dated = {"date": "2026-01-01T00:00", "code": {"video.py": "of old"}}
    figures.write("a", [Row("a", {}, command="OMP_NUM_THREADS=1 python a.py", **dated)])
    save("c", Row("c", {}, command="python c.py"))
    assert [run.benchmark for run in results.due(runs, [], False, False)] == ["b", "a"]
    assert [run.benchmark for run in results.due(runs, [], True, True)] == ["b", "a"]  # c does not fit into the hour
    assert [run.benchmark for run in results.due(runs, ["c"], True, False)] == ["c"]
    assert "absent is not here: python d.py" in capsys.readouterr().out


def test_a_run_is_a_process_with_its_settings_that_is_asked_for_its_figures(folder, monkeypatch):
    monkeypatch.setattr(results, "ROOT", folder)
    script = folder / "say.py"
    script.write_text("import json, os, sys; open('said', 'w').write(json.dumps([sys.argv[1:], os.environ['N']]))\n")
    assert Run("say", "N=1 python say.py --rounds 2", 1).start() == 0
    assert json.loads((folder / "said").read_text()) == [["--rounds", "2", "--figures"], "1"]


def test_every_benchmark_that_is_run_is_a_script_that_keeps_figures():
    for run in results.RUNS:
        script = ROOT / results.plain(run.command).split()[1]
        assert "add_option(" in script.read_text("utf-8"), run.command
        assert f'"{run.benchmark}"' in script.read_text("utf-8"), run.command


def test_the_command_of_a_row_holds_no_path_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = Path(figures.__file__).parent / "speed" / "browser.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--figures", "--runtime", str(tmp_path / "web"), "../shared/data/a"])
    assert figures.running() == "python benchmarks/speed/browser.py --runtime web ../shared/data/a"


def test_every_row_of_the_repository_is_renewed_by_a_command_that_make_results_runs():
    commands = {results.plain(run.command) for run in results.RUNS}
    for benchmark in figures.benchmarks():
        for row in figures.read(benchmark):
            assert row.carried or results.plain(row.command) in commands, (benchmark, row.name, row.command)


def test_no_table_of_the_page_of_performance_is_written_by_hand():
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert "|---" not in results._BLOCK.sub("", page)


def test_a_listing_shows_the_first_lines_of_each_paragraph_of_what_a_command_printed(folder):
    about = {"machine": "a machine", "date": "2026-01-02T03:04", "commit": "abc", "command": "python tour.py"}
    figures.write("tour", [Row("vidlet x", {"says": figure("one\ntwo\n\nthree\nfour\nfive\n\nsix")}, **about)])
    said = tables.Listing("tour", "vidlet x", (2, 1)).text()
    assert said.splitlines() == ["```", "$ vidlet x", "one", "two", "", "three", "...", "```"]
    whole = tables.Listing("tour", "vidlet x", origin=True).text().splitlines()
    assert whole[1:9] == ["$ vidlet x", "one", "two", "", "three", "four", "five", ""]
    assert whole[-1] == "`python tour.py`: 2026-01-02, a machine, version abc."
    assert tables.Listing("tour", "vidlet y").text() == "Not measured yet.\n"


def test_a_process_that_goes_before_others_says_so(monkeypatch):
    monkeypatch.setattr(figures.os, "getpriority", lambda which, who: -10, raising=False)
    assert ", nice -10" in figures.machine()
    monkeypatch.setattr(figures.os, "getpriority", lambda which, who: 0, raising=False)
    assert "nice" not in figures.machine()


def test_the_version_of_a_row_is_the_last_commit_that_changed_the_package(folder):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    if shutil.which("git") is None:
        pytest.skip("no git")
    git("init", "-q")
    git("add", "src")
    git("commit", "-qm", "the package")
    first = git("rev-parse", "--short=7", "HEAD").strip()
    (folder / "page.md").write_text("a page", "utf-8")
    git("add", "page.md")
    git("commit", "-qm", "a page")
    assert figures.commit() == first
    (folder / "src" / "vidlet" / "video.py").write_text("def read():\n    return 3\n", "utf-8")
    assert figures.commit() == f"{first}+"
