"""The feature store: exact within its storage, read without a copy, restartable, and never stale."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pyarrow
import pyarrow.ipc
import pytest
from onnx import TensorProto, helper, numpy_helper

from vidlet.datasets import Clip, ClipTable
from vidlet.errors import ModelError
from vidlet.features import ClipFeatures, FeatureStore, clip_key, extract
from vidlet.recipe import Sampling
from vidlet.video import read_clip, write_video

extracting = import_module("vidlet.features.extract")
SIZE, RATE = (12, 16), Sampling("rate", hz=8.0)


def mean_color(scale: float = 1.0) -> bytes:
    """An extractor by hand: the mean of red, green and blue of each frame, times ``scale``."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["features"]),
    ]
    stored = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array(scale, np.float32), "scale"),
    ]
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["T", None, None, 3])]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["T", 3])]
    graph = helper.make_graph(nodes, "mean", inputs, outputs, stored)
    opset = [helper.make_opsetid("", 18)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return model.SerializeToString()


def write_clip(path: Path, seed: int, frames: int = 20) -> Path:
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, (frames, 1, 1, 3), dtype=np.uint8)
    write_video(path, np.broadcast_to(color, (frames, *SIZE, 3)), fps=10)
    return path


def table_of(*paths: Path) -> ClipTable:
    return ClipTable(tuple(Clip(path, ("a",)) for path in paths), ("a",), paths[0].parent)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"{n}.mp4", n, frames=12 + n) for n in range(6)]


@pytest.fixture
def decoded(monkeypatch):
    """The paths that extraction decodes, in order of their beginning."""
    seen: list[Path] = []

    def counting(path, *args, **kwargs):
        seen.append(Path(path))
        return read_clip(path, *args, **kwargs)

    monkeypatch.setattr(extracting, "read_clip", counting)
    return seen


def run(table, root, sampling=RATE, size=SIZE, graph=None, **options):
    return extract(table, graph or mean_color(), sampling, size, root, threads=1, **options)


def content(store: FeatureStore) -> dict[str, tuple]:
    found = [store.read(key) for key in list(store)]
    return {item.key: (item.features.tolist(), item.times_s.tolist(), item.damage) for item in found}


def test_several_threads_store_what_one_stores_in_the_order_of_the_table(clips, tmp_path):
    one = run(table_of(*clips), tmp_path / "one")
    several = extract(table_of(*clips), mean_color(), RATE, SIZE, tmp_path / "several", threads=3)
    assert content(several.store) == content(one.store)
    assert several.keys == one.keys and len(set(one.keys)) == len(clips)


def test_an_extractor_that_cannot_run_is_no_failure_of_a_clip(clips, tmp_path, monkeypatch):
    whole = extracting.open_session

    def failing(*args):
        session, calls = whole(*args), []

        class Failing:
            def run(self, outputs, feeds):
                calls.append(feeds)
                if len(calls) > 1:  # the first one asks for the shape
                    raise ModelError("no memory is left")
                return session.run(outputs, feeds)

        return Failing()

    monkeypatch.setattr(extracting, "open_session", failing)
    with pytest.raises(ModelError, match="no memory is left"):
        run(table_of(*clips), tmp_path)


# What is stored.


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])
def test_features_come_back_within_the_bounds_of_their_storage(storage, tmp_path):
    rng = np.random.default_rng(0)
    stored = [
        ClipFeatures(f"{n:064}", rng.normal(3, 20, (n + 1, 2, 3, 3)).astype(np.float32), np.arange(n + 1) / 8, "x" * n)
        for n in range(5)
    ]
    store = FeatureStore(tmp_path, {"shape": [2, 3, 3], "storage": storage})
    store.write((item, f"{item.key}.mp4") for item in stored)
    for reader in (store, FeatureStore(tmp_path, {"shape": [2, 3, 3], "storage": storage})):
        assert len(reader) == 5
        for item in stored:
            found = reader.read(item.key)
            step = (item.features.max() - item.features.min()) / 255
            bound = {"float32": 0.0, "float16": 2.0**-11 * np.abs(item.features), "uint8": step / 2 * (1 + 1e-4)}
            assert (np.abs(found.features.astype(np.float32) - item.features) <= bound[storage]).all()
            assert found.features.shape == item.features.shape
            np.testing.assert_array_equal(found.times_s, item.times_s)
            assert found.damage == item.damage


def test_a_constant_clip_is_exact_in_eight_bits(tmp_path):
    store = FeatureStore(tmp_path, {"shape": [4], "storage": "uint8"})
    store.write([(ClipFeatures("k", np.full((3, 4), -7.25, np.float32), np.arange(3.0)), "a.mp4")])
    np.testing.assert_array_equal(store.read("k").features, np.full((3, 4), -7.25, np.float32))


