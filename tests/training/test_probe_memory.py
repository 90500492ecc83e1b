"""Solving a probe takes the memory of its landmarks once, and of no more clips than that; results are the same."""

import os
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vidlet.models.probe import Probe
from vidlet.selection import Pool
from vidlet.selection.candidates import probe as candidate
from vidlet.selection.measure import _products, measure_probes
from vidlet.training import FeatureClips, probes
from vidlet.training.linear import solve
from vidlet.training.probes import describe, ground_of, scaled, scaled_, solve_probe_

SHAPE = (24, 4, 4)


def clips_of(count: int, classes: int = 4, shape: tuple[int, ...] = SHAPE) -> FeatureClips:
    """Clips that are drawn when they are read, of classes in turn."""
    ways = np.random.default_rng(0).normal(size=(classes, *shape)).astype(np.float32)

    def read(index: int) -> np.ndarray:
        x = np.random.default_rng(index).standard_normal((2 + index % 4, *shape), np.float32)
        return (x + 0.3 * ways[index % classes]).astype(np.float16)

    targets = np.eye(classes, dtype=np.float32)[np.arange(count) % classes]
    return FeatureClips(read, targets, [""] * count, np.ones(shape[0], np.float32))


def plainly_scaled(values: np.ndarray, whiten: float) -> tuple[np.ndarray, ...]:
    """The formula, with a copy a line."""
    center, spread = values.mean((0, 1)), values.std((0, 1))
    gain = np.where(spread > 1e-6, np.maximum(spread, 1e-6) ** -whiten, 0).astype(np.float32)
    vectors = ((values - center) * gain).reshape(len(values), -1)
    middle = vectors.mean(0)
    vectors = vectors - middle
    length = float(np.sqrt(np.square(vectors).sum(1).mean()))
    return vectors / length, center, gain / length, middle / length


@pytest.mark.parametrize("rows, numbers", [(1, 5), (3, 1023), (8, 4097)])
@pytest.mark.parametrize("whiten", [1.0, 0.3])
def test_in_place_and_in_blocks_statistics_are_scaled_as_by_the_formula_to_the_bit(monkeypatch, rows, numbers, whiten):
    monkeypatch.setattr(probes, "COPIED", 270 * rows * 100)
    values = np.random.default_rng(0).normal(3, 5, (270, rows, numbers)).astype(np.float32)
    values[..., 0] = 1
    expected = plainly_scaled(values, whiten)
    before = values.copy()
    found = scaled(values, whiten)
    np.testing.assert_array_equal(values, before)
    wide = np.zeros((270, rows * numbers + 7), np.float32)  # beside others, as landmarks lie
    part = wide[:, 3 : 3 + rows * numbers].reshape(270, rows, numbers)
    part[:] = values
    for own in (found, scaled_(part, whiten)):
        for value, wanted in zip((own.vectors, own.center, own.gain, own.middle), expected, strict=True):
            np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(wide[:, 3:-4], expected[0])


def test_directions_that_lie_on_disk_meanwhile_are_the_same(monkeypatch):
    clips, found = clips_of(200), []
    monkeypatch.setattr(probes, "LANDMARKS", 60)
    monkeypatch.setattr(probes, "LEAST_LANDMARKS", 60)
    for aside in (1e9, 1000):
        monkeypatch.setattr(probes, "ASIDE", aside)
        probe = Probe(SHAPE, 4, "mean+segments", strength=1e-2).eval()
        solve_probe_(probe, clips, False)
        found.append(probe.classify.weight.detach().numpy())
    np.testing.assert_array_equal(found[0], found[1])


def _refuse(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("trouble", ["no room", "no folder", "no file", "full while it is written"])
def test_where_the_disk_has_no_room_what_would_lie_there_stays_in_memory(monkeypatch, tmp_path, trouble):
    clips, found = clips_of(200), []
    monkeypatch.setattr(probes, "LANDMARKS", 60)
    monkeypatch.setattr(probes, "LEAST_LANDMARKS", 60)
    monkeypatch.setattr(probes, "ASIDE", 1000)
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    for cause in ("", trouble):
        if cause == "no room":
            monkeypatch.setattr(probes.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
        elif cause == "no folder":
            (tmp_path / "file").write_bytes(b"")
            monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "file"))
        elif cause == "no file":
            monkeypatch.setattr(probes, "TemporaryFile", _refuse)
        elif cause:
            monkeypatch.setattr(probes.np, "save", _refuse)
        probe = Probe(SHAPE, 4, "mean+segments", strength=1e-2).eval()
        solve_probe_(probe, clips, False)
        found.append(probe.classify.weight.detach().numpy())
    np.testing.assert_array_equal(found[0], found[1])


