"""Features by several processes: parts that new clips do not move, merged into what one process would have made."""

import subprocess
import sys
from dataclasses import replace

import pytest
from test_features_store import RATE, SIZE, clips, mean_color, table_of, write_clip  # noqa: F401  (a fixture)

from vidlet.datasets import Clip
from vidlet.errors import DataError
from vidlet.features import FeatureStore, Shard, extract, merge_stores, store_setting
from vidlet.jobs.extract import extract as extract_job

SETTING = store_setting(RATE, SIZE, mean_color(), (3,), "float16")


def part(table, text, root):
    return extract(Shard.parse(text).of(table), mean_color(), RATE, SIZE, root)


def rows_of(store):
    return {key: store.read(key).features.tobytes() for key in store}


def test_every_clip_is_of_one_shard_and_adding_clips_moves_none(tmp_path):
    table = table_of(*(tmp_path / f"{n}.mp4" for n in range(300)))
    parts = [Shard(k, 7).of(table) for k in range(1, 8)]
    assert sorted(clip.path for shard in parts for clip in shard) == sorted(clip.path for clip in table)
    assert min(map(len, parts)) > 20
    half = table.with_clips(table.clips[::2])
    assert [clip for clip in parts[2] if clip in half.clips] == list(Shard(3, 7).of(half))


def test_intervals_of_one_video_may_be_of_different_shards(tmp_path):
    cut = [Clip(tmp_path / "a.mp4", ("a",), start_s=float(s), end_s=s + 1.0) for s in range(40)]
    table = table_of(tmp_path / "a.mp4").with_clips(cut)
    assert 0 < len(Shard(1, 2).of(table)) < 40


@pytest.mark.parametrize("own", [True, False], ids=["own folders", "one folder"])
def test_merged_shards_are_what_one_process_makes_to_the_bit(clips, tmp_path, own):  # noqa: F811
    table = table_of(*clips)
    roots = [tmp_path / (f"s{k}" if own else "all") for k in (1, 2, 3)]
    counts = [part(table, f"{k}/3", root).computed for k, root in zip((1, 2, 3), roots, strict=True)]
    assert sum(counts) == len(table)
    for _ in range(2):  # once more changes nothing
        merged = merge_stores(table, tmp_path / "all", SETTING, roots if own else [])
    assert (merged.taken, merged.twice, merged.failures) == (0, len(table) if own else 0, [])
    alone = extract(table, mean_color(), RATE, SIZE, tmp_path / "alone")
    assert rows_of(FeatureStore(tmp_path / "all", SETTING)) == rows_of(alone.store)
    assert merged.keys == alone.keys


def test_the_same_clip_from_two_shards_is_stored_once(clips, tmp_path):  # noqa: F811
    table = table_of(*clips)
    extract(table, mean_color(), RATE, SIZE, tmp_path / "a")
    part(table, "1/2", tmp_path / "b")
    merged = merge_stores(table, tmp_path / "all", SETTING, [tmp_path / "a", tmp_path / "b"])
    assert (merged.taken, merged.twice) == (6, len(Shard(1, 2).of(table)))
    assert len(FeatureStore(tmp_path / "all", SETTING)) == 6


def test_what_is_missing_or_of_another_setting_is_said(clips, tmp_path):  # noqa: F811
    table = table_of(*clips)
    part(table, "1/2", tmp_path / "a")
    missing = len(table) - len(Shard(1, 2).of(table))
    with pytest.raises(DataError, match=rf"{missing} of 6 clips are missing, the first is .*mp4: a shard did not end"):
        merge_stores(table, tmp_path / "all", SETTING, [tmp_path / "a"])
    extract(table, mean_color(), replace(RATE, hz=4.0), SIZE, tmp_path / "slow")
    with pytest.raises(DataError, match=r"slow: holds features of another setting \(sampling differ\)"):
        merge_stores(table, tmp_path / "all", SETTING, [tmp_path / "slow"])
    with pytest.raises(DataError, match="empty: holds no stored features"):
        merge_stores(table, tmp_path / "all", SETTING, [tmp_path / "empty"])


def test_a_clip_that_cannot_be_read_is_named_and_stops_no_merge(clips, tmp_path):  # noqa: F811
    table = table_of(*clips, tmp_path / "gone.mp4")
    extract(table_of(*clips), mean_color(), RATE, SIZE, tmp_path / "a")
    merged = merge_stores(table, tmp_path / "a", SETTING, [])
    assert merged.keys[-1] is None
    assert [path for path, _ in merged.failures] == [str(tmp_path / "gone.mp4")]


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/0", "-1/4", "1.5/4", ""])
def test_a_shard_that_cannot_be_is_refused(text):
    with pytest.raises(DataError, match=r"expected K/N, the number of the shard from 1 to N"):
        Shard.parse(text)


def test_the_command_makes_parts_at_once_and_merges_them(tmp_path):
    for label in ("a", "b"):
        for n in range(3):
            write_clip(tmp_path / "data" / label / f"{label}{n}.mp4", ord(label) * 10 + n)
    words = [sys.executable, "-m", "vidlet", "extract", str(tmp_path / "data"), "--recipe", "tiny-grid-gru"]
    words += ["--out", str(tmp_path / "all")]
    running = [subprocess.Popen([*words, "--shard", f"{k}/2"], stderr=subprocess.PIPE) for k in (1, 2)]
    assert [process.communicate()[1] and process.returncode for process in running] == [0, 0]
    found = extract_job(tmp_path / "data", "tiny-grid-gru", tmp_path / "all", merge=[])
    assert (found["metrics"]["clips"], found["metrics"]["computed"], found["metrics"]["taken"]) == (6, 0, 0)
    with pytest.raises(DataError, match="give one of them"):
        extract_job(tmp_path / "data", "tiny-grid-gru", tmp_path / "all", shard="1/2", merge=[])


def test_where_no_clip_can_be_read_the_command_fails(tmp_path):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "1.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"none of 2 clips can be read; first: .*no frame could be decoded"):
        extract_job(tmp_path / "data", "tiny-grid-gru", tmp_path / "store")


def test_clips_that_no_split_can_be_made_of_are_stored_all_the_same(tmp_path):
    """One person: which clips train is said later, by a table or a fold."""
    rows = ["path,label,group"]
    for number in range(4):
        write_clip(tmp_path / f"{number}.mp4", number)
        rows.append(f"{number}.mp4,{'ab'[number % 2]},one")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    found = extract_job(tmp_path, "tiny-grid-gru", tmp_path / "store")
    assert found["metrics"]["computed"] == 4 and not found["skipped"]
