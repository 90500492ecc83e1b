"""Records: the bytes are TensorFlow's, what goes out comes back, and damage costs what is damaged and nothing else."""

import os
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_data import shared
from vidlet.datasets import tfrecord as checksums
from vidlet.datasets.frame_record import Record, dequantize, encode_example, encode_record, parse_example, quantize
from vidlet.datasets.records import Checks, RecordSet, find_shards, read_records, write_records
from vidlet.datasets.tfrecord import read_tfrecord, write_tfrecord
from vidlet.errors import DataError

# An Example and a SequenceExample as tensorflow 2.21 wrote them (deterministic).
TENSORFLOW = bytes.fromhex(
    "5500000000000000d7df0fc10a530a0c0a02696412060a040a0261620a110a066c6162656c7312071a050a0303ac020a160a0a6d65616e5f61"
    "7564696f120812060a040000803e0a180a086d65616e5f726762120c120a0a080000003f000080bf8b2972c65d00000000000000615bbbb90a"
    "250a0f0a066c6162656c7312051a030a01070a120a08766964656f5f696412060a040a02787912340a170a05617564696f120e0a050a030a01"
    "090a050a030a01080a190a0372676212120a070a050a030102030a070a050a03040506428b6a6c"
)


def video(name="v", frames=5, labels=(1, 3), seed=0, rgb=16, audio=4):
    rng = np.random.default_rng(seed)
    sizes = {"rgb": rgb, "audio": audio}
    features = {k: rng.integers(0, 256, (frames, n), dtype=np.uint8) for k, n in sizes.items() if n}
    return Record(name, labels, features)


def same(a, b):
    return (
        a.id == b.id
        and a.labels == b.labels
        and list(a.features) == list(b.features)
        and all(
            np.array_equal(a.features[k], b.features[k]) and a.features[k].dtype == b.features[k].dtype
            for k in a.features
        )
    )


# The checksum.


