"""Splits: groups stay whole, every clip has a place, classes are spread evenly, the same seed gives the same."""

import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from shared_data import shared
from vidlet.datasets import (
    Clip,
    ClipTable,
    check_trainable,
    group_folds,
    leave_one_group_out,
    read_table,
    with_splits,
)
from vidlet.errors import DataError

CLASSES = ("a", "b", "c", "d")


def table_of(cells: list[tuple[str, str, str]]) -> ClipTable:
    """Clips from (label, group, split)."""
    clips = (Clip(Path(f"{i}.mp4"), (label,), group, split) for i, (label, group, split) in enumerate(cells))
    return ClipTable(tuple(clips), tuple(sorted({label for label, _, _ in cells})), Path("clips"))


def unsplit(cells: list[tuple[str, str]]) -> ClipTable:
    return table_of([(label, group, "") for label, group in cells])


def splits_by_group(table: ClipTable) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for clip in table:
        found[clip.group or clip.path.name].add(clip.split)
    return found


def random_table(seed: int, clips: int = 200, groups: int = 25) -> ClipTable:
    rng = np.random.default_rng(seed)
    liking = rng.dirichlet(np.full(len(CLASSES), 0.7), groups)
    sizes = rng.dirichlet(np.full(groups, 1.5))
    members = rng.choice(groups, clips, p=sizes)
    return unsplit([(CLASSES[rng.choice(len(CLASSES), p=liking[g])], f"g{g}") for g in members])


cells = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(["", *"pqrstuvw"])), min_size=3, max_size=60)


def group_count(cells: list[tuple[str, str]]) -> int:
    return len({group for _, group in cells if group}) + sum(not group for _, group in cells)


@settings(max_examples=40, deadline=None)
@given(cells.filter(lambda c: group_count(c) >= 3), st.integers(0, 3))
def test_every_clip_has_a_split_every_group_is_whole_and_no_split_is_empty(cells, seed):
    table = unsplit(cells)
    split = with_splits(table, seed)
    assert [replace(clip, split="") for clip in split] == list(table)
    assert all(len(splits) == 1 for splits in splits_by_group(split).values())
    assert {clip.split for clip in split} == {"train", "val", "test"}
    assert with_splits(table, seed) == split


@settings(max_examples=25, deadline=None)
@given(cells.filter(lambda c: group_count(c) >= 4), st.integers(2, 4), st.integers(0, 3))
def test_folds_test_every_clip_once_and_never_share_a_group(cells, folds, seed):
    table = unsplit(cells)
    made = group_folds(table, folds, seed)
    assert len(made) == folds
    for fold in made:
        assert all(len(splits) == 1 for splits in splits_by_group(fold).values())
        assert {clip.split for clip in fold} == {"train", "val", "test"}
    tested = [sum(fold.clips[i].split == "test" for fold in made) for i in range(len(table))]
    assert tested == [1] * len(table)
    assert group_folds(table, folds, seed) == made


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(CLASSES), min_size=12, max_size=80), st.integers(0, 3))
def test_without_groups_every_class_is_in_train_and_shares_are_kept(labels, seed):
    split = with_splits(unsplit([(label, "") for label in labels]), seed)
    assert {clip.label for clip in split.of_split("train")} == set(labels)
    assert abs(len(split.of_split("test")) - 0.2 * len(labels)) <= len(CLASSES)
    assert abs(len(split.of_split("val")) - 0.1 * len(labels)) <= len(CLASSES)


def test_equal_classes_without_groups_are_split_exactly():
    split = with_splits(unsplit([(label, "") for label in CLASSES for _ in range(20)]))
    for label in CLASSES:
        counts = [sum(clip.label == label for clip in split.of_split(name)) for name in ("train", "val", "test")]
        assert counts == [14, 2, 4]


def test_a_class_of_one_group_goes_to_train_where_that_is_possible():
    cells = [("a", f"g{i % 6}") for i in range(30)] + [("b", f"g{i % 5}") for i in range(30)] + [("c", "only")] * 5
    for seed in range(5):
        split = with_splits(unsplit(cells), seed)
        assert {clip.label for clip in split.of_split("train")} == {"a", "b", "c"}


def test_several_clips_cut_from_one_file_stay_together():
    clips = [Clip(Path(f"v{i // 4}.mp4"), ("ab"[i % 2],), start_s=float(i)) for i in range(40)]
    split = with_splits(ClipTable(tuple(clips), ("a", "b"), Path()))
    files: dict[Path, set[str]] = defaultdict(set)
    for clip in split:
        files[clip.path].add(clip.split)
    assert all(len(splits) == 1 for splits in files.values())


