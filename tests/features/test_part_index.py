"""The index of a store with many parts: it answers as the parts do, is never believed against them, and is shared."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vidlet.errors import DataError
from vidlet.features import ClipFeatures, FeatureStore, store
from vidlet.features.part_index import NAME, PartIndex, joined_index, write_index
from vidlet.features.store import Keys

SETTING = {"shape": [2], "storage": "float32"}
PARTS, ROWS = store.INDEXED_PARTS, 5


def key(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def item(number: int) -> tuple[ClipFeatures, str]:
    frames = 1 + number % 3
    return ClipFeatures(key(number), np.full((frames, 2), number, np.float32), np.arange(frames) / 4), "a.mp4"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A store of many parts without an index, as if they had been written a while ago."""
    root = tmp_path_factory.mktemp("drawn")
    found = FeatureStore(root, SETTING)
    for part in range(PARTS):
        found.write(map(item, range(part * ROWS, (part + 1) * ROWS)))
    for path in found.folder.glob("part-*"):
        os.utime(path, (1e9, 1e9))
    return root


@pytest.fixture
def folder(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "store")
    return tmp_path / "store"


def holds(found: FeatureStore, count: int) -> bool:
    whole = all((found.read(key(n)).features == n).all() and key(n) in found for n in range(count))
    return whole and len(found) == count and set(found) == {key(n) for n in range(count)} and key(count) not in found


def test_a_store_of_many_parts_is_opened_without_reading_them(folder, monkeypatch):
    first = FeatureStore(folder, SETTING)
    assert holds(first, PARTS * ROWS) and (first.folder / NAME).exists()
    read: list[str] = []
    mapped = store._mapped
    monkeypatch.setattr(store, "_mapped", lambda part, shape: read.append(part.name) or mapped(part, shape))
    again = FeatureStore(folder, SETTING)
    assert len(again) == PARTS * ROWS and key(7) in again and not read
    assert (again.read(key(7)).features == 7).all() and len(read) == 1
    assert holds(again, PARTS * ROWS) and len(read) == PARTS


def test_parts_that_came_later_are_found_and_counted_once(folder):
    FeatureStore(folder, SETTING)
    count = PARTS * ROWS
    FeatureStore(folder, SETTING).write(map(item, range(count - 2, count + 3)))  # two of them are stored already
    assert holds(FeatureStore(folder, SETTING), count + 3)
    here = FeatureStore(folder, SETTING)
    here.write([item(count + 3)])
    assert holds(here, count + 4)


def test_a_part_that_changed_or_is_gone_makes_the_index_void(folder, capsys):
    found = FeatureStore(folder, SETTING)
    first, second = sorted(found.folder.glob("part-*"))[:2]
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.unlink()
    again = FeatureStore(folder, SETTING)
    assert f"{first}: a damaged part" in capsys.readouterr().err and not first.exists()
    assert len(again) == (PARTS - 2) * ROWS


def test_a_part_that_changed_within_the_disk_s_clock_is_not_believed(folder):
    found = FeatureStore(folder, SETTING)
    part = min(found.folder.glob("part-*"))
    changed = (found.folder / NAME).stat().st_mtime - 1.0
    os.utime(part, (changed, changed))
    (found.folder / NAME).unlink()
    FeatureStore(folder, SETTING)  # writes an index, with a part of a second before
    os.utime(found.folder / NAME, (changed + 1, changed + 1))
    part.write_bytes(part.read_bytes()[:-9] + b"something")
    os.utime(part, (changed, changed))
    assert len(FeatureStore(folder, SETTING)) == (PARTS - 1) * ROWS


