"""Calibration: bins worked by hand, scikit-learn and SciPy as oracles."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from vidlet.metrics import (
    careful_temperature,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)


def overconfident(clips: int = 3000, classes: int = 5, factor: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``factor`` times those from which the labels were drawn."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(clips, classes)) * 1.5
    labels = np.array([rng.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return logits * factor, labels


def test_bins_worked_by_hand():
    scores = [[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [1.0, 0.0]]
    bins = reliability(scores, [0, 1, 0, 0], bins=2)  # (0, .5] holds the first clip, (.5, 1] the others
    assert bins.clips.tolist() == [1, 3]
    np.testing.assert_allclose(bins.confidence, [0.5, 2.5 / 3])
    np.testing.assert_allclose(bins.accuracy, [1.0, 2 / 3])
    assert expected_calibration_error(scores, [0, 1, 0, 0], bins=2) == pytest.approx((0.5 + 0.5) / 4)


def test_calibration_error_agrees_with_a_loop_over_bins():
    logits, labels = overconfident()
    scores = softmax(logits, axis=1)
    best, top = scores.argmax(1), scores.max(1)
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(len(top)) if b / 15 < top[i] <= (b + 1) / 15]
        if inside:
            right = np.mean([best[i] == labels[i] for i in inside])
            expected += len(inside) / len(top) * abs(right - np.mean(top[inside]))
    assert expected_calibration_error(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_likelihood_agrees_with_scikit_learn_and_survives_a_score_of_zero():
    logits, labels = overconfident()
    scores = softmax(logits, axis=1)
    assert negative_log_likelihood(scores, labels) == pytest.approx(log_loss(labels, scores), abs=1e-10)
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == pytest.approx(-np.log(np.finfo(float).eps))


def test_the_temperature_is_that_of_a_slow_search_and_of_the_truth():
    logits, labels = overconfident(factor=2.5)

    def loss(t: float) -> float:
        return -log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean()

    found = fit_temperature(logits, labels)
    assert found == pytest.approx(minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x, rel=1e-4)
    assert found == pytest.approx(2.5, rel=0.1)
    assert loss(found) < loss(1.0)


def test_the_temperature_mends_the_calibration_and_keeps_the_answers():
    logits, labels = overconfident()
    raw, mended = softmax(logits, axis=1), softmax(logits / fit_temperature(logits, labels), axis=1)
    assert expected_calibration_error(mended, labels) < 0.3 * expected_calibration_error(raw, labels)
    np.testing.assert_array_equal(raw.argmax(1), mended.argmax(1))


def test_adding_a_constant_to_logits_does_not_change_the_temperature():
    logits, labels = overconfident(clips=300)
    shifted = logits + np.arange(300)[:, None]
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-9)


def test_the_temperature_stays_in_its_bounds():
    logits = np.eye(4) * 9
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(0.05)  # all right: ever colder is ever better
    assert fit_temperature(logits, np.roll(np.arange(4), 1)) == pytest.approx(20.0)  # all wrong
    assert fit_temperature(np.zeros((4, 3)), np.zeros(4, int)) == 1.0
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0


def two_classes(margin: float, right: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips whose first class leads by a margin; of so many of them it is the label."""
    return np.tile([margin, 0.0], (clips, 1)), (np.arange(clips) >= right).astype(int)


def test_scores_that_are_right_as_often_as_they_say_are_left_alone_whatever_the_number_of_clips():
    for clips in (4, 60, 4000):  # log 3 ahead: a score of 3/4, and three of four are right
        found = careful_temperature(*two_classes(np.log(3), clips * 3 // 4, clips))
        assert found == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("right", "clips"), [(60, 60), (30, 60), (300, 400), (3, 12)])
def test_the_careful_temperature_is_that_of_a_slow_search_with_its_pull_towards_1(right, clips):
    logits, labels = two_classes(1.5, right, clips)

    def loss(log_t: float) -> float:
        own = -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(clips), labels].sum()
        return own + log_t**2 / (2 * 0.5**2)

    slow = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert careful_temperature(logits, labels) == pytest.approx(slow, rel=1e-5)


def test_a_few_clips_that_are_all_right_do_not_make_every_score_1():
    logits, labels = two_classes(1.5, 6, 6)
    assert fit_temperature(logits, labels) == pytest.approx(0.05)
    assert careful_temperature(logits, labels) == 1.0
    assert careful_temperature(*two_classes(1.5, 49, 49)) == 1.0
    assert 0.2 < careful_temperature(*two_classes(1.5, 50, 50)) < 1  # enough to be surer, and not sure


@pytest.mark.parametrize("clips", [3, 14, 49, 200, 5000])
def test_a_network_that_is_sure_of_everything_is_believed_as_far_as_its_clips_reach(clips):
    logits, labels = two_classes(20.0, clips, clips)
    score = softmax(logits / careful_temperature(logits, labels), axis=1).max(axis=1).mean()
    assert score == pytest.approx((clips + 1) / (clips + 2), abs=1e-6)
    wrong = softmax(logits / careful_temperature(logits, 1 - labels), axis=1).max(axis=1).mean()
    assert wrong < score if clips > 10 else wrong <= score + 1e-6


def test_the_more_clips_the_nearer_is_the_temperature_to_what_they_say():
    said = fit_temperature(*two_classes(3.0, 3, 4))
    found = [careful_temperature(*two_classes(3.0, n * 3 // 4, n)) for n in (4, 40, 400, 40_000)]
    assert 1 < found[0] < found[1] < found[2] < found[3]
    assert found[3] == pytest.approx(said, rel=1e-3)


def test_no_clips_have_no_calibration():
    nothing = np.zeros((0, 3)), np.zeros(0, int)
    assert np.isnan(expected_calibration_error(*nothing))
    assert np.isnan(negative_log_likelihood(*nothing))
    assert reliability(*nothing).clips.sum() == 0