def test_the_checksum_of_the_specification():
    assert checksums.crc32c_numpy(b"123456789") == checksums.crc32c(b"123456789") == 0xE3069283
    assert checksums.crc32c_numpy(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert checksums.crc32c_numpy(bytes([255] * 32)) == 0x62A8AB43


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700))
def test_the_checksum_equals_a_bitwise_division(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    assert checksums.crc32c_numpy(data) == register ^ 0xFFFFFFFF == checksums.crc32c(data)


def test_without_the_c_library_numpy_computes_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    checksums._implementation.cache_clear()
    try:
        assert checksums._implementation() is checksums.crc32c_numpy
    finally:
        checksums._implementation.cache_clear()


# Bytes.


def test_what_tensorflow_wrote_is_read(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(TENSORFLOW)
    first, second = (parse_example(data) for _, data in read_tfrecord(path))
    assert first.context["id"] == [b"ab"]
    assert first.context["labels"].tolist() == [3, 300]
    assert first.context["mean_rgb"].tolist() == [0.5, -1]
    assert first.lists == {}
    assert second.context["video_id"] == [b"xy"]
    assert second.lists["rgb"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert second.lists["audio"].tolist() == [[9], [8]]


def test_what_we_write_are_tensorflows_bytes(tmp_path):
    path = tmp_path / "a.tfrecord"
    means = {"mean_rgb": np.array([0.5, -1], np.float32), "mean_audio": np.array([0.25], np.float32)}
    frames = {"rgb": np.array([[1, 2, 3], [4, 5, 6]], np.uint8), "audio": np.array([[9], [8]], np.uint8)}
    records = [encode_record(Record("ab", (3, 300), means)), encode_record(Record("xy", (7,), frames), "video_id")]
    assert write_tfrecord(path, records) == [0, 101]
    assert path.read_bytes() == TENSORFLOW


@settings(max_examples=40, deadline=None)
@given(
    st.text(max_size=8),
    st.lists(st.integers(0, 2**62), max_size=5),
    st.integers(1, 12),
    st.integers(1, 200),
    st.integers(0, 200),
    st.booleans(),
)
def test_a_round_trip_is_exact(tmp_path_factory, name, labels, frames, rgb, audio, compressed):
    path = tmp_path_factory.mktemp("trip") / "a.tfrecord"
    records = [video(name, frames, tuple(labels), seed, rgb, audio) for seed in range(3)]
    write_records(path, records, compressed)
    assert all(same(a, b) for a, b in zip(read_records(path), records, strict=True))
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == compressed


def test_unpacked_numbers_and_frames_of_unequal_envelopes_are_read():
    unpacked = bytes.fromhex("0a180a160a066c6162656c73120c1a0a080308ac0208ffffffff0f")
    inner = b"\x08\x03\x08\xac\x02\x08\xff\xff\xff\xff\x0f"
    feature = b"\x1a" + bytes([len(inner)]) + inner
    entry = b"\x0a\x06labels\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    unpacked = b"\x0a" + bytes([len(features)]) + features
    assert parse_example(unpacked).context["labels"].tolist() == [3, 300, 2**32 - 1]
    mixed = encode_example({"id": [b"a"]}, {"rgb": [[b"ab"], [b"c"]], "two": [[b"a", b"b"]], "none": []})
    lists = parse_example(mixed).lists
    assert lists == {"rgb": [[b"ab"], [b"c"]], "two": [[b"a", b"b"]], "none": []}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_examples_are_errors_or_other_values_but_never_crashes(data):
    whole = bytearray(encode_record(video(frames=2)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(whole)))
    try:
        parse_example(bytes(whole[:cut]))
    except DataError as error:
        assert "not an Example" in str(error)


def test_quantization_is_that_of_the_data_set():
    assert quantize(np.array([-9, -2, 0, 2, 9.0])).tolist() == [0, 0, 128, 255, 255]
    codes = np.arange(256, dtype=np.uint8)
    values = dequantize(codes)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.arange(256) * 4 / 255 + 4 / 512 - 2, atol=3e-7)
    assert (quantize(values - 4 / 512) == codes).all()
    x = np.random.default_rng(0).uniform(-2, 2, 1000)
    assert np.abs(dequantize(quantize(x)) - 4 / 512 - x).max() <= 2 / 255 + 1e-6


# Damage.


@pytest.fixture
def shard(tmp_path):
    """Five videos in one file, the offset of each, and the videos."""
    records = [video(f"v{i}", 3 + i, (i,), i) for i in range(5)]
    path = tmp_path / "train0000.tfrecord"
    return path, write_records(path, records), records


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("place", "said"), [(40, "the data have a wrong checksum"), (0, "the length has a wrong checksum")]
)
def test_a_damaged_record_is_named_with_its_offset_and_the_rest_is_read(shard, place, said):
    path, offsets, records = shard
    flip(path, offsets[2] + place)
    checks = Checks()
    found = list(read_records(path, checks))
    assert [record.id for record in found] == ["v0", "v1", "v3", "v4"]
    assert all(same(a, b) for a, b in zip(found, records[:2] + records[3:], strict=True))
    assert [str(problem) for problem in checks.problems] == [f"{path}: at byte {offsets[2]}: {said}"]
    with pytest.raises(DataError, match=f"at byte {offsets[2]}: {said}"):
        list(read_records(path))


def test_a_hole_in_a_file_costs_the_records_it_touches(shard):
    path, offsets, _ = shard
    data = path.read_bytes()
    path.write_bytes(data[: offsets[1] + 30] + data[offsets[2] + 50 :])
    checks = Checks()
    assert [record.id for record in read_records(path, checks)] == ["v0", "v3", "v4"]
    assert [problem.offset for problem in checks.problems] == [offsets[1]]


def test_a_truncated_shard_gives_what_is_whole(shard):
    path, offsets, _ = shard
    for cut in (offsets[3] + 5, offsets[4] - 1, offsets[3] + 12):
        path.write_bytes(path.read_bytes()[:cut])
        checks = Checks()
        assert [record.id for record in read_records(path, checks)] == ["v0", "v1", "v2"]
        assert [problem.offset for problem in checks.problems] == [offsets[3]]
        assert "truncated" in checks.problems[0].reason


def test_a_truncated_gzip_shard_gives_what_can_be_inflated(tmp_path):
    records = [video(f"v{i}", 40, (i,), i, rgb=64) for i in range(5)]
    path = tmp_path / "a.tfrecord.gz"
    write_records(path, records, compressed=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    checks = Checks()
    assert [record.id for record in read_records(path, checks)] == ["v0", "v1", "v2"]
    assert any("compressed stream is truncated" in problem.reason for problem in checks.problems)


def test_gzip_members_one_after_the_other_are_one_file(tmp_path):
    path, other = tmp_path / "a.tfrecord.gz", tmp_path / "b.tfrecord.gz"
    write_records(path, [video("a")], compressed=True)
    write_records(other, [video("b")], compressed=True)
    path.write_bytes(path.read_bytes() + other.read_bytes())
    assert [record.id for record in read_records(path)] == ["a", "b"]


def test_a_file_of_another_kind_is_no_record(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(os.urandom(5000))
    checks = Checks()
    assert list(read_records(path, checks)) == []
    assert len(checks.problems) == 1


# Records that make no sense.


def frame(features, **context):
    names = {"id": [b"bad"], "labels": np.array([1], np.int64)} | context
    return encode_example({k: v for k, v in names.items() if v is not None}, features)


GOOD = np.zeros((3, 16), np.uint8)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame({"rgb": GOOD, "audio": GOOD[:2, :4]}), "unequal numbers of frames: 3 of rgb, 2 of audio"),
        (frame({"rgb": [], "audio": []}), "no frames"),
        (frame({"rgb": GOOD, "audio": GOOD[:, :4]}, labels=np.array([9], np.int64)), r"label 9 is outside 0\.\.4"),
        (frame({"rgb": GOOD, "audio": GOOD[:, :4]}, labels=np.array([-1], np.int64)), "label -1 is outside"),
        (frame({"rgbs": GOOD}), "no features: neither rgb nor .*; has rgbs .did you mean rgb"),
        (frame({"rgb": GOOD, "audio": GOOD[:, :5]}), "features are rgb of 16, audio of 5; expected rgb of 16, audio"),
        (frame({"rgb": GOOD}), "features are rgb of 16; expected rgb of 16, audio of 4"),
        (frame({"rgb": [[b"abc"], [b"ab"]]}), "rgb: frames of unequal size"),
        (frame({"rgb": GOOD, "audio": GOOD[:, :4]}, labels=[b"1"]), "labels are not whole numbers"),
        (frame(None, mean_rgb=np.array([np.nan], np.float32)), "mean_rgb: holds a value that is not finite"),
    ],
)
def test_a_record_that_makes_no_sense_is_named_and_nothing_else_lost(tmp_path, data, said):
    path = tmp_path / "a.tfrecord"
    offsets = write_tfrecord(path, [encode_record(video("a")), data, encode_record(video("b", seed=1))])
    checks = Checks(classes=5)
    assert [record.id for record in read_records(path, checks)] == ["a", "b"]
    assert [(p.shard, p.offset, p.id) for p in checks.problems] == [(str(path), offsets[1], "bad")]
    with pytest.raises(DataError, match=said) as caught:
        list(read_records(path, Checks(classes=5, strict=True)))
    assert f"{path}: at byte {offsets[1]}, id bad: " in str(caught.value)


