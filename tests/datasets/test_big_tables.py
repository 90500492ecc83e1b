"""Tables of a million rows: what a row costs in memory, and splits that are those of the obvious way of counting."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vidlet.datasets import Clip, ClipTable, inspect_table, read_table, splits, with_splits
from vidlet.datasets.segments import overlap_notes
from vidlet.video import write_video

VIDEOS = 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("big")
    for number in range(VIDEOS):
        write_video(folder / f"v{number}.mp4", (np.full((32, 32, 3), 9 * number + i, np.uint8) for i in range(8)), 1)
    return folder


def draw_table(folder: Path, rows: int) -> Path:
    """Parts of the videos that follow each other, ten classes, two videos a group; the rows are mixed."""
    each = rows // VIDEOS
    order = np.random.default_rng(0).permutation(rows).tolist()
    lines = [f"v{i % VIDEOS}.mp4,c{i % 10},g{i % VIDEOS // 2},{i // VIDEOS * 7 / each:.5f}" for i in order]
    ends = [f"{(i // VIDEOS + 1) * 7 / each:.5f}" for i in order]
    path = folder / f"{rows}.csv"
    text = "\n".join(f"{line},{end}" for line, end in zip(lines, ends, strict=True))
    path.write_text(f"path,label,group,start_s,end_s\n{text}\n")
    return path


def peak_bytes(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_row_more_costs_a_few_hundred_bytes_from_the_table_to_the_report(videos):
    few, many = draw_table(videos, 400), draw_table(videos, 4400)
    inspect_table(read_table(few))  # what is imported and opened once
    peaks = [peak_bytes(lambda path=path: inspect_table(read_table(path))) for path in (few, many)]
    assert (peaks[1] - peaks[0]) / 4000 < 450
    report = inspect_table(read_table(many))
    assert (report.clips, report.groups, report.broken, report.duplicates) == (4400, 2, (), ())
    assert sum(report.classes["c3"].values()) == 440


def test_rows_that_say_the_same_share_it(videos):
    clips = read_table(draw_table(videos, 400)).clips
    for value in ("path", "labels", "group"):
        shared = {id(getattr(clip, value)) for clip in clips}
        assert len(shared) == len({getattr(clip, value) for clip in clips})


def test_groups_of_many_classes_are_split_without_a_matrix_of_both():
    count = 4800
    labels = tuple(f"c{i:04d}" for i in range(count // 8))
    clips = tuple(Clip(Path(f"/x/{i}.mp4"), (labels[i // 8],)) for i in range(count))
    dense = count * len(labels) * 8
    found: list[ClipTable] = []
    assert peak_bytes(lambda: found.append(with_splits(ClipTable(clips, labels, Path("/x"))))) < dense / 2
    shares = [len(found[0].of_split(name)) / count for name in ("train", "val", "test")]
    assert shares[0] > 0.6 and min(shares) > 0.05


def obvious_deal(counts, shares, seed, train_first):
    """Groups with counts (G, K) dealt out by whole arrays, one attempt after the other."""
    rng, total = np.random.default_rng(seed), counts.sum(axis=0)

    def badness(part):
        filled = np.stack([counts[part == p].sum(axis=0) for p in range(len(shares))]).astype(float)
        return splits._badness(filled, total, shares, train_first)

    def once():
        order = rng.permutation(len(counts))
        order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
        filled, part = np.zeros((len(shares), counts.shape[1])), np.zeros(len(counts), int)
        for group in order:
            own = counts[group]
            cost = ((2 * filled + own) * own / np.maximum(total, 1) ** 2).sum(axis=1) / shares
            near = np.flatnonzero(cost <= cost.min() * (1 + 1e-9))
            part[group] = near[np.argmin(filled[near].sum(axis=1) / shares[near])]
            filled[part[group]] += own
        for group in order[::-1][: splits.MOVES]:
            for target in range(len(shares)):
                moved = part.copy()
                moved[group] = target
                if badness(moved) < badness(part):
                    part = moved
        return part

    best = min((once() for _ in range(int(np.clip(800 // len(counts), 1, 8)))), key=badness)
    return splits._fill_poor_parts(best, counts.sum(axis=1), len(shares))


@pytest.mark.parametrize("seed", range(6))
def test_splits_are_those_of_the_obvious_way_of_counting(seed):
    rng = np.random.default_rng(seed)
    labels = tuple("abcde")
    clips = []
    for i in range(60):
        own = tuple(sorted(rng.choice(labels, rng.integers(1, 3), replace=False).tolist()))
        clips.append(Clip(Path(f"/x/{i}.mp4"), own, f"g{rng.integers(15)}" if rng.random() < 0.8 else ""))
    groups = splits._groups(ClipTable(tuple(clips), labels, Path("/x")))
    counts = np.zeros((len(groups.keys), len(labels)), int)
    for group, clip in zip(groups.member, clips, strict=True):
        counts[group, [labels.index(name) for name in clip.labels]] += 1
    for shares, first in ((np.array([0.7, 0.1, 0.2]), True), (np.full(4, 0.25), False)):
        dealt = splits._deal(groups, shares, seed, first)
        np.testing.assert_array_equal(dealt, obvious_deal(counts, shares, seed, first))


def test_overlaps_are_found_in_whichever_order_the_rows_stand():
    def part(name, label, start, end):
        return Clip(Path(f"/x/{name}.mp4"), (label,), start_s=start, end_s=end)

    clips = [
        part("b", "run", 4, 6), part("b", "sit", 5, 8), part("a", "run", 0, 9), part("a", "run", 3, 4),
        part("a", "sit", 8, 12), part("c", "run", 0, 1), part("c", "sit", 1, 2), part("b", "run", None, 1),
    ]  # fmt: skip
    (note,) = overlap_notes(clips)
    assert "2 pairs of them (first: a.mp4, run 0.00 to 9.00 s and sit 8.00 to 12.00 s)" in note
    assert overlap_notes(clips[::-1]) == (note,)
    assert overlap_notes([clip for clip in clips if clip.path.stem == "c"]) == ()


@pytest.mark.parametrize("seed", range(6))
def test_overlaps_are_counted_as_the_obvious_way_counts_them(seed):
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(50):
        start, end = (None if rng.random() < 0.1 else round(float(rng.uniform(low, low + 9)), 1) for low in (0, 9))
        own = tuple(sorted(rng.choice(list("xyz"), rng.integers(1, 3), replace=False).tolist()))
        clips.append(Clip(Path(f"/x/{rng.choice(list('ab'))}.mp4"), own, start_s=start, end_s=end))
    ordered = sorted(clips, key=lambda clip: (clip.path, clip.start_s or 0.0))
    pairs = [
        (one, other)
        for number, other in enumerate(ordered)
        for one in ordered[:number]
        if one.path == other.path and (one.end_s is None or (other.start_s or 0.0) < one.end_s - 1e-6)
        and one.labels != other.labels
    ]  # fmt: skip
    (note,) = overlap_notes(clips)
    assert f" {len(pairs)} pairs of them (first: {pairs[0][0].path.name}, {pairs[0][0].label} " in note


def test_parts_that_all_overlap_cost_no_memory_a_pair():
    clips = [Clip(Path("/x/a.mp4"), ("ab"[n % 2],), start_s=n / 1000, end_s=99.0) for n in range(4000)]
    tracemalloc.start()
    (note,) = overlap_notes(clips)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "4000000 pairs of them" in note and used < 4e6
