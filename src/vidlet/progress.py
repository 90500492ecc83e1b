"""What a person is told while work goes on, on standard error: a bar in a terminal or a notebook, else lines.

Every long piece of work stands inside of ``bar`` (whose items can be counted) or ``working`` (whose cannot). Where
standard error is no terminal, the innermost of those under way says a line once nothing was said for ``EVERY_S``
seconds, whether it moves or not: "features 120/400, 31/s, 9 s left". While a library holds the interpreter, as
torch does for seconds when it is loaded, a second process says it. What takes long tells about how long, once, as soon
as its rate is measured. Processes that work for another one are silent.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from .wording import shown, shown_lines

EVERY_S = 4.0  # between two lines where there is no bar: no silence is longer than five seconds
LOOK_S = 0.5  # how often it is looked whether a line is due
STDERR = 2  # the descriptor, to which what is not Python writes
REMARK = re.compile(rb"(\x1b\[[\d;]*m)*(INFO|WARNING): |.*\[[VIW]:onnxruntime:|[IW]\d{4} \d")
FIRST_SPEAKS_S = 20.0  # in which the first of several processes has said what is wrong in all
MEASURED_S = 3.0  # after which a rate is believed
LONG_S = 20.0  # what takes longer tells about how long it takes

_meters: list[_Meter] = []  # what is under way, the innermost last
_beat: threading.Thread | None = None
_busy = threading.Event()  # something is under way
_hushed = False  # only how far the work is, is told
_said_s = 0.0  # when the last line was said, of time.monotonic()
_ended_s = 0.0  # when the last work ended
PAUSE_S = 1.0  # work that begins so soon behind another goes on with its silence


class Move(Protocol):
    """How far a piece of work is: so many items done of so many, and what else is worth telling."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def bar(text: str, unit: str = "clip", measured: int = 1, most: bool = False) -> Iterator[Move]:
    """Yield a function (done, total, note) that moves a bar.

    Args:
        measured: so many items tell how long all of them take, as the batches of an epoch.
        most: it may end before the last item.
    """
    meter = _Meter(text, unit, measured=measured, most=most)
    with _under_way(meter):
        yield meter.move


@contextmanager
def working(text: str, plain_only: bool = False) -> Iterator[None]:
    """Show that work goes on whose length nobody knows, and for how long it has.

    Args:
        plain_only: nothing is shown in a terminal, where what goes on inside shows bars of its own.
    """
    with _under_way(_Meter(text, "", plain_only)):
        yield


@contextmanager
def hushed() -> Iterator[None]:
    """What ``say`` is asked to tell is left out: a step of something larger. How far it is, is shown as ever."""
    global _hushed  # noqa: PLW0603
    before, _hushed = _hushed, True
    try:
        yield
    finally:
        _hushed = before