def test_a_record_without_an_id_says_what_it_has(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, [frame({"rgb": GOOD}, id=None, ids=[b"x"])])
    with pytest.raises(DataError, match=r"no id: neither id nor video_id; has ids .did you mean id"):
        list(read_records(path))


def test_keys_that_nobody_reads_are_counted(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, [frame({"rgb": GOOD}, segment_scores=np.array([0.5], np.float32))] * 2)
    checks = Checks()
    assert len(list(read_records(path, checks))) == 2
    assert checks.unread == {"segment_scores": 2}


def test_the_first_300_frames_are_kept(tmp_path):
    path = tmp_path / "a.tfrecord"
    long = video(frames=310)
    write_records(path, [long])
    (found,) = read_records(path)
    assert found.frames == 300
    assert np.array_equal(found.features["audio"], long.features["audio"][:300])


# Shards.


@pytest.fixture
def folder(tmp_path):
    """Four shards of six videos each, one of them gzip."""
    for shard in range(4):
        suffix = ".gz" if shard == 2 else ""
        records = [video(f"{shard}-{i}", 2, (i,), shard * 10 + i) for i in range(6)]
        write_records(tmp_path / f"train{shard:04d}.tfrecord{suffix}", records, compressed=shard == 2)
    (tmp_path / "readme.txt").write_text("no records")
    return tmp_path


