"""Processes begin without the script that a user runs: one without a guard works, and is refused where it is needed."""

import subprocess
import sys
import textwrap

import pytest

from vidlet import plugins
from vidlet.errors import VidletError
from vidlet.processes import processes

WORK = """
    import sys
    print("the script begins", flush=True)
    from vidlet import register_head
    from vidlet.processes import processes
    import os, time
    {more}
    with processes(1, print, "x" * {size}) as pool:
        print(sum(pool.map(abs, [-1, -2])), flush=True)
"""


def run(tmp_path, more="", size=10, guard=False):
    script = textwrap.dedent(WORK.format(more=more, size=size))
    if guard:
        head, _, rest = script.partition("with processes")
        rest = textwrap.indent("with processes" + rest, "    ")
        script = f'{head}if __name__ == "__main__":\n{rest}'
    path = tmp_path / "mine.py"
    path.write_text(script)
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["little is given", "more than a pipe holds"])
def test_a_script_that_does_not_look_at_its_name_is_run_once(tmp_path, size):
    done = run(tmp_path, size=size)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script begins") == 1 and done.stdout.endswith("3\n")


def test_where_a_script_registers_what_is_needed_it_is_run_in_each_process_and_must_look_at_its_name(tmp_path):
    more = 'register_head("mine", abs)'
    done = run(tmp_path, more)
    assert done.returncode == 1
    assert 'mine.py: put what it does under if __name__ == "__main__":' in done.stderr and "head mine" in done.stderr
    done = run(tmp_path, more, guard=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script begins") == 2 and done.stdout.endswith("3\n")


def test_what_calls_added_is_known_by_name_and_what_packages_bring_is_not_meant(monkeypatch):
    for kind in plugins.KINDS:
        monkeypatch.setitem(plugins._ADDED, kind, {})
    monkeypatch.setattr(plugins, "_CALLED", {})
    plugins._ADDED["head"]["brought"] = abs
    assert plugins.added_by_calls() == []
    plugins.register_head("mine", abs)
    plugins.register_step("rounded", abs, trains=True)
    assert plugins.added_by_calls() == ["head mine", "training-step rounded"]
    del plugins._ADDED["head"]["mine"]
    assert plugins.added_by_calls() == ["training-step rounded"]


def test_the_main_script_is_known_again_behind_that(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(plugins, "_CALLED", {})
    before = (getattr(main, "__file__", None), main.__spec__)
    with processes(1, abs, -1) as pool:
        assert pool.submit(abs, -3).result() == 3
    assert (getattr(main, "__file__", None), main.__spec__) == before


def test_a_script_that_cannot_be_read_may_look_at_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(plugins, "_CALLED", {"head mine": None})
    monkeypatch.setitem(plugins._ADDED["head"], "mine", abs)
    (tmp_path / "plain.py").write_text("print(1)")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "plain.py"), raising=False)
    with pytest.raises(VidletError, match=r"plain\.py: put what it does under"):
        processes(1, abs)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "none.py"))
    processes(1, abs).shutdown()


def test_such_a_script_is_refused_before_a_search_begins(monkeypatch, tmp_path):
    from vidlet.jobs.fit import fit

    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "1.mp4").write_bytes(b"")
    (tmp_path / "plain.py").write_text("print(1)")
    monkeypatch.setattr(plugins, "_CALLED", {"head mine": None})
    monkeypatch.setitem(plugins._ADDED["head"], "mine", abs)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "plain.py"), raising=False)
    with pytest.raises(VidletError, match=r"plain\.py: put what it does under"):
        fit(tmp_path / "clips", time=60, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
