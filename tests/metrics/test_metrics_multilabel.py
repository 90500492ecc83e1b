"""GAP, Hit@1, PERR and MAP equal slow and obvious counts; chunks, processes and the order of clips change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlet.errors import DataError
from vidlet.metrics import (
    ManyLabels,
    MultiLabelScores,
    gap,
    gap_samples,
    hit_at_1,
    many_labels_summary,
    mean_average_precision,
    multilabel_summary,
    perr,
)
from vidlet.metrics.multilabel import highest


def slow_average_precision(pairs, positives):
    """Pairs (score, hit); counts down the ranked list one by one."""
    total = hits = 0.0
    for rank, (_, hit) in enumerate(sorted(pairs, reverse=True), 1):
        hits += hit
        total += hit * hits / rank
    return total / positives if positives else 0.0


def slow_figures(scores, labels, top_k=20):
    classes = scores.shape[1]
    pooled, per_class, first, equal = [], [[] for _ in range(classes)], [], []
    for row, truth in zip(scores, labels, strict=True):
        order = sorted(range(classes), key=lambda c: -row[c])
        pooled += [(row[c], truth[c]) for c in order[:top_k]]
        for c in order[:top_k]:
            per_class[c].append((row[c], truth[c]))
        first.append(truth[order[0]])
        if count := int(truth.sum()):
            equal.append(sum(truth[c] for c in order[:count] if row[c] > 0) / count)
    precisions = [slow_average_precision(per_class[c], labels[:, c].sum()) for c in range(classes)]
    return {
        "gap": slow_average_precision(pooled, labels.sum()),
        "hit1": sum(first) / len(first),
        "perr": sum(equal) / len(equal),
        "map": sum(precisions) / classes,
    }


def untied(clips, classes, seed, lowest=0.0):
    """Distinct scores of which the labels' are somewhat higher, and up to four labels a clip, sometimes none."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(clips * classes).reshape(clips, classes) / (clips * classes) * (1 - lowest) + lowest
    labels = rng.random((clips, classes)) < rng.uniform(0.02, 0.3) * scores**2
    labels[0, 0] = True
    return scores, labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("clips", "classes", "top_k"), [(40, 60, 20), (30, 7, 20), (25, 30, 3), (1, 25, 20), (12, 400, 20)]
)
def test_the_figures_equal_a_slow_count_on_untied_scores(clips, classes, top_k, seed):
    scores, labels = untied(clips, classes, seed, lowest=-0.3)
    slow = slow_figures(scores, labels, top_k)
    assert gap(scores, labels, top_k) == pytest.approx(slow["gap"], abs=1e-12)
    assert mean_average_precision(scores, labels, top_k) == pytest.approx(slow["map"], abs=1e-12)
    assert hit_at_1(scores, labels) == pytest.approx(slow["hit1"], abs=1e-12)
    assert perr(scores, labels) == pytest.approx(slow["perr"], abs=1e-12)


def test_a_hand_worked_case():
    scores = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.7]])
    labels = np.array([[1, 0, 1], [1, 0, 1]])
    # pooled top 2: .9 hit, .8 miss, .7 hit, .5 miss; four positives
    assert gap(scores, labels, top_k=2) == pytest.approx((1 / 1 + 2 / 3) / 4)
    assert hit_at_1(scores, labels) == 0.5
    assert perr(scores, labels) == 0.5  # one of each clip's two
    # class 0: .9 hit of 2 positives; class 1: no positives; class 2: .7 hit of 2
    assert mean_average_precision(scores, labels, top_k=2) == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_positives_outside_the_top_count_in_the_denominator():
    scores = np.arange(25.0)[None]
    labels = np.zeros((1, 25))
    labels[0, [24, 0]] = 1
    assert gap(scores, labels) == 0.5
    assert gap(scores, labels, top_k=25) == pytest.approx((1 + 2 / 25) / 2)


def test_a_label_whose_score_is_0_is_no_hit_at_equal_recall():
    assert perr([[0.0, 0.0, 0.5]], [[1, 0, 1]]) == 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_neither_chunks_nor_processes_nor_the_order_of_clips_matter(seed, clips, classes, tied):
    rng = np.random.default_rng(seed)
    scores, labels = untied(clips, classes, seed)
    if tied:
        scores = np.round(scores, 1)
    whole = MultiLabelScores(5).add(scores, labels).summary()
    order, cut = rng.permutation(clips), int(rng.integers(0, clips + 1))
    first = MultiLabelScores(5).add(scores[order[:cut]], labels[order[:cut]])
    second = MultiLabelScores(5)
    for row in order[cut:]:
        second.add(scores[row : row + 1], labels[row : row + 1])
    assert first.merge(second).summary() == pytest.approx(whole, abs=1e-12)


