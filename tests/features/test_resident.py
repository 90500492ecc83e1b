"""A store takes as little memory as its clips, however many they are: read, thinned, cut out and joined."""

import os
import subprocess
import sys
import textwrap
import tracemalloc
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from test_features_store import mean_color, table_of, write_clip

from vidlet.features import ClipFeatures, FeatureStore, extract, joined, narrowed, thinned
from vidlet.features.extract import Extracted, write_parts
from vidlet.recipe import Sampling

extracting = import_module("vidlet.features.extract")
RATE, SIZE = Sampling("rate", hz=8.0), (12, 16)
READ = """
    import sys
    from pathlib import Path
    import numpy as np
    from vidlet.features import ClipFeatures, FeatureStore, resident

    def mapped():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssFile:")[2].split()[0]) / 1000

    resident.MOST_BYTES = int(sys.argv[3])
    small = FeatureStore(sys.argv[1] + "/small", {"shape": [1], "storage": "float16"})  # loads what it needs
    small.write([(ClipFeatures("0" * 64, np.zeros((2, 1)), np.arange(2.0)), "a.mp4")])
    FeatureStore(sys.argv[1] + "/small", small.setting).read("0" * 64).features.sum(dtype=np.float64)
    begin = mapped()
    store = FeatureStore(sys.argv[1], {"shape": [int(sys.argv[2])], "storage": "float16"})
    keys, peak, total = sorted(store)[:: int(sys.argv[4])], 0, 0.0
    for _ in range(2):
        held = [store.read(key) for key in keys[:3]]
        before = [item.features.copy() for item in held]
        for key in keys:
            total += store.read(key).features.sum(dtype=np.float64)
            peak = max(peak, mapped() - begin)
        assert all(np.array_equal(item.features, copy) for item, copy in zip(held, before))
    print(peak, total)
"""


def features_of(number: int, frames: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(frames, width)).astype(np.float16)


def filled(root: Path, clips: int, frames: int, width: int, part: int, storage: str = "float16") -> Extracted:
    store = FeatureStore(root, {"shape": [width], "storage": storage})
    keys = [f"{number:064x}" for number in range(clips)]
    for begin in range(0, clips, part):
        rows = range(begin, min(begin + part, clips))
        items = [ClipFeatures(keys[i], features_of(i, frames, width), np.arange(frames) / 8) for i in rows]
        store.write((item, "a.mp4") for item in items)
    return Extracted(store, keys, [], [], clips)


def read_in_a_process(root: Path, width: int, most: int, step: int = 1) -> tuple[float, float]:
    """The most that is mapped of the store's parts while clips are read twice, in MB, and the sum of them."""
    line = [sys.executable, "-c", textwrap.dedent(READ), str(root), str(width), str(most), str(step)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    peak, total = map(float, done.stdout.split())
    return peak, total


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize("parts", [4, 80], ids=["parts", "an index"])
def test_clips_that_were_read_do_not_stay_in_memory_and_what_is_held_of_them_stays_as_it_is(tmp_path, parts):
    filled(tmp_path, 320, 16, 4096, 320 // parts)  # 42 MB
    peak, total = read_in_a_process(tmp_path, 4096, 4_000_000)
    kept, same = read_in_a_process(tmp_path, 4096, 1_000_000_000)
    assert total == same
    print(f"{peak:.1f} MB are mapped at most, {kept:.1f} where nothing is given back")
    assert peak < 20  # what is read before pages are given back, and what the system maps around it
    if kept < 36:
        pytest.skip("this system takes mapped pages back by itself")


@needs_proc
def test_a_few_clips_of_each_of_many_parts_are_read_in_little_memory_too(tmp_path):
    """With a clip the system may bring the whole of a part."""
    filled(tmp_path, 400, 16, 4096, 20)  # 52 MB in parts of 2.6 MB
    assert read_in_a_process(tmp_path, 4096, 8_000_000, 20)[0] < 20


@needs_proc
@pytest.mark.slow
def test_a_large_store_is_read_in_the_memory_of_a_small_one(tmp_path):
    clips = int(os.environ.get("VIDLET_ROWS", "20000"))
    peaks = []
    for count in (clips // 10, clips):
        filled(tmp_path / f"{count}", count, 8, 8192, 200)
        peaks.append(read_in_a_process(tmp_path / f"{count}", 8192, 1 << 27)[0])
        print(f"{count} clips, {count * 0.131:.0f} MB: {peaks[-1]:.0f} MB are mapped at most")
    assert peaks[1] < 160


def made(found: Extracted, root: Path, how: str) -> FeatureStore:
    if how == "thinned":
        return thinned(found, RATE, 2, root).store
    if how == "narrowed":
        return narrowed(found, np.arange(0, 2048, 2), (1024,), RATE, SIZE, b"narrow", root).store
    return joined([found.store, found.store], found.keys, (4096,), RATE, SIZE, b"wide", root)


@pytest.mark.parametrize("how", ["thinned", "narrowed", "joined"])
def test_what_is_made_of_stored_features_is_in_memory_in_parts(tmp_path, monkeypatch, how):
    monkeypatch.setattr(extracting, "PART_BYTES", 2_000_000)
    peaks = []
    for count in (60, 240):
        root = tmp_path / f"{count}"
        found = filled(root, count, 16, 2048, 20)  # 4 and 16 MB
        tracemalloc.start()
        store = made(found, root, how)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
        assert len(store) == count
    assert peaks[1] < peaks[0] + 1
    frames = features_of(7, 16, 2048)
    expected = {"thinned": frames[::2], "narrowed": frames[:, ::2], "joined": np.concatenate([frames, frames], 1)}
    np.testing.assert_array_equal(store.read(found.keys[7]).features, expected[how])


def test_a_clip_larger_than_a_part_is_a_part_and_nothing_is_stored_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(extracting, "PART_BYTES", 100)
    store = FeatureStore(tmp_path, {"shape": [64], "storage": "float16"})
    made = []

    def make(key: str) -> ClipFeatures:
        made.append(key)
        return ClipFeatures(key, features_of(1, 4, 64), np.arange(4) / 8)

    keys = [f"{number:064x}" for number in range(3)]
    write_parts(store, [keys[0], None, keys[0], keys[1]], make)
    write_parts(store, keys, make)
    assert made == keys
    assert len(list(store.folder.glob("part-*.arrow"))) == 3


@pytest.mark.parametrize("storage", ["float16", "float32", "uint8"])
def test_features_that_wait_to_be_stored_are_few(tmp_path, monkeypatch, storage):
    clips = table_of(*(write_clip(tmp_path / f"{n}.mp4", n) for n in range(6)))
    whole = extract(clips, mean_color(), RATE, SIZE, tmp_path / "whole", storage=storage, threads=1)
    monkeypatch.setattr(extracting, "PART_BYTES", 2 * 16 * 3 * 2)
    parts = extract(clips, mean_color(), RATE, SIZE, tmp_path / "parts", storage=storage, threads=1)
    assert len(list(whole.store.folder.glob("part-*.arrow"))) == 1
    assert len(list(parts.store.folder.glob("part-*.arrow"))) >= 3
    for key in whole.keys:
        np.testing.assert_array_equal(parts.store.read(key).features, whole.store.read(key).features)