def test_val_is_split_off_train_by_group_and_test_is_never_touched():
    given_ = [(CLASSES[i % 4], f"g{i % 10}", "test" if i % 10 < 3 else "train") for i in range(80)]
    split = with_splits(table_of(given_))
    assert [clip.split == "test" for clip in split] == [name == "test" for _, _, name in given_]
    assert {clip.group for clip in split.of_split("val")}.isdisjoint(clip.group for clip in split.of_split("train"))
    assert len(split.of_split("val"))


@pytest.mark.parametrize("names", [("train", "val"), ("train", "val", "test"), ("test",), ("val", "test")])
def test_given_splits_that_need_nothing_are_left_alone(names):
    table = table_of([(CLASSES[i % 4], f"g{i}", names[i % len(names)]) for i in range(24)])
    assert with_splits(table) is table


def test_single_clips_without_a_split_follow_their_group():
    table = table_of([("a", "p", "train"), ("b", "q", "test"), ("a", "q", ""), ("b", "r", ""), ("a", "s", "val")])
    split = with_splits(table)
    assert [clip.split for clip in split] == ["train", "test", "test", "train", "val"]
    assert split.notes == ("2 clips without a split were given their group's, or train.",)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda: with_splits(unsplit([("a", "p"), ("b", "q"), ("b", "q")])), "2 groups, and train, val and test take"),
        (lambda: with_splits(unsplit([("a", "p"), ("b", "p"), ("b", "p")])), "1 group, and"),
        (lambda: with_splits(unsplit([("a", ""), ("b", "")])), "2 clips; train, val and test take one each"),
        (lambda: with_splits(table_of([("a", "p", "train"), ("b", "q", "test")])), "train clips are of one group"),
        (lambda: group_folds(unsplit([("a", "p"), ("b", "q"), ("b", "r")]), 4), "3 groups cannot make 4 folds"),
        (lambda: group_folds(unsplit([("a", "p"), ("b", "q"), ("b", "r")]), 2), "3 groups cannot make 2 folds"),
        (lambda: group_folds(unsplit([("a", "p"), ("b", "q")]), 2), "2 groups cannot make 2 folds"),
        (lambda: leave_one_group_out(unsplit([("a", "p"), ("b", "")])), "1.mp4: has no group"),
        (lambda: leave_one_group_out(unsplit([("a", "p"), ("b", "q")])), "2 groups; to leave one out"),
    ],
)
def test_too_few_groups_are_one_line_that_says_so(act, reason):
    with pytest.raises(DataError) as caught:
        act()
    assert reason in str(caught.value)


def unevenness(table: ClipTable, fold_of: list[int], folds: int) -> float:
    """Mean deviation, over folds and classes, of a class's share in a fold from 1 / folds."""
    counts = np.zeros((folds, len(table.labels)))
    for clip, fold in zip(table, fold_of, strict=True):
        counts[fold, table.labels.index(clip.label)] += 1
    return float(np.abs(counts / counts.sum(axis=0) - 1 / folds).mean())


def test_folds_are_as_even_as_those_of_scikit_learn():
    ours, theirs = [], []
    for seed in range(8):
        table = random_table(seed)
        made = group_folds(table, 5, seed)
        fold_of = [next(k for k, fold in enumerate(made) if fold.clips[i].split == "test") for i in range(len(table))]
        ours.append(unevenness(table, fold_of, 5))
        labels, groups = [clip.label for clip in table], [clip.group for clip in table]
        reference = [0] * len(table)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class in fewer groups than folds
            for k, (_, test) in enumerate(StratifiedGroupKFold(5).split(labels, labels, groups)):
                for i in test:
                    reference[i] = k
        theirs.append(unevenness(table, reference, 5))
    assert np.mean(ours) <= np.mean(theirs)
    assert all(a <= 1.25 * b for a, b in zip(ours, theirs, strict=True))


def test_ten_thousand_clips_are_split_within_seconds():
    table = unsplit([(f"class{i % 100:02d}", "") for i in range(10_000)])
    split = with_splits(table)
    assert [len(split.of_split(name)) for name in ("train", "val", "test")] == [7000, 1000, 2000]


def test_leaving_one_person_out_tests_each_person_once():
    table = read_table(shared("data", "weizmann_actions"))
    made = leave_one_group_out(table)
    tested = [{clip.group for clip in fold.of_split("test")} for fold in made]
    assert [len(groups) for groups in tested] == [1] * 9
    assert len(set().union(*tested)) == 9
    for fold in made:
        assert all(len(splits) == 1 for splits in splits_by_group(fold).values())
        check_trainable(fold)


def test_five_folds_of_the_gesture_scenes_are_whole_and_of_equal_size():
    table = read_table(shared("data", "egogestar"))
    for fold in group_folds(table, 5):
        assert all(len(splits) == 1 for splits in splits_by_group(fold).values())
        assert abs(len(fold.of_split("test")) - len(table) / 5) <= 5
        check_trainable(fold)