def test_damage_that_leaves_no_trace_is_told_by_who_reads_it_and_mended_by_the_next_run(folder):
    found = FeatureStore(folder, SETTING)
    part = min(found.folder.glob("part-*"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    os.utime(part, (1e9, 1e9))
    again = FeatureStore(folder, SETTING)
    lost = [n for n in range(PARTS * ROWS) if found._find(key(n))[0] == found._parts.index(part)]
    with pytest.raises(DataError, match=r"a damaged part of the feature store .* run this again"):
        again.read(key(lost[0]))
    assert not part.exists()
    assert len(FeatureStore(folder, SETTING)) == PARTS * ROWS - len(lost)


@pytest.mark.parametrize("content", [b"", b"ARROW1 nonsense", None])
def test_a_damaged_index_is_made_again(folder, content):
    index = FeatureStore(folder, SETTING).folder / NAME
    index.write_bytes(index.read_bytes()[:300] if content is None else content)
    assert holds(FeatureStore(folder, SETTING), PARTS * ROWS)
    assert holds(FeatureStore(folder, SETTING), PARTS * ROWS)


@pytest.mark.parametrize("change", [(1, 0), (-1, 0), (0, 1), (0, -1), (10**6, 0), (0, 10**6)])
def test_an_index_that_points_elsewhere_never_gives_another_clips_features(folder, change):
    found = FeatureStore(folder, SETTING)
    index = found._index
    moved = PartIndex(index.parts, index.keys, index.part + np.int32(change[0]), index.row + np.int32(change[1]))
    write_index(store._arrow(), found.folder, moved, store._stamps(found._parts))
    wrong = FeatureStore(folder, SETTING)
    assert len(wrong) == PARTS * ROWS
    for number in range(0, PARTS * ROWS, 7):
        with pytest.raises(DataError, match="a damaged index of the feature store is removed; run this again"):
            wrong.read(key(number))
    assert holds(FeatureStore(folder, SETTING), PARTS * ROWS)


def test_an_indexed_store_costs_no_memory_a_clip(folder):
    FeatureStore(folder, SETTING)
    tracemalloc.start()
    found = FeatureStore(folder, SETTING)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used - PARTS * 600 < 40 * len(found)  # the names of parts, and less than a key takes


def test_many_processes_open_it_while_another_writes(folder):
    script = """
        import sys
        sys.path[:0] = sys.argv[2:]
        from test_part_index import PARTS, ROWS, SETTING, FeatureStore, item, key
        if sys.argv[1] == "write":
            for part in range(PARTS, PARTS + 6):
                FeatureStore(sys.argv[2], SETTING).write(map(item, range(part * ROWS, (part + 1) * ROWS)))
        else:
            seen = 0
            for _ in range(6):
                store = FeatureStore(sys.argv[2], SETTING)
                assert len(store) >= max(seen, PARTS * ROWS), (len(store), seen)
                seen = len(store)
                for number in range(0, PARTS * ROWS, 3):
                    assert (store.read(key(number)).features == number).all()
    """
    text, places = textwrap.dedent(script), [str(folder), str(Path(__file__).parent)]
    begin = [sys.executable, "-c", text]
    processes = [subprocess.Popen([*begin, what, *places]) for what in ("write", "read", "read")]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert holds(FeatureStore(folder, SETTING), (PARTS + 6) * ROWS)


def test_digests_that_end_with_zeros_and_clips_that_come_again_are_found_in_the_index():
    keys = [key(n)[:60] + "0000" for n in range(9)]
    first = joined_index(["a"], None, {k: (0, row) for row, k in enumerate(keys[:6])})
    found = joined_index(["a", "b"], first, {k: (1, row) for row, k in enumerate(keys[4:])})
    assert list(found) == sorted(keys) and list(found.keys) == sorted(found.keys)
    assert [found.find(k) for k in keys] == [(0, 0), (0, 1), (0, 2), (0, 3), *((1, row) for row in range(5))]
    assert found.find("short") is None and found.find(key(0)) is None
    kept = Keys(3)
    kept[0], kept[2] = keys[1], None
    assert list(kept) == [keys[1], None, None] == kept[:] and kept[-3] == keys[1]


def test_many_clips_are_sorted_while_they_are_written_and_few_parts_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LOOSE_ROWS", 8)
    found = FeatureStore(tmp_path, SETTING, held=2)
    for part in range(6):
        found.write(map(item, range(part * 5, part * 5 + 6)))  # the last of each comes again with the next
        assert len(found._rows) < 8 and len(found) == part * 5 + 6
    assert holds(found, 31) and len(found._batches) == 2
