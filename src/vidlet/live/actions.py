"""What to do when a live source shows something: a command, a webhook, a clip; once an event, never once a frame.

The command gets what happened as environment variables, never as part of its text: VIDLET_LABEL, VIDLET_SCORE,
VIDLET_TIME_S, VIDLET_SOURCE. A webhook gets the same as a JSON object. The live view does not wait for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

from ..errors import RecipeError
from ..runtime import Model, Moment
from .event_clips import EventClips
from .events import Event, EventRule, EventState, advance, finish

MOST_AT_ONCE = 4  # actions that have not finished; an event beyond them is told, and nothing is run for it
WEBHOOK_TIMEOUT_S = 10.0
LAST_WAIT_S = 10.0


class EventActions:
    """Hand it every moment of a live source; it acts once an event and remembers the events.

    Args:
        say: told in one line of every event's begin and end, and of an action that failed.
        clips: told of every event, too; ``close`` closes it.

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
    ) -> None:
        known = (*model.labels, *model.box_labels)
        if rule.label not in known:
            raise RecipeError(f"--on {rule.label}: {model.path} names {', '.join(known[:20])}")
        if webhook is not None and not webhook.startswith(("http://", "https://")):
            raise RecipeError(f"--webhook {webhook}: an address begins with http:// or https://")
        self.rule, self.source, self.command, self.webhook, self.say = rule, source, command, webhook, say
        self.clips = clips
        self.box = model.box_labels.index(rule.label) if rule.label not in model.labels else None
        self.began: list[Event] = []  # the last 1,000
        self._state, self._last_s = EventState(), 0.0
        self._running: list[threading.Thread] = []

    def __call__(self, moment: Moment) -> None:
        """One more moment."""
        self._last_s = moment.time_s
        self._state, change = advance(self.rule, self._state, moment.time_s, self._score(moment))
        if change.began:
            self.began = [*self.began, change.began][-1000:]
            self.say(f"{change.began.start_s:.2f} s  {change.began.label} begins, {change.began.score:.3f}")
            if self.clips is not None:
                self.clips.began(change.began)
            self._act(change.began)
        if change.ended:
            self._say_end(change.ended)

    def close(self) -> None:
        """The source has ended: say how the last event ended, and wait a little for what still runs."""
        last = finish(self._state, self._last_s)
        self._state = EventState()
        if last:
            self._say_end(last)
        for thread in self._running:
            thread.join(LAST_WAIT_S)
        if self.clips is not None:
            self.clips.close()

    def _say_end(self, event: Event) -> None:
        if self.clips is not None:
            self.clips.ended(event)
        self.say(f"{event.end_s:.2f} s  {event.label} ends; it began at {event.start_s:.2f} s, best {event.score:.3f}")

    def _score(self, moment: Moment) -> float:
        if self.box is None:
            return moment.scores[self.rule.label]
        if moment.boxes is None:
            return 0.0
        scores = moment.boxes[moment.boxes[:, 5] == self.box, 4]
        return float(scores.max()) if len(scores) else 0.0

    def _act(self, event: Event) -> None:
        self._running = [thread for thread in self._running if thread.is_alive()]
        about = {"source": self.source, "label": event.label, "score": event.score, "time_s": event.start_s}
        tasks: list[Callable[[], str | None]] = []
        if self.command is not None:
            command = self.command
            tasks.append(lambda: run_command(command, about))
        if self.webhook is not None:
            address = self.webhook
            tasks.append(lambda: post(address, about))
        for task in tasks:
            if len(self._running) >= MOST_AT_ONCE:
                self.say(f"{MOST_AT_ONCE} earlier actions have not finished: nothing was run for this event")
                return
            thread = threading.Thread(target=self._tell_failure, args=(task,), name="event", daemon=True)
            thread.start()
            self._running.append(thread)

    def _tell_failure(self, task: Callable[[], str | None]) -> None:
        failure = task()
        if failure:
            self.say(failure)


def run_command(command: str, about: dict[str, Any]) -> str | None:
    """Run a command of the shell to its end; what it prints goes to standard error. Return what failed, or None."""
    told = {f"VIDLET_{name.upper()}": str(value) for name, value in about.items()}
    try:
        done = subprocess.run(
            command, shell=True, env={**os.environ, **told}, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
        )
    except (OSError, ValueError) as error:
        return f"--command could not be run ({error})"
    return f"--command ended with status {done.returncode}" if done.returncode else None


def post(address: str, about: dict[str, Any]) -> str | None:
    """POST a JSON object. Return what failed, or None."""
    body = json.dumps(about).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):
            return None
    except (OSError, ValueError) as error:
        return f"--webhook {address} failed ({error})"