def test_features_are_a_read_only_view_of_the_mapped_file(tmp_path):
    store = FeatureStore(tmp_path, {"shape": [256], "storage": "float16"})
    store.write([(ClipFeatures("k", np.zeros((4096, 256), np.float32), np.arange(4096.0)), "a.mp4")])
    before = pyarrow.total_allocated_bytes()
    found = FeatureStore(tmp_path, store.setting).read("k").features
    assert not found.flags.writeable
    assert not found.flags.owndata
    assert pyarrow.total_allocated_bytes() - before < 100_000  # of 2 MB
    base = found
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base.base, (pyarrow.Buffer, memoryview))


def test_any_reader_of_arrow_finds_the_columns(clips, tmp_path):
    found = run(table_of(*clips), tmp_path)
    parts = list(found.store.folder.glob("part-*.arrow"))
    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(parts[0]))).read_all()
    assert table.column_names == ["key", "path", "frames", "times_s", "damage", "scale", "low", "features"]
    assert table.column("path").to_pylist() == [str(path) for path in clips]
    row = np.array(table.column("features")[2].as_py(), np.float32).reshape(-1, 3)
    assert len(row) == table.column("frames")[2].as_py()
    np.testing.assert_array_equal(row, found.store.read(found.keys[2]).features)
    assert json.loads((found.store.folder / "spec.json").read_text()) == found.store.setting


def test_features_are_those_of_the_frames_that_read_clip_gives(clips, tmp_path):
    found = run(table_of(*clips), tmp_path, storage="float32")
    for path, key in zip(clips, found.keys, strict=True):
        sampled = read_clip(path, RATE, SIZE)
        stored = found.store.read(key)
        np.testing.assert_allclose(stored.features, sampled.frames.mean((1, 2)), atol=1e-3)
        np.testing.assert_array_equal(stored.times_s, sampled.times_s)


def test_a_clip_of_another_shape_is_refused(tmp_path):
    store = FeatureStore(tmp_path, {"shape": [4], "storage": "float16"})
    with pytest.raises(ValueError, match=r"shape \(5,\), the store holds \(4,\)"):
        store.write([(ClipFeatures("k", np.zeros((2, 5)), np.arange(2.0)), "a.mp4")])


# What is done, and what is done again.


def test_a_second_run_decodes_nothing_and_a_third_only_what_is_new(clips, tmp_path, decoded):
    assert run(table_of(*clips[:4]), tmp_path).computed == 4
    assert run(table_of(*clips[:4]), tmp_path).computed == 0
    assert sorted(decoded) == sorted(clips[:4])
    assert run(table_of(*clips), tmp_path).computed == 2
    assert sorted(decoded) == sorted(clips)


@pytest.mark.parametrize(
    "changed",
    [
        {"sampling": Sampling("rate", hz=4.0)},
        {"sampling": Sampling("uniform", frames=5)},
        {"size": (12, 12)},
        {"graph": mean_color(2.0)},
        {"storage": "uint8"},
    ],
    ids=["rate", "rule", "size", "extractor", "storage"],
)
def test_a_changed_setting_never_finds_old_features(changed, clips, tmp_path, decoded):
    first = run(table_of(*clips[:2]), tmp_path)
    second = run(table_of(*clips[:2]), tmp_path, **changed)
    assert second.computed == 2
    assert len(decoded) == 4
    assert second.store.folder != first.store.folder


def test_what_determines_no_feature_reuses_them(clips, tmp_path):
    run(table_of(*clips[:2]), tmp_path)
    assert run(table_of(*clips[:2]), tmp_path, sampling=Sampling("rate", hz=8.0, frames=3, max_frames=9)).computed == 0


def test_changed_content_under_the_old_name_is_extracted_anew_and_a_moved_file_is_not(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 1)
    first = run(table_of(path), tmp_path / "store")
    moved = path.rename(tmp_path / "b.mp4")
    assert run(table_of(moved), tmp_path / "store").computed == 0
    write_clip(moved, 2)
    second = run(table_of(moved), tmp_path / "store")
    assert second.computed == 1
    assert second.keys != first.keys


def test_parts_of_one_file_are_clips_of_their_own(clips, tmp_path):
    parts = [Clip(clips[5], ("a",), start_s=start, end_s=end) for start, end in ((None, None), (0.0, 0.5), (0.5, 1.0))]
    assert len({clip_key(part) for part in parts}) == 3
    found = run(ClipTable(tuple(parts), ("a",), clips[5].parent), tmp_path)
    assert found.computed == 3
    assert [len(found.store.read(key).times_s) for key in found.keys] == [14, 4, 4]


def test_copies_are_extracted_once_and_found_under_each_name(tmp_path, decoded):
    path = write_clip(tmp_path / "a.mp4", 1)
    copy = tmp_path / "b.mp4"
    copy.write_bytes(path.read_bytes())
    found = run(table_of(path, copy, path), tmp_path / "store")
    assert found.computed == len(decoded) == len(found.store) == 1
    assert len(set(found.keys)) == 1


