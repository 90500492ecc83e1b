"""The paired residual set: the mean over time is blind to its labels, what is left per word is not."""

import csv

import numpy as np
import pytest

from vidlet.datasets.frame_record import dequantize
from vidlet.datasets.records import Checks, RecordSet, read_records
from vidlet.datasets.residual import RESIDUAL, draw_video, render_residual, residual_world
from vidlet.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("residual")
    render_residual(out, 300, 40, 40, seed=0)
    return out


def test_the_records_are_sound_and_the_table_says_the_same(folder):
    checks = Checks(classes=60, sizes={"rgb": 64, "audio": 16})
    found = {record.id: record for record in read_records(folder, checks)}
    assert checks.problems == []
    rows = list(csv.DictReader((folder / "clips.csv").read_text().splitlines()))
    assert {row["name"]: row["label_id"] for row in rows} == {
        name: "|".join(map(str, record.labels)) for name, record in found.items()
    }
    assert [sum(row["split"] == split for row in rows) for split in ("train", "val", "test")] == [300, 40, 40]


def test_videos_have_about_one_and_a_third_labels_and_25_to_55_frames(folder):
    found = RecordSet(folder)
    counts = np.array([len(labels) for labels in found.labels])
    assert counts.min() == 1
    assert 1.2 < counts.mean() < 1.5
    assert 25 <= min(found.frames) < max(found.frames) <= 55


def test_of_a_class_and_its_twin_the_mean_is_equal_and_the_residual_of_a_word_opposite():
    world = residual_world(seed=3)
    sums = {1: np.zeros(2), -1: np.zeros(2)}
    seen = {1: 0, -1: 0}
    for number in range(1500):
        record = draw_video(world, "v", np.random.default_rng([3, 1, number]))
        x = dequantize(record.features["rgb"]) - 1 / 128
        word = (x @ world.rgb.T).argmax(1)
        a, b = world.words[0]
        if (word == a).sum() < 3 or (word == b).sum() < 3:
            continue
        sign = 1 if 0 in record.labels else -1
        own = x @ world.direction[0]
        residual = own[word == a].mean() - world.rgb[a] @ world.direction[0]
        counter = own[word == b].mean() - world.rgb[b] @ world.direction[0]
        if sign < 0 and residual > 0:
            continue  # another class' words
        sums[sign] += (residual, counter)
        seen[sign] += 1
    assert min(seen.values()) > 20
    positive, twin = sums[1] / seen[1], sums[-1] / seen[-1]
    assert positive == pytest.approx([RESIDUAL, -RESIDUAL], abs=0.12)
    assert twin[0] < -0.1
    assert abs(positive.sum()) < 0.1


def test_the_seed_fixes_every_byte_and_a_video_does_not_depend_on_how_many_there_are(folder, tmp_path):
    render_residual(tmp_path / "a", 5, 2, 2, seed=0)
    render_residual(tmp_path / "b", 5, 2, 2, seed=0)
    render_residual(tmp_path / "c", 5, 2, 2, seed=1)
    for name in ("train0000.tfrecord", "clips.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "train0000.tfrecord").read_bytes() != (tmp_path / "c" / "train0000.tfrecord").read_bytes()
    few, many = RecordSet(tmp_path / "a" / "train0000.tfrecord"), RecordSet(folder / "train0000.tfrecord")
    assert np.array_equal(few.read(4).features["rgb"], many.read(4).features["rgb"])


@pytest.mark.parametrize(("counts", "classes", "said"), [((0, 1, 1), 60, "at least one"), ((1, 1, 1), 200, "1 to 120")])
def test_impossible_sets_are_refused(tmp_path, counts, classes, said):
    with pytest.raises(DataError, match=said):
        render_residual(tmp_path / "x", *counts, classes=classes)