def test_weights_by_landmarks_are_those_by_directions(monkeypatch):
    """Before their directions are asked for landmarks give the weights in float64, after that directions of float32."""
    clips = clips_of(80)
    probe = Probe(SHAPE, 4, "mean+segments").eval()
    ground = ground_of(probe, clips)
    weights = np.random.default_rng(0).normal(size=(ground.size + 1, 4))
    found = []
    for _ in range(2):
        ground.put_into_(probe, weights)
        found.append(probe.classify.weight.detach().numpy().copy())
        z = np.concatenate([own for _, own in ground.of_clips(probe, clips, lambda x: x)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6 * np.abs(found[0]).max())
    np.testing.assert_allclose(z, ground.z, atol=1e-3 * np.abs(ground.z).max())  # the last directions are rounding


def test_the_loss_of_clips_in_blocks_is_that_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 20)) * np.linspace(0.1, 3, 20)
    z -= z.mean(0)
    targets = np.eye(5)[(z[:, :5] + rng.normal(size=(500, 5))).argmax(1)]
    for several in (False, True):
        whole = solve(z, np.square(z).sum(0), targets, 1e-2, several)
        with monkeypatch.context() as patch:
            patch.setattr("vidlet.training.linear.LOGITS", 5 * 64)
            parts = solve(z, np.square(z).sum(0), targets, 1e-2, several)
        np.testing.assert_allclose(parts, whole, atol=1e-7)
    np.testing.assert_array_equal(solve(z, np.square(z).sum(0), targets.astype(np.float32), 1e-2, True), whole)


def peak_of(work) -> float:
    """The most that NumPy holds while something is done, in MB."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("squares", [0.0, 8.0], ids=["cross-entropy", "least squares"])
def test_a_probe_of_many_clips_is_solved_in_the_memory_of_its_landmarks(monkeypatch, squares):
    monkeypatch.setattr(probes, "LANDMARKS", 200)
    monkeypatch.setattr(probes, "CHUNK", 20)
    monkeypatch.setattr(probes, "COPIED", 1e5)
    monkeypatch.setattr("vidlet.training.linear.ITERATIONS", 5)
    statistics, peaks = "segments+steps+deviation", []
    for count in (200, 400, 1200):
        clips = clips_of(count)
        probe = Probe(SHAPE, 4, statistics, squares=squares).eval()
        peaks.append(peak_of(lambda clips=clips, probe=probe: solve_probe_(probe, clips, False)))
    landmarks = 200 * 16 * 384 * 4 / 1e6  # 4.9 MB
    coordinates = 200 * 4 / 1e6  # MB a clip, of which least squares keep none
    assert peaks[0] < 2 * landmarks
    assert peaks[2] < peaks[1] + 800 * (0 if squares else 1.5 * coordinates) + 0.5


def pool_of(count: int) -> Pool:
    clips = clips_of(count)
    held = [np.arange(count) % 3 == fold for fold in range(3)]
    return Pool(clips, clips.targets.astype(np.float64), {"block": (0, SHAPE)}, held)


def test_candidates_are_measured_with_one_copy_of_their_statistics():
    count, tried = 400, [candidate("block", "segments+steps+deviation+change"), candidate("block", "middle")]
    described = count * 18 * 384 * 4 / 1e6  # 11 MB
    assert peak_of(lambda: measure_probes(pool_of(count), tried)) < 2 * described


def test_statistics_that_are_described_by_turns_give_the_same_products(monkeypatch):
    pool, tried = pool_of(60), [candidate("block", "segments+steps+deviation+change"), candidate("block", "middle")]
    whole = _products(pool, tried)
    times = []
    monkeypatch.setattr("vidlet.selection.measure.DESCRIBED", 60 * 8 * 384)
    monkeypatch.setattr(
        "vidlet.selection.measure.describe", lambda head, *rest: times.append(head.names) or describe(head, *rest)
    )
    parts = _products(pool, tried)
    assert times == [("segments",), ("steps", "deviation"), ("change", "middle")]
    assert list(parts) == list(whole)
    for name, products in whole.items():
        np.testing.assert_allclose(parts[name], products, atol=1e-6)  # fewer stretches at once: another order
    assert torch.is_grad_enabled()


SOLVE = """
    import resource, sys
    import numpy as np, torch
    from vidlet.models.probe import Probe
    from vidlet.training import FeatureClips, linear
    from vidlet.training.probes import solve_probe_

    torch.set_num_threads(1)
    linear.ITERATIONS = 3
    count, squares = int(sys.argv[1]), float(sys.argv[2])
    drawn = np.random.default_rng(0).standard_normal((64, 4, 96, 4, 4)).astype(np.float16)
    targets = np.eye(14, dtype=np.float32)[np.arange(count) % 14]
    read = lambda i: np.roll(drawn[i % 64], i // 64, axis=1)
    clips = FeatureClips(read, targets, [""] * count, np.ones(96, np.float32))
    probe = Probe((96, 4, 4), 14, "segments+steps+deviation+change", squares=squares).eval()
    solve_probe_(probe, clips, False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("squares", ["0", "8"], ids=["cross-entropy", "least squares"])
def test_the_probe_of_a_grid_of_many_clips_is_solved_in_little_more_than_a_gigabyte(squares):
    """With 26,000 numbers, as the largest that ``auto`` tries of one grid."""
    for count in map(int, os.environ.get("VIDLET_ROWS", "2000 20000").split()):
        line = [sys.executable, "-c", textwrap.dedent(SOLVE), f"{count}", squares]
        peak = float(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{count} clips: {peak:.0f} MB")
        assert peak < 1300