def test_a_folder_of_frames_is_known_by_all_its_frames(tmp_path):
    from PIL import Image

    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(folder / f"{number}.png")
    before = clip_key(Clip(folder, ("a",)))
    assert clip_key(Clip(folder, ("a",))) == before
    Image.new("RGB", (16, 12), (9, 0, 0)).save(folder / "3.png")
    assert clip_key(Clip(folder, ("a",))) != before


def test_each_of_several_unreadable_clips_with_one_content_is_listed(clips, tmp_path):
    twins = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in twins:
        path.write_bytes(b"no video at all" * 9)
    found = run(table_of(twins[0], clips[0], twins[1]), tmp_path / "s")
    assert [path for path, _ in found.failures] == [str(path) for path in twins]
    assert all(why.startswith(f"{path}: no frame could be decoded") for path, why in found.failures)


def test_unreadable_clips_are_listed_with_their_reason_and_the_others_stored(clips, tmp_path):
    broken, absent = tmp_path / "broken.mp4", tmp_path / "absent.mp4"
    broken.write_bytes(b"no video at all" * 9)
    told: list[tuple[int, int]] = []
    found = run(
        table_of(clips[0], broken, absent, clips[1]), tmp_path / "s", progress=lambda done, n: told.append((done, n))
    )
    assert [key is None for key in found.keys] == [False, True, True, False]
    assert sorted(path for path, _ in found.failures) == [str(absent), str(broken)]
    assert all(why.startswith(f"{path}: ") and "\n" not in why for path, why in found.failures)
    assert found.computed == 2
    assert told[-1] == (4, 4)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# Damage to the store, and death in the middle.


def test_a_damaged_part_is_told_and_made_again(clips, tmp_path, capsys):
    found = run(table_of(*clips), tmp_path)
    part = next(found.store.folder.glob("part-*.arrow"))
    whole = part.read_bytes()
    before = [found.store.read(key).features.copy() for key in found.keys if key]
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        part.write_bytes(whole[:size])
        assert len(FeatureStore(tmp_path, found.store.setting)) == 0
        assert f"{part}: a damaged part of the feature store" in capsys.readouterr().err
        assert not part.exists()
    again = run(table_of(*clips), tmp_path)
    assert again.computed == len(clips)
    for key, features in zip(again.keys, before, strict=True):
        np.testing.assert_array_equal(again.store.read(key).features, features)


@pytest.mark.parametrize("sealed", [True, False])
def test_no_changed_byte_of_a_part_is_read_as_features_or_ends_the_process(clips, tmp_path, sealed):
    """Without the checksum in its name (parts of older versions) what Arrow can validate still holds."""
    found = run(table_of(*clips), tmp_path)
    part = next(found.store.folder.glob("part-*.arrow"))
    whole, rng = part.read_bytes(), np.random.default_rng(0)
    place = part if sealed else part.with_name("part-00000-00000000.arrow")
    part.rename(place)
    assert len(FeatureStore(tmp_path, found.store.setting)) == len(clips)
    for _ in range(40):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            changed[at] ^= int(rng.integers(1, 256))
        part.unlink(missing_ok=True)
        place.write_bytes(changed)
        store = FeatureStore(tmp_path, found.store.setting)
        assert not (sealed and len(store))
        for key in list(store):
            assert store.read(key).features.shape[1:] == store.shape


def test_a_full_disk_leaves_no_part_and_the_next_run_goes_on(clips, tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    setting = run(table_of(clips[0]), tmp_path).store.setting
    with monkeypatch.context() as patched:
        patched.setattr("vidlet.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run(table_of(*clips), tmp_path)
    store = FeatureStore(tmp_path, setting)
    assert len(store) == 1
    assert {path.name for path in store.folder.iterdir() if "part" in path.name} == {
        path.name for path in store.folder.glob("part-*.arrow")
    }
    assert run(table_of(*clips), tmp_path).computed == len(clips) - 1


def test_killed_with_minus_nine_and_run_again_it_holds_what_one_run_gives(clips, tmp_path):
    script = f"""
        import sys, time
        from importlib import import_module
        from pathlib import Path
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
        extracting = import_module("vidlet.features.extract")
        from test_features_store import mean_color, read_clip, run, table_of
        extracting.PART_CLIPS = 1  # a part a clip
        def slow(path, *args, **kwargs):
            time.sleep(0.15)
            return read_clip(path, *args, **kwargs)
        extracting.read_clip = slow
        run(table_of(*map(Path, {[str(p) for p in clips]!r})), Path({str(tmp_path / "killed")!r}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").glob("*/part-*.arrow"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = run(table_of(*clips), tmp_path / "killed")
    whole = run(table_of(*clips), tmp_path / "whole")
    assert 0 < resumed.computed < len(clips)
    assert resumed.keys == whole.keys
    assert content(resumed.store) == content(whole.store)
    assert content(FeatureStore(tmp_path / "killed", whole.store.setting)) == content(whole.store)
