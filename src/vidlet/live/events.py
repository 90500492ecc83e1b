"""Events: what a person wants to be told of once, out of scores that come with every frame.

An event begins when a label's score reaches ``above`` and has not fallen below ``below`` for ``min_s``; it ends when
the score has stayed below ``below`` for ``min_s``. Between the two borders nothing changes (hysteresis), so that a
score that flickers around one border is one event, not many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..errors import RecipeError


@dataclass(frozen=True)
class EventRule:
    """Which label, from which score, for how long. ``below`` None: three quarters of ``above``.

    Raises:
        RecipeError: a border outside of (0, 1], ``below`` above ``above``, or a negative time.
    """

    label: str
    above: float = 0.8
    below: float | None = None
    min_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.above <= 1:
            raise RecipeError(f"--above {self.above}: a score is above 0 and at most 1")
        if not 0 < self.border <= self.above:
            raise RecipeError(f"below {self.below}: must be above 0 and at most the score that begins, {self.above}")
        if not (self.min_s >= 0 and math.isfinite(self.min_s)):
            raise RecipeError(f"an event's shortest duration must be 0 seconds or more, got {self.min_s}")

    @property
    def border(self) -> float:
        """The score below which an event ends."""
        return 0.75 * self.above if self.below is None else self.below


@dataclass(frozen=True)
class Event:
    """One event: when its score first reached the border, and its best score so far; ``end_s`` None: it goes on."""

    label: str
    start_s: float
    score: float
    end_s: float | None = None


@dataclass(frozen=True)
class EventState:
    """What is known between two frames.

    ``event`` is the candidate or, if ``told``, the event under way; ``quiet_s``: when its score fell below the border.
    """

    event: Event | None = None
    told: bool = False
    quiet_s: float | None = None


@dataclass(frozen=True)
class Change:
    """What the last frame changed: ``began``, an event to be told now; ``ended``, one that is over; or neither."""

    began: Event | None = None
    ended: Event | None = None


def advance(rule: EventRule, state: EventState, time_s: float, score: float) -> tuple[EventState, Change]:
    """The state after the score of the frame at ``time_s``, and what changed. Times ascend."""
    if state.event is None:
        if score < rule.above:
            return state, Change()
        state = EventState(Event(rule.label, time_s, score))
    assert state.event is not None
    if score < rule.border:
        if not state.told:
            return EventState(), Change()
        quiet_s = time_s if state.quiet_s is None else state.quiet_s
        if time_s - quiet_s < rule.min_s:
            return replace(state, quiet_s=quiet_s), Change()
        return EventState(), Change(ended=replace(state.event, end_s=quiet_s))
    event = replace(state.event, score=max(state.event.score, score))
    if not state.told and time_s - event.start_s >= rule.min_s:
        return EventState(event, told=True), Change(began=event)
    return EventState(event, told=state.told), Change()


def finish(state: EventState, time_s: float) -> Event | None:
    """The event that was under way when the source ended at ``time_s``, if it had been told."""
    if state.event is None or not state.told:
        return None
    return replace(state.event, end_s=time_s if state.quiet_s is None else state.quiet_s)
