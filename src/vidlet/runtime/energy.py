"""What a computation takes of energy, where the machine has a sensor: RAPL of a processor, or a board's own.

Sources: the Linux kernel's documents of powercap (energy_uj, which begins anew behind max_energy_range_uj) and of hwmon
(energyN_input in microjoules, powerN_input and powerN_average in microwatts).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = Path("/sys")
EVERY_S = 0.02  # how often power is read


@dataclass(frozen=True)
class Counter:
    """A file that counts microjoules, and where it begins anew (0: never)."""

    path: Path
    span: int = 0

    def since(self, before: int, now: int) -> int:
        """Microjoules between two readings."""
        return now - before + (self.span if now < before else 0)


@dataclass(frozen=True)
class Meter:
    """A sensor: counters of energy that are added, or files that tell power, in microwatts."""

    name: str
    counters: tuple[Counter, ...] = ()
    powers: tuple[Path, ...] = ()

    @contextmanager
    def measure(self) -> Iterator[Energy]:
        """What is taken inside the with statement."""
        used, done = Energy(), threading.Event()
        started, before = time.perf_counter(), [_number(counter.path) for counter in self.counters]
        watts: list[float] = []
        reader = threading.Thread(target=self._watch, args=(watts, done), daemon=True)
        if self.powers:
            reader.start()
        try:
            yield used
        finally:
            used.seconds = time.perf_counter() - started
            done.set()
            if self.powers:
                reader.join()
                used.joules = used.seconds * sum(watts) / len(watts)
            else:
                now = [_number(counter.path) for counter in self.counters]
                parts = zip(self.counters, before, now, strict=True)
                used.joules = sum(counter.since(a, b) for counter, a, b in parts) / 1e6

    def _watch(self, watts: list[float], done: threading.Event) -> None:
        while True:
            watts.append(sum(map(_number, self.powers)) / 1e6)
            if done.wait(EVERY_S):
                return


@dataclass
class Energy:
    """Joules that were taken in so many seconds."""

    joules: float = 0.0
    seconds: float = 0.0

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds if self.seconds else 0.0


@dataclass
class Found:
    """The sensor of this machine, or why there is none."""

    meter: Meter | None = None
    reason: str = "this machine has no sensor of energy (RAPL, hwmon)"
    tried: list[Path] = field(default_factory=list)


def find_meter(system: Path = SYSTEM) -> Found:
    """The processor's counters, else a board's counters, else a board's power, as far as they may be read."""
    found = Found()
    for make in (_rapl, _board_energy, _board_power):
        if (meter := make(system, found.tried)) is not None:
            return Found(meter, "")
    if found.tried:
        found.reason = f"the sensor of energy may not be read ({found.tried[0]}): run as root, or make it readable"
    return found


def _rapl(system: Path, tried: list[Path]) -> Meter | None:
    zones = [zone for zone in sorted((system / "class" / "powercap").glob("*-rapl:*")) if zone.name.count(":") == 1]
    packages = [zone for zone in zones if not _text(zone / "name").startswith("psys")] or zones  # psys holds the others
    kept = _readable([zone / "energy_uj" for zone in packages], tried)
    counters = tuple(Counter(path, _number(path.parent / "max_energy_range_uj")) for path in kept)
    return Meter(f"RAPL, {', '.join(_text(path.parent / 'name') for path in kept)}", counters) if counters else None


def _board_energy(system: Path, tried: list[Path]) -> Meter | None:
    kept = _readable(sorted((system / "class" / "hwmon").glob("hwmon*/energy*_input")), tried)
    return Meter(_chips(kept), tuple(map(Counter, kept))) if kept else None


def _board_power(system: Path, tried: list[Path]) -> Meter | None:
    chips = sorted((system / "class" / "hwmon").glob("hwmon*"))
    each = [sorted(chip.glob("power*_input")) or sorted(chip.glob("power*_average")) for chip in chips]
    kept = _readable([path for paths in each for path in paths[:1]], tried)  # a chip's first rail is its whole
    return Meter(_chips(kept), powers=tuple(kept)) if kept else None


def _chips(paths: list[Path]) -> str:
    return f"hwmon, {', '.join(dict.fromkeys(_text(path.parent / 'name') for path in paths))}"


def _readable(paths: list[Path], tried: list[Path]) -> list[Path]:
    kept = []
    for path in paths:
        try:
            int(path.read_text())
        except (OSError, ValueError):
            if path.exists():
                tried.append(path)
            continue
        kept.append(path)
    return kept


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def energy_of(frame: Callable[[int], None], seconds: float, system: Path = SYSTEM) -> dict[str, object]:
    """``source``, ``frame_j``, ``watts`` and ``idle_w`` (nothing computed) of repeated calls; or why there is none.

    The sensor sees the whole machine: what else runs counts, too. ``frame_j`` is all of it over the calls.
    """
    found = find_meter(system)
    if found.meter is None:
        return {"source": None, "frame_j": None, "reason": found.reason}
    with found.meter.measure() as idle:
        time.sleep(min(1.0, seconds))
    calls, end = 0, time.perf_counter() + seconds
    with found.meter.measure() as used:
        while calls < 5 or time.perf_counter() < end:
            frame(calls)
            calls += 1
    return {
        "source": found.meter.name, "frame_j": used.joules / calls, "watts": used.watts, "idle_w": idle.watts
    }  # fmt: skip
