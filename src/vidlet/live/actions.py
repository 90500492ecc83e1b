"""What to do when a live source shows something: a command, a webhook, a clip; once an event, never once a frame.

The command gets what happened as environment variables, never as part of its text: VIDLET_LABEL, VIDLET_SCORE,
VIDLET_TIME_S, VIDLET_SOURCE. A webhook gets the same as a JSON object (webhook.py), a broker of MQTT begin and end
(mqtt.py). The live view waits for none of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import RecipeError
from ..runtime import Model, Moment
from ..wording import redact, shown
from .event_clips import EventClips
from .events import Event, EventRule, EventState, advance, finish
from .mqtt import Sensor
from .webhook import Outbox

MOST_AT_ONCE = 4  # commands that have not finished; an event beyond them is told, and nothing is run for it
COMMAND_S = 60.0  # that a command may take
GRACE_S = 2.0  # between the polite end and the other
LAST_WAIT_S = 10.0


class EventActions:
    """Hand it every moment of a live source, after ``start``; it acts once an event and remembers the events.

    Args:
        say: told in one line of every event's begin and end, and of an action that failed.
        clips: told of every event, too; ``close`` closes it.

    Of a model that ships a threshold a label counts only while it is the best, for the threshold may be low.

    Raises:
        RecipeError: the model does not know the label; names those it knows.
    """

    def __init__(
        self,
        model: Model,
        rule: EventRule,
        source: str,
        command: str | None = None,
        webhook: str | None = None,
        say: Callable[[str], None] = print,
        clips: EventClips | None = None,
        mqtt: str | None = None,
    ) -> None:
        known = (*model.labels, *model.box_labels)
        if rule.label not in known:
            raise RecipeError(f"--on {rule.label}: {model.path} names {', '.join(known[:20])}")
        self.rule, self.source, self.command, self.say = rule, redact(source), command, say
        self.clips = clips
        self.failed = 0  # commands that failed, or were not run
        self._stop = threading.Event()
        self._outbox = Outbox(webhook, self.source, say) if webhook is not None else None
        self._best_only = "none" in model.metadata and not model.multi_label
        self._sensor = Sensor(mqtt, self.source, rule.label, model.path.name, say) if mqtt is not None else None
        self.box = model.box_labels.index(rule.label) if rule.label not in model.labels else None
        self.began: list[Event] = []  # the last 1,000
        self._state, self._last_s = EventState(), 0.0
        self._running: list[threading.Thread] = []

    def start(self) -> None:
        """The source is there: a broker may be told so."""
        if self._sensor is not None:
            self._sensor.start()

    def __call__(self, moment: Moment) -> None:
        """One more moment."""
        self._last_s = moment.time_s
        self._state, change = advance(self.rule, self._state, moment.time_s, self._score(moment))
        if change.began:
            self.began = [*self.began, change.began][-1000:]
            self.say(f"{change.began.start_s:.2f} s  {shown(change.began.label)} begins, {change.began.score:.3f}")
            if self.clips is not None:
                self.clips.began(change.began)
            if self._sensor is not None:
                self._sensor.began(change.began)
            self._act(change.began)
        if change.ended:
            self._say_end(change.ended)

    def close(self) -> None:
        """The source has ended: say how the last event ended, and wait a little for what still runs."""
        last = finish(self._state, self._last_s)
        self._state = EventState()
        if last:
            self._say_end(last)
        ends_s = time.monotonic() + LAST_WAIT_S
        for thread in self._running:
            thread.join(max(ends_s - time.monotonic(), 0.0))
        self._stop.set()
        for thread in self._running:
            thread.join(3 * GRACE_S)
        if self._outbox is not None:
            self._outbox.close()
        if self._sensor is not None:
            self._sensor.close()
        if self.clips is not None:
            self.clips.close()

    @property
    def lost(self) -> list[str]:
        """What did not happen though it was asked for, in words."""
        counts = {
            "commands failed": self.failed,
            "events were not delivered": self._outbox.lost if self._outbox else 0,
            "messages were not delivered": self._sensor.lost if self._sensor else 0,
            "event clips could not be written": self.clips.lost if self.clips else 0,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]

    def _say_end(self, event: Event) -> None:
        if self.clips is not None:
            self.clips.ended(event)
        if self._sensor is not None:
            self._sensor.ended(event)
        self.say(
            f"{event.end_s:.2f} s  {shown(event.label)} ends; it began at {event.start_s:.2f} s, best {event.score:.3f}"
        )

    def _score(self, moment: Moment) -> float:
        if self.box is None:
            named = not self._best_only or moment.label == self.rule.label
            return moment.scores[self.rule.label] if named else 0.0
        if moment.boxes is None:
            return 0.0
        scores = moment.boxes[moment.boxes[:, 5] == self.box, 4]
        return float(scores.max()) if len(scores) else 0.0

    def _act(self, event: Event) -> None:
        about = {"source": self.source, "label": event.label, "score": event.score, "time_s": event.start_s}
        if self._outbox is not None:
            self._outbox.put(about)
        if self.command is None:
            return
        self._running = [thread for thread in self._running if thread.is_alive()]
        if len(self._running) >= MOST_AT_ONCE:
            self.failed += 1
            self.say(f"{MOST_AT_ONCE} earlier commands have not finished: nothing was run for this event")
            return
        thread = threading.Thread(target=self._run, args=(self.command, about), name="event", daemon=True)
        thread.start()
        self._running.append(thread)

    def _run(self, command: str, about: dict[str, Any]) -> None:
        try:
            failure = run_command(command, about, stop=self._stop)
        except Exception as error:  # nobody waits for this thread: it says itself what went wrong
            failure = f"--command failed ({shown(f'{type(error).__name__}: {error}')})"
        if failure:
            self.failed += 1
            self.say(failure)


def run_command(
    command: str, about: dict[str, Any], limit_s: float = COMMAND_S, stop: threading.Event | None = None
) -> str | None:
    """Run a command of the shell to its end; what it prints goes to standard error. Return what failed, or None.

    After ``limit_s`` seconds, or when ``stop`` is set, it is ended with everything that it has started.
    """
    told = {f"VIDLET_{name.upper()}": str(value).replace("\0", "\ufffd") for name, value in about.items()}
    try:
        child = subprocess.Popen(
            command, shell=True, env={**os.environ, **told}, stdin=subprocess.DEVNULL, stdout=sys.stderr,
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        return f"--command could not be run ({shown(error)})"
    ends_s = time.monotonic() + limit_s
    while child.poll() is None:
        stopped = stop is not None and stop.is_set()
        if stopped or time.monotonic() >= ends_s:
            _end(child)
            return f"--command did not end {'before the source' if stopped else f'within {limit_s:g} s'}, it was ended"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.1)
    return f"--command ended with status {child.returncode}" if child.returncode else None


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command and what it has started: first politely."""
    if not hasattr(os, "killpg"):  # Windows
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what ignored the first, though its shell is gone
