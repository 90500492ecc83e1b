"""Energy: the sensors of a machine are found, read and added up; where there is none, that is said."""

import threading
import time
from pathlib import Path

import pytest

from vidlet.cli.benchmark_command import energy_text
from vidlet.runtime.benchmark import energy_of, find_meter


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    return path


def rapl(system: Path, number: int, name: str, energy: int, span: int = 10**12) -> Path:
    zone = system / "class" / "powercap" / f"intel-rapl:{number}"
    write(zone / "name", name)
    write(zone / "max_energy_range_uj", span)
    return write(zone / "energy_uj", energy)


def test_packages_are_added_and_neither_their_parts_nor_the_whole_platform_counts_twice(tmp_path):
    first = rapl(tmp_path, 0, "package-0", 1_000_000)
    second = rapl(tmp_path, 1, "package-1", 5_000_000)
    platform = rapl(tmp_path, 2, "psys", 0)
    part = write(tmp_path / "class" / "powercap" / "intel-rapl:0:0" / "energy_uj", 0)
    meter = find_meter(tmp_path).meter
    with meter.measure() as used:
        for path, value in ((first, 3_000_000), (second, 6_500_000), (platform, 99_000_000), (part, 99_000_000)):
            write(path, value)
    assert used.joules == pytest.approx(3.5)
    assert used.watts == pytest.approx(3.5 / used.seconds)
    assert meter.name == "RAPL, package-0, package-1"


def test_a_counter_that_begins_anew_loses_nothing(tmp_path):
    path = rapl(tmp_path, 0, "package-0", 9_000_000, span=10_000_000)
    with find_meter(tmp_path).meter.measure() as used:
        write(path, 500_000)
    assert used.joules == pytest.approx(1.5)


def test_a_boards_power_is_averaged_over_the_time(tmp_path):
    write(tmp_path / "class" / "hwmon" / "hwmon3" / "name", "ina3221")
    path = write(tmp_path / "class" / "hwmon" / "hwmon3" / "power1_input", 4_000_000)
    write(tmp_path / "class" / "hwmon" / "hwmon3" / "power2_input", 1_000_000)  # a part of the first
    threads = threading.active_count()
    with find_meter(tmp_path).meter.measure() as used:
        time.sleep(0.06)
    assert used.watts == pytest.approx(4.0)
    assert used.joules == pytest.approx(4.0 * used.seconds)
    assert threading.active_count() == threads
    assert path.exists()


def test_joules_a_frame_are_those_of_the_calls_and_rest_is_told_apart(tmp_path):
    path = rapl(tmp_path, 0, "package-0", 0)

    def frame(turn: int) -> None:
        write(path, int(path.read_text()) + 2_000_000)

    found = energy_of(frame, 0.01, tmp_path)
    assert found["frame_j"] == pytest.approx(2.0) and found["idle_w"] == 0.0
    assert "2 J a frame" in energy_text(found) and "RAPL, package-0" in energy_text(found)


def test_a_machine_without_a_sensor_says_so(tmp_path):
    found = energy_of(lambda turn: pytest.fail("measured nothing"), 0.01, tmp_path)
    assert found["frame_j"] is None
    assert energy_text(found) == "energy: this machine has no sensor of energy (RAPL, hwmon)"


def test_a_sensor_that_may_not_be_read_is_named(tmp_path):
    path = write(tmp_path / "class" / "powercap" / "intel-rapl:0" / "energy_uj", "not a number")
    assert str(path) in find_meter(tmp_path).reason
