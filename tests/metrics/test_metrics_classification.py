"""Metrics: cases worked by hand, scikit-learn as the oracle, and what must not matter."""

import json

import numpy as np
import pytest
from sklearn import metrics as oracle

from vidlet.errors import DataError
from vidlet.metrics import (
    accuracy,
    classification_summary,
    confusion_matrix,
    macro_average,
    per_class,
    percentiles_ms,
    top_k_accuracy,
)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    """Scores (200, 7), a little better than chance, and labels of which class 5 is absent."""
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 2, 3, 4, 6], 200)
    logits = rng.normal(size=(200, 7)) + 1.5 * np.eye(7)[labels]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


def test_three_clips_worked_by_hand():
    scores = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.2, 0.5, 0.3]]
    assert accuracy(scores, [0, 1, 2]) == pytest.approx(2 / 3)
    assert top_k_accuracy(scores, [0, 1, 2], k=2) == 1.0
    confusion = confusion_matrix([0, 1, 1], [0, 1, 2], classes=3)
    assert confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    precision, recall, f1, support = per_class(confusion)
    assert precision.tolist() == [1.0, 0.5, 0.0]
    assert recall.tolist() == [1.0, 1.0, 0.0]
    np.testing.assert_allclose(f1, [1.0, 2 / 3, 0.0])
    assert support.tolist() == [1, 1, 1]
    assert macro_average(confusion).f1 == pytest.approx(5 / 9)


def test_equal_scores_rank_in_class_order_so_that_top_one_is_argmax():
    flat = np.full((4, 4), 0.25)
    assert accuracy(flat, [0, 1, 2, 3]) == 0.25
    assert top_k_accuracy(flat, [0, 1, 2, 3], k=3) == 0.75


def test_top_k_with_no_more_than_k_classes_is_one(case):
    scores, labels = case
    assert top_k_accuracy(scores, labels, k=7) == 1.0
    assert top_k_accuracy([[0.1, 0.9]], [0], k=5) == 1.0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_agrees_with_scikit_learn(case, k):
    scores, labels = case
    expected = oracle.top_k_accuracy_score(labels, scores, k=k, labels=range(7))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(expected, abs=1e-12)


def test_confusion_and_what_is_read_off_it_agree_with_scikit_learn(case):
    scores, labels = case
    guess = scores.argmax(1)
    confusion = confusion_matrix(guess, labels, 7)
    np.testing.assert_array_equal(confusion, oracle.confusion_matrix(labels, guess, labels=range(7)))
    expected = oracle.precision_recall_fscore_support(labels, guess, labels=range(7), zero_division=0)
    for ours, theirs in zip(per_class(confusion), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_macro_average_counts_only_classes_that_occur(case):
    scores, labels = case
    scores = scores.copy()
    scores[:, 5] = 0  # class 5: no clip, never predicted
    guess = scores.argmax(1)
    ours = macro_average(confusion_matrix(guess, labels, 7))
    expected = oracle.precision_recall_fscore_support(labels, guess, average="macro", zero_division=0)[:3]
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_shuffling_clips_changes_nothing(case):
    scores, labels = case
    groups = np.array([f"g{i % 9}" if i % 4 else "" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    names = list("abcdefg")
    plain = classification_summary(scores, labels, groups, names)
    mixed = classification_summary(scores[order], labels[order], groups[order], names)
    for key in ("accuracy", "top5", "macro_f1", "per_class", "confusion", "clips", "accuracy_interval"):
        assert mixed[key] == plain[key], key
    assert mixed["ece"] == pytest.approx(plain["ece"])
    assert mixed["nll"] == pytest.approx(plain["nll"])


def test_the_summary_is_json_with_the_keys_of_the_contract(case):
    scores, labels = case
    summary = classification_summary(scores, labels, None, list("abcdefg"))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(summary) == {
        "clips", "accuracy", "accuracy_interval", "accuracy_interval_rule", "top5", "macro_f1", "macro_precision",
        "macro_recall", "per_class", "confusion", "ece", "nll",
    }  # fmt: skip
    assert summary["per_class"]["f"]["support"] == 0
    assert summary["per_class"]["f"]["recall"] == 0.0
    low, high = summary["accuracy_interval"]
    assert low < summary["accuracy"] < high


def test_a_summary_of_no_clips_has_no_figures_and_is_still_json():
    summary = classification_summary(np.zeros((0, 3)), np.zeros(0, int), [], ["a", "b", "c"])
    assert summary["clips"] == 0
    assert summary["accuracy"] is None
    assert summary["accuracy_interval"] == [None, None]
    assert summary["accuracy_interval_rule"] is None
    assert summary["confusion"] == [[0] * 3] * 3
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([[0.5, np.nan]], [0], "row 0 .* not finite"),
        ([[0.5, 0.5]], [2], "2 at row 0 is outside 0..1"),
        ([[0.5, 0.5]], [-1], "outside"),
        ([[0.5, 0.5]], [0, 1], "must be"),
        ([[0.5, 0.5]], [0.0], "class indices"),
    ],
)
def test_impossible_input_is_named(scores, labels, reason):
    with pytest.raises(DataError, match=reason):
        accuracy(scores, labels)


def test_percentiles_are_milliseconds():
    assert percentiles_ms([0.001, 0.002, 0.003]) == {"p50": pytest.approx(2.0), "p95": pytest.approx(2.9)}
    assert list(percentiles_ms([1.0], percentiles=(99,))) == ["p99"]
    with pytest.raises(DataError, match="nothing was measured"):
        percentiles_ms([])