NAMES = [f"{shard}-{i}" for shard in range(4) for i in range(6)]


def test_a_folder_a_glob_and_a_list_name_the_same_shards(folder):
    assert [record.id for record in read_records(folder)] == NAMES
    assert find_shards(folder) == find_shards(str(folder / "train*")) == find_shards(sorted(folder.glob("t*")))
    with pytest.raises(DataError, match="no such file"):
        find_shards(folder / "test*.tfrecord")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no record file in it"):
        find_shards(folder / "empty")


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 24])
def test_the_parts_of_processes_are_everything_once(folder, parts):
    read = [[record.id for record in read_records(folder, part=part, parts=parts)] for part in range(parts)]
    assert sorted(name for part in read for name in part) == NAMES
    assert all(read)


def test_shuffling_is_a_permutation_that_the_seed_fixes(folder):
    def order(seed):
        return [record.id for record in read_records(folder, seed=seed, buffer=5)]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == NAMES != order(0)


def test_a_set_reads_by_number_what_reading_in_order_gives(folder):
    found = RecordSet(folder, inflated=1)
    assert found.ids == NAMES
    assert found.frames == [2] * 24
    for i in np.random.default_rng(0).permutation(24):
        assert found.read(i).id == NAMES[i]
        assert found.labels[i] == found.read(i).labels == (i % 6,)
    one = next(read_records(folder / "train0003.tfrecord"))
    assert same(found.read(18), one)


def test_a_shard_that_changed_since_it_was_listed_is_refused(shard):
    path, offsets, _ = shard
    found = RecordSet(path)
    flip(path, offsets[1] + 50)
    with pytest.raises(DataError, match=f"{path}: at byte {offsets[1]}: .* not what it was"):
        found.read(1)


def test_a_length_of_terabytes_is_not_believed(tmp_path):
    length = struct.pack("<Q", 1 << 50)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(length + struct.pack("<I", checksums.masked(checksums.crc32c(length))) + bytes(100))
    checks = Checks()
    assert list(read_records(path, checks)) == []
    assert "truncated: the record has 1125899906842624 bytes" in checks.problems[0].reason


def test_the_tennis_records_hold_what_the_array_holds():
    folder = shared("data", "thetis_tennis_features")
    rows = [line.split(",")[0] for line in (folder / "clips.csv").read_text().splitlines()[1:]]
    expected = dict(zip(rows, np.load(folder / "features.npz")["rgb"], strict=True))
    names = (folder / "classes.txt").read_text().split()
    checks = Checks(classes=12)
    found = {record.id: record for record in read_records(folder, checks)}
    assert checks.problems == []
    assert set(found) == set(expected)
    for name, record in found.items():
        assert np.array_equal(record.features["rgb"], expected[name])
        assert names[record.labels[0]] == name.split("_")[1]