def test_single_precision_and_integer_labels_give_the_same_figures():
    scores, labels = untied(50, 40, 3)
    a = multilabel_summary(scores.astype(np.float32), labels)
    assert a == pytest.approx(multilabel_summary(scores, labels.astype(np.int64)), abs=1e-12)
    assert set(a) == {"clips", "gap20", "hit1", "perr", "map"}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(100, 600), st.integers(1, 30), st.sampled_from([0, 1, 2, 9]))
def test_the_highest_of_many_classes_are_those_of_a_whole_sort(seed, classes, depth, digits):
    scores = np.round(np.random.default_rng(seed).random((5, classes), np.float32), digits)  # 0: nearly all are tied
    np.testing.assert_array_equal(highest(scores, depth), np.argsort(-scores, axis=1, kind="stable")[:, :depth])


def test_the_summary_of_chunks_is_that_of_one_matrix():
    scores, labels = untied(60, 200, 8)
    names, groups = [f"class {n}" for n in range(200)], [f"group {n % 7}" for n in range(60)]
    whole = many_labels_summary(scores, labels, groups, names)
    found = ManyLabels(names)
    for begin in range(0, 60, 13):
        found.add(scores[begin : begin + 13], labels[begin : begin + 13])
    parts = found.summary(groups)
    assert parts.pop("per_class") == whole.pop("per_class")
    assert parts.pop("accuracy_interval") == whole.pop("accuracy_interval")
    assert parts == pytest.approx(whole, abs=1e-12)
    assert whole["accuracy"] == labels[np.arange(60), scores.argmax(1)].mean()
    five = np.argsort(-scores, axis=1)[:, :5]
    assert whole["top5"] == np.take_along_axis(labels, five, 1).any(1).mean()
    with pytest.raises(DataError, match="scores of 3 classes do not fit 200 names"):
        found.add(scores[:, :3], labels[:, :3])


def test_no_clips_and_no_positives_have_no_value():
    assert MultiLabelScores().summary() == {"clips": 0, "gap20": None, "hit1": None, "perr": None, "map": None}
    assert np.isnan(gap([[0.5, 0.1]], [[0, 0]]))
    assert hit_at_1([[0.5, 0.1]], [[0, 0]]) == 0


def test_memory_is_that_of_the_highest_scores_only():
    found = MultiLabelScores()
    for seed in range(3):
        found.add(*untied(200, 300, seed))
    assert sum(top.scores.base is None and top.scores.size for top in found._tops) == 600 * 20


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([[0.1, 0.2]], [[1, 0, 0]], r"\(1, 2\) and \(1, 3\)"),
        ([[0.1, np.nan]], [[1, 0]], "row 0 holds a value that is not finite"),
        ([[0.1, 0.2]], [[2, 0]], "neither 0 nor 1"),
    ],
)
def test_bad_input_is_named(scores, labels, said):
    with pytest.raises(DataError, match=said):
        gap(scores, labels)


def test_another_number_of_classes_is_refused():
    with pytest.raises(DataError, match="3 classes after scores of 2"):
        MultiLabelScores().add([[0.1, 0.2]], [[1, 0]]).add([[0.1, 0.2, 0.3]], [[1, 0, 0]])


@pytest.mark.parametrize("tied", [False, True])
def test_draws_of_groups_are_the_figure_of_the_drawn_clips(tied):
    rng = np.random.default_rng(3)
    scores, labels = rng.random((12, 30)), rng.random((12, 30)) < 0.2
    scores = scores.round(1) if tied else scores
    groups = [f"g{i // 3}" for i in range(12)]
    found = gap_samples(scores, labels, groups, resamples=40, seed=7)
    draws = np.random.default_rng(7)
    for value in found:  # the same draws, made by hand: whole groups of three, with replacement
        clips = np.concatenate([np.arange(12)[3 * g : 3 * g + 3] for g in draws.integers(0, 4, 4)])
        assert value == pytest.approx(gap(scores[clips], labels[clips]))
    assert np.ptp(found) > 0
    assert gap_samples(scores, labels, ["one"] * 12, resamples=3) == pytest.approx([gap(scores, labels)] * 3)
