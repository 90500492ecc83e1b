"""What a person is told while work goes on: bars in a terminal, lines where there is none, never a long silence."""

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from vidlet import progress
from vidlet.progress import bar, duration, megabytes, say, without_remarks, working

SLOW_TRAINING = """
    import sys, time
    from vidlet import progress
    progress.EVERY_S = 0.3
    from vidlet.cli import main
    from vidlet.tasks.clip_networks import Workshop
    from vidlet.training import loop

    def slow(function, seconds):
        def run(*args, **options):
            time.sleep(seconds)
            return function(*args, **options)
        return run

    Workshop.write = slow(Workshop.write, 3)
    loop.update = slow(loop.update, 0.4)
    sys.exit(main(sys.argv[1:]))
"""


def lines_of(words: list[str], **options) -> tuple[list[tuple[float, str]], str]:
    """(when, line) of standard error of a Python process that must succeed, and its standard output."""
    with subprocess.Popen(
        [sys.executable, "-u", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        lines = [(time.monotonic(), line.rstrip("\n")) for line in process.stderr]
        out = process.stdout.read()
    assert process.returncode == 0, lines
    return lines, out


def test_train_is_never_silent_for_long_where_nobody_sees_bars(motion_clips, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text("\n".join(line[4:] for line in SLOW_TRAINING.splitlines()))
    words = ["train", str(motion_clips), "--recipe", "tiny-grid-gru", "--epochs", "2", "--set", "batch=8"]
    lines, out = lines_of([str(script), *words, "--out", "runs/a", "--json"], cwd=tmp_path)
    times = [when for when, _ in lines]
    assert max(b - a for a, b in itertools.pairwise(times)) < 2.5, lines  # the file alone takes 3 s
    text = "\n".join(line for _, line in lines)
    assert re.search(
        r"train tiny-grid-gru: \d+ train, \d+ val, \d+ test clips of 8 classes, 2 epochs on cpu; writes", text
    )
    assert re.search(r"^train 4/8, epoch 1 of 2, validation loss [\d.]+, [\d.]+/s, \d+ s left$", text, re.M)
    assert re.search(r"^write model\.int8\.onnx, \d s$", text, re.M)
    ship, report, after = text.splitlines()[-3:]
    assert re.match(r"ship    runs/a/model(\.int8)?\.onnx \(.*model(\.int8)?\.onnx", ship)
    named = ship.split()[1].removeprefix("runs/a/")
    stands = r"([\d.]+ points .*|as accurate as) the best plain classifier"
    assert re.search(rf"^(warning: )?{re.escape(named)} is {stands}", text, re.M)
    assert (report, after) == ("report  runs/a/report.html", "next    vidlet predict runs/a VIDEO")
    assert (tmp_path / "runs/a/report.html").exists()
    assert out.startswith("{")
    assert out.count("\n") == 1


def test_what_stands_still_is_told_as_well_as_what_moves(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    with working("write the file"), bar("features") as move:
        said = ""
        for done in range(1, 200):
            move(done, 400)
            time.sleep(0.05)
            said += capsys.readouterr().err
            if " s left\n" in said:
                break
    assert re.search(r"^features \d+/400, .* s left$", said, re.M)
    assert "write the file" not in said  # the innermost speaks
    with working("write the file"):
        deadline, said = time.monotonic() + 10, ""
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
            said = capsys.readouterr().err
    assert re.search(r"^write the file, \d+ s$", said, re.M)


def test_short_work_says_nothing_where_nobody_sees_bars(capsys):
    with bar("features") as move:
        move(1, 2)
        move(2, 2)
    assert capsys.readouterr().err == ""


HOLDS = """
import ctypes
from vidlet import progress
progress.EVERY_S, progress.LOOK_S = 0.4, 0.2
held = ctypes.PyDLL(None).usleep  # what is called of it holds the interpreter, as loading a library does
with progress.bar("features") as move:
    move(3, 9)
    with progress.working("load torch"):
        held(2_500_000)
progress.say("done")
"""


def test_what_holds_the_interpreter_is_spoken_for():
    lines, _ = lines_of(["-W", "error", "-c", HOLDS])
    said = [line for _, line in lines]
    assert [re.sub(r"\d+ s$", "", line) for line in said[:3]] == ["load torch, "] * 3
    assert "done" in said  # and nothing is left behind that holds standard error open


def test_nobody_speaks_for_a_process_that_was_killed():
    code = HOLDS.replace("held(2_500_000)", "import os; os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-9, "")  # returns only once standard error is closed


def test_what_takes_long_tells_about_how_long_once_it_is_measured(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def goes(moves: int, seconds: float, **how) -> str:
        with bar("train", "batch", **how) as move:
            for done in range(moves):
                move(done, 100)
                clock[0] += seconds
        return capsys.readouterr().err

    assert goes(20, 2.0) == "train: about 3 min more, 98 of 100 are left at 2.0 s each\n"
    assert goes(20, 2.0, measured=10, most=True) == "train: at most 3 min more, 90 of 100 are left at 2.0 s each\n"
    assert goes(100, 0.1) == ""  # is soon done
    assert goes(2, 50.0, measured=10) == ""  # nothing is measured yet
    with progress.hushed():
        assert goes(20, 2.0) == ""


def test_one_work_behind_another_is_no_new_silence(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY_S", 0.6)
    said = ""
    for _ in range(12):  # each alone is too short for a line
        with working("a piece"):
            time.sleep(0.2)
        said += capsys.readouterr().err
    assert "a piece, " in said


def test_rate_and_time_left_are_worked_out_from_the_first_move(monkeypatch):
    now = iter([100.0, 110.0, 110.0, 112.0, 120.0]).__next__
    monkeypatch.setattr(progress.time, "monotonic", now)
    meter = progress._Meter("features", "clip")  # at 100
    meter.move(80, 400, "cat")  # at 110: 80 were there before
    meter.move(120, 400)
    assert meter.line() == "features 120/400, cat, 4.0/s, 70 s left"  # at 120


@pytest.mark.parametrize(("seconds", "text"), [(8.6, "9 s"), (99, "99 s"), (241, "4 min"), (7500, "2 h 5 min")])
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_few_bytes_are_no_kilobytes():
    assert [megabytes(size) for size in (1, 941_000, 3_400_000)] == ["1 bytes", "941 kB", "3.40 MB"]


def test_a_terminal_has_a_bar_and_lines_that_do_not_break_it(tmp_path):
    code = (
        "from vidlet.progress import bar, say\nwith bar('features') as move:\n move(3, 9)\n say('hello')\n move(9, 9)"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, check=False)
    os.close(theirs)
    seen = b""
    with io.FileIO(ours) as reader:
        while chunk := _read(reader):
            seen += chunk
    assert done.returncode == 0
    assert b"features:  33%" in seen
    assert re.search(rb"\rhello\r\n", seen)


def _read(reader: io.FileIO) -> bytes:
    try:
        return reader.read(4096) or b""
    except OSError:  # the other side has closed
        return b""


def test_a_notebook_gets_its_own_bar(monkeypatch):
    import types

    class ZMQInteractiveShell:
        pass

    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell))
    made = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **how: made.append(how) or FakeBar())
    with bar("features") as move:
        move(1, 2, "cat")
        say("hello")
    assert made == [{"desc": "features", "unit": "clip", "file": sys.stderr, "leave": False}]


class FakeBar:
    total, n = None, 0

    def reset(self, total):
        self.total = total

    def update(self, by):
        self.n += by

    def set_postfix_str(self, text, refresh):
        assert text == "cat"

    def refresh(self):
        pass

    def close(self):
        assert (self.n, self.total) == (1, 2)


def test_processes_of_a_pool_are_silent(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(
        "import time\nfrom concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\n"
        "from vidlet import progress\n\n"
        "def work(n):\n    progress.EVERY_S = 0.02\n    with progress.working('inside'):\n        time.sleep(0.3)\n\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:\n        list(pool.map(work, [1]))\n"
    )
    assert lines_of([str(script)], env={**os.environ, "PYTHONPATH": str(Path(progress.__file__).parents[1])}) == (
        [],
        "",
    )


def test_a_hushed_step_tells_nothing_but_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    with progress.hushed():
        say("ship this")
        with bar("train") as move:
            move(1, 2)
            time.sleep(0.4)
    say("done")
    said = capsys.readouterr().err
    assert "ship" not in said
    assert "train 1/2" in said
    assert said.endswith("done\n")


def test_remarks_of_libraries_are_left_out_and_all_else_is_told(capfd):
    said = (
        b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
        b"\x1b[0;93m2026-11-29 10:00:00 [W:onnxruntime:Default, device_discovery.cc:164] GPU device discovery failed\n"
        b"W0000 00:00:1700000000.000000 1 cpu.cc:1] slow kernels\n"
    )
    told = b"ERROR: no memory\n2026-11-29 [E:onnxruntime:, x.cc:1] refused\nE0000 00:00:17 1 cpu.cc:1] broken\nhalf"
    with pytest.raises(KeyError), without_remarks():
        os.write(2, said + told)
        raise KeyError
    assert capfd.readouterr().err == told.decode()
    os.write(2, said)  # outside of it nothing is held
    assert capfd.readouterr().err == said.decode()


def test_without_a_standard_error_there_is_nothing_to_hold(tmp_path):
    done = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$0" 2>&-', SAYS_ON_STDOUT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


SAYS_ON_STDOUT = """
from vidlet.progress import without_remarks
with without_remarks():
    print("done")
"""