@contextmanager
def without_remarks() -> Iterator[None]:
    """Leave out what libraries remark on standard error past Python; whatever else they say is passed on at the end.

    A remark is a line of the level INFO or WARNING, in the forms of TensorFlow Lite, of ONNX Runtime and of glog. The
    descriptor is held for all of the process: inside of this belongs what takes a moment.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(STDERR)
    except (OSError, ValueError, AttributeError):  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not REMARK.match(line):
                    os.write(STDERR, line)


def say(line: str) -> None:
    """A line for the person, on standard error; what names in it would do to a terminal is escaped."""
    if not _hushed and not follows():
        _tell(line)


def _tell(line: str) -> None:
    global _said_s  # noqa: PLW0603
    text = shown_lines(line)
    if any(meter.drawn is not None for meter in list(_meters)):
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)  # the bars step aside
        sys.stderr.flush()
    else:
        sys.stderr.write(f"{text}\n")  # at once: two processes may speak
        sys.stderr.flush()
    _said_s = time.monotonic()
    _stand_in.tell(begin=False)


def megabytes(size: int) -> str:
    """Bytes for people: 941,000 -> "941 kB", 3,400,000 -> "3.40 MB" (10^6)."""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB" if size >= 1000 else f"{size} bytes"


def duration(seconds: float) -> str:
    """Seconds for people: "9 s", "4 min", "2 h 5 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Meter:
    """One piece of work: how far it is, and how that is shown."""

    def __init__(self, text: str, unit: str, plain_only: bool = False, measured: int = 1, most: bool = False) -> None:
        self.text, self.unit, self.note = text, unit, ""
        self.plain_only, self.measured, self.most, self.foretold = plain_only, measured, most, False
        self.began_s = time.monotonic()
        self.done = self.total = 0
        self.first: tuple[float, int] | None = None  # when it first moved, and how far it was then (--resume)
        self.drawn: Any = None if plain_only else _drawn(shown_lines(text), unit)

    def move(self, done: int, total: int, note: str = "") -> None:
        self.done, self.total, self.note = done, total, note or self.note
        self.first = self.first or (time.monotonic(), done)
        if self.drawn is not None:
            if self.drawn.total != total:
                self.drawn.reset(total)
            if note:
                self.drawn.set_postfix_str(shown_lines(note), refresh=False)
            self.drawn.update(done - self.drawn.n)
        if not self.foretold:
            self._foretell()

    def _foretell(self) -> None:
        """Say about how long all of it takes, as soon as that is known by measuring, if that is long."""
        first_s, first = self.first or (0.0, 0)
        passed, moved = time.monotonic() - first_s, self.done - first
        if passed < MEASURED_S or moved < self.measured or not self.total:
            return
        self.foretold = True
        each, left = passed / moved, self.total - self.done
        if self in _meters and each * (moved + left) >= LONG_S and left:
            about = f"{'at most' if self.most else 'about'} {duration(each * left)} more"
            say(f"{self.text}: {about}, {left} of {self.total} are left at {_each(1 / each)}")

    def line(self) -> str:
        """The state in a few words."""
        now = time.monotonic()
        if not self.total:
            return f"{self.text}, {duration(now - self.began_s)}"
        parts = [f"{self.text} {self.done}/{self.total}", *([self.note] if self.note else [])]
        first_s, first = self.first or (now, self.done)
        if self.done > first and now > first_s:
            rate = (self.done - first) / (now - first_s)
            parts += [_each(rate), f"{duration((self.total - self.done) / rate)} left"]
        else:
            parts.append(duration(now - self.began_s))
        return ", ".join(parts)

    def name(self) -> str:
        """What it is, and how far."""
        return f"{self.text} {self.done}/{self.total}" if self.total else self.text


