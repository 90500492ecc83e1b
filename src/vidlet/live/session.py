"""A live source from begin to end, as ``predict`` has it: lines of what changes, and what follows the events in it."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, RecipeError
from ..runtime import Model
from ..video import LiveSource
from ..wording import shown
from .actions import EventActions
from .event_clips import AROUND_S, EventClips
from .events import EventRule
from .watching import LiveFigures, predict_live


@dataclass(frozen=True)
class LiveWanted:
    """What a person wants of a live source; the names of the command's options stand in messages.

    Args:
        threshold: below it nothing is named and no box is drawn; None: what the file says.
        min_s: a segment and an event last so long at least; None: a quarter of a training clip.
        save: the view as a video; with ``on`` a folder for a clip around each event.
        on: the label of events.
        above: the score from which an event begins; None: what the file says, else 0.8.
        command: run at each; webhook: an address that gets each; mqtt: a broker that gets begin and end.
        around_s: seconds before and after an event in its clip; None: 3.
        show: called with each picture of the view.
    """

    threshold: float | None = None
    min_s: float | None = None
    save: str | Path | None = None
    on: str | None = None
    above: float | None = None
    command: str | None = None
    webhook: str | None = None
    mqtt: str | None = None
    around_s: float | None = None
    show: Callable[[NDArray[np.uint8]], None] | None = None

    def check(self, live: bool) -> None:
        """Refuse what makes no sense together.

        Raises:
            RecipeError: says which options.
        """
        if self.on is None and (self.command or self.webhook or self.mqtt):
            raise RecipeError("--command, --webhook and --mqtt need --on LABEL, which says when")
        if self.on is None and self.above is not None:
            raise RecipeError("--above SCORE needs --on LABEL, whose events begin there; what is named has --threshold")
        if self.around_s is not None and not (self.on is not None and self.clips_wanted):
            raise RecipeError("--around S needs --on LABEL and --save FOLDER, where the clips go")
        if live and self.on is None and self.clips_wanted:
            raise RecipeError(f"--save {self.save}: a folder gets a clip an event of --on LABEL; the view needs a file")
        if not live and self.on is not None:
            raise RecipeError("--on LABEL is for live sources: a camera, a stream, or a file with --live")

    @property
    def clips_wanted(self) -> bool:
        """Whether ``save`` means clips in a folder; a name that ends like a file's is the view as a video."""
        if self.save is None:
            return False
        name = os.fspath(self.save)
        return Path(name).is_dir() or name.endswith(("/", os.sep)) or not Path(name).suffix


def live_lines(
    model: Model,
    source: str | int | Path,
    wanted: LiveWanted,
    say: Callable[[str], None],
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield {"time_s", "label", "score", "boxes"} whenever the answer changes, until the source ends.

    Args:
        say: told in a line of events, of a source that went away, of what failed, and how many frames were answered.
        tell: called with {"event", "time_s", "end_s", "score", "clip", "frames"} of a clip when it is written, from
            another thread; None: such lines are yielded between the others.

    Raises:
        DataError: the source cannot be opened; or at its end, something asked for did not happen (says what).
    """
    written: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    figures = LiveFigures()
    model.needs_video()
    actions = None if wanted.on is None else _actions(model, source, wanted, say)
    clips: EventClips | None = None
    if actions is not None and wanted.clips_wanted and wanted.save is not None:
        around_s = AROUND_S if wanted.around_s is None else wanted.around_s
        told = written.put if tell is None else tell
        actions.clips = clips = EventClips(
            wanted.save, model.rate_hz, around_s, _event_s(model, wanted), _brave(told), say
        )  # fmt: skip
    opened: LiveSource | None = None
    try:
        opened = LiveSource(source, wait=True, tell=say)
        if actions is not None:
            actions.start()
        lines = predict_live(
            model, opened, wanted.threshold, wanted.min_s, None if clips else wanted.save, wanted.show, figures,
            each=actions, frames=clips.push if clips else None,
        )  # fmt: skip
        with contextlib.closing(lines):
            for line in lines:
                yield line
                yield from _drained(written)
    finally:
        if opened is not None:
            opened.close()
        if actions is not None:
            actions.close()
        found = figures.to_dict()
        delay = found["delay_ms"]
        if found["frames"]:
            of_file = model.labels and not isinstance(source, int) and Path(source).is_file()
            other = "; without --live it waits for later frames, and names other segments" if of_file else ""
            say(
                f"{shown(source)}: {found['frames']} frames answered, {found['dropped']} dropped; delay p50 "
                f"{delay['p50']:.0f} ms, p95 {delay['p95']:.0f} ms{other}"
            )
    yield from _drained(written)
    if actions is not None and actions.lost:
        raise DataError(f"{shown(source)}: {', '.join(actions.lost)}")


def _drained(lines: queue.SimpleQueue[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    while not lines.empty():
        yield lines.get()


def _brave(tell: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """The same, but whoever reads no longer is found out by the main thread's next line."""

    def told(line: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            tell(line)

    return told


def event_rule(model: Model, wanted: LiveWanted) -> EventRule:
    """When an event of ``wanted.on`` begins: from the score that was asked for, else from what the file says."""
    shipped = model.threshold if "none" in model.metadata else EventRule.above
    above = shipped if wanted.above is None else wanted.above
    return EventRule(wanted.on or "", above, min_s=_event_s(model, wanted))


def _actions(model: Model, source: str | int | Path, wanted: LiveWanted, say: Callable[[str], None]) -> EventActions:
    rule = event_rule(model, wanted)
    return EventActions(model, rule, str(source), wanted.command, wanted.webhook, say, mqtt=wanted.mqtt)


def _event_s(model: Model, wanted: LiveWanted) -> float:
    """An event lasts as long as a segment must."""
    return model.median_s / 4 if wanted.min_s is None else float(wanted.min_s)