def _each(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 9.5 else f"{rate:.1f}/s" if rate >= 0.95 else f"{1 / rate:.1f} s each"


STAND_IN = """
import os, sys, threading, time
every_s, state = float(sys.argv[1]), ["0", "0", ""]
def read():
    while told := os.read(0, 65536):
        state[:] = told.decode(errors="replace").split("\\n")[-2].split(" ", 2)
    os._exit(0)
threading.Thread(target=read, daemon=True).start()
parent, said_s = os.getppid(), 0.0
while os.getppid() == parent:
    told_s, began_s, text = state
    now = time.monotonic()
    due_s = max(float(told_s), said_s) + every_s
    if text and now >= due_s:
        os.write(2, f"{text}, {now - float(began_s):.0f} s\\n".encode())
        said_s = now
    time.sleep(min(max(due_s - now, 0.1), 1))
"""


class _StandIn:
    """A process that says a line where this one cannot: no thread of it runs while a library holds the interpreter."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._told = b""
        self._lock = threading.Lock()

    def tell(self, begin: bool = True) -> None:
        """Let it know what is under way, and when a line was said last; it begins with that."""
        if _works_for_another() or not self._lock.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if self._process is None and begin and _meters:
                    self._begin()
                meter = _meters[-1] if _meters else None
                told = f"{_said_s:.2f} {meter.began_s:.2f} {shown(meter.name())[:500]}\n" if meter else "0 0 \n"
                if self._process is not None and told.encode() != self._told:
                    self._told = told.encode()
                    os.write(self._process.stdin.fileno(), self._told)  # type: ignore[union-attr]
        finally:
            self._lock.release()

    def _begin(self) -> None:
        """Start it, where standard error is that of the system, and no terminal."""
        if _looks_on() or sys.stderr.fileno() != STDERR or not Path(sys.executable).name.startswith("python"):
            return
        words = [sys.executable, "-I", "-S", "-c", STAND_IN, str(EVERY_S + LOOK_S)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )
        os.set_blocking(self._process.stdin.fileno(), False)  # type: ignore[union-attr]

    def end(self) -> None:
        """End it: nothing is under way."""
        with self._lock:
            if self._process is not None and not _works_for_another():
                self._process.kill()
                self._process.stdin.close()  # type: ignore[union-attr]
                self._process.wait()
            self._process, self._told = None, b""


_stand_in = _StandIn()


@contextmanager
def _under_way(meter: _Meter) -> Iterator[None]:
    global _beat, _said_s, _ended_s  # noqa: PLW0603
    if _works_for_another():
        yield
        return
    if not _meters and time.monotonic() - _ended_s > PAUSE_S:
        _said_s = time.monotonic()
    _meters.append(meter)
    _busy.set()
    if _beat is None or not _beat.is_alive():
        _beat = threading.Thread(target=_watch, name="vidlet-progress", daemon=True)
        _beat.start()
        atexit.register(_stand_in.end)
    _stand_in.tell(begin=not meter.plain_only)
    try:
        yield
    finally:
        _meters.remove(meter)
        _ended_s = time.monotonic()
        _stand_in.tell(begin=False)
        if meter.drawn is not None:
            meter.drawn.close()


def _watch() -> None:
    """Say a line of the innermost work whenever nothing was said for long; draw anew what has no steps of its own."""
    while True:
        if not _meters:
            _busy.clear()
            if not _meters:
                _stand_in.end()
                _busy.wait()
        time.sleep(min(LOOK_S, EVERY_S / 4))
        for meter in _meters[-1:]:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the work goes on
                if meter.drawn is not None:
                    meter.drawn.refresh()
                elif not _looks_on() and time.monotonic() - _said_s >= EVERY_S:
                    _tell(meter.line())
        _stand_in.tell()


def _looks_on() -> bool:
    """Whether a person sees bars: standard error is a terminal, or this is a notebook."""
    return _in_notebook() or bool(getattr(sys.stderr, "isatty", bool)())


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def _works_for_another() -> bool:
    """Whether this is a process of a pool, or follows another one: that one speaks for it."""
    import multiprocessing

    return multiprocessing.parent_process() is not None or follows()


def started_by_torchrun() -> bool:
    """Whether torchrun started this process and others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def follows() -> bool:
    """Whether this is one of the processes that torchrun started, and not the first, which speaks for all."""
    return started_by_torchrun() and os.environ.get("RANK") != "0"


def let_the_first_speak() -> None:
    """Before one of several processes says what is wrong: the first says it, and torchrun ends this one meanwhile."""
    if follows():
        time.sleep(FIRST_SPEAKS_S)


def _drawn(text: str, unit: str) -> Any:
    """A bar of tqdm, in a notebook its own kind; None where nobody sees bars."""
    if not _looks_on():
        return None
    if _in_notebook():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets it is a bar of letters
            from tqdm.auto import tqdm
    else:
        from tqdm import tqdm

        _own_lock()
    look = {} if unit else {"bar_format": "{desc} {elapsed}"}
    return tqdm(desc=text, unit=unit or "it", file=sys.stderr, leave=False, **look)


@functools.cache
def _own_lock() -> None:
    """Give tqdm a lock of this process; its own is the system's, and a process that is ended leaves it behind."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())
