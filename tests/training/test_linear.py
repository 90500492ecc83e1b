"""Linear classifiers solved to convergence: scikit-learn is the oracle; the span of the clips holds the solution."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from vidlet.models.probe import Probe
from vidlet.training import Draw, FeatureClips
from vidlet.training.linear import coordinates, held_out_logits, log_probabilities, solve, solve_squares
from vidlet.training.probes import describe, ground_of, scaled, solve_probe_, squares_of


def clips_of(count=60, classes=3, numbers=200, seed=0):
    """Vectors (N, D) whose first numbers tell the class, and their classes (N,)."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = rng.normal(size=(count, numbers))
    x[:, :classes] += 1.5 * np.eye(classes)[y]
    return x, y


def solved(x, y, strength, multi_label=False):
    span = coordinates(x @ x.T)
    weights = solve(span.z, span.sizes, np.eye(y.max() + 1)[y], strength, multi_label)
    return x.T @ (span.basis @ weights[:-1]), weights[-1]


@pytest.mark.parametrize("strength", [1e-1, 1e-3])
def test_the_solution_is_scikit_learns(strength):
    x, y = clips_of()
    weights, bias = solved(x, y, strength)
    oracle = LogisticRegression(C=1 / (strength * len(y)), tol=1e-10, max_iter=10_000).fit(x, y)
    ours, theirs = log_probabilities(x @ weights + bias), oracle.predict_log_proba(x)
    np.testing.assert_allclose(np.exp(ours), np.exp(theirs), atol=2e-3)


def test_many_labels_are_so_many_classifiers():
    x, y = clips_of()
    weights, bias = solved(x, y, 1e-2, multi_label=True)
    oracle = LogisticRegression(C=1 / (1e-2 * len(y)), tol=1e-10, max_iter=10_000).fit(x, y == 1)
    np.testing.assert_allclose(np.exp(log_probabilities(x @ weights + bias, True))[:, 1], oracle.predict_proba(x)[:, 1],
                               atol=2e-3)  # fmt: skip


def test_a_held_out_clip_is_not_learned_from():
    """With labels at random, what was held out is answered by chance, what was learned is known by heart."""
    x, _ = clips_of(count=90, numbers=400)
    y = np.random.default_rng(3).integers(0, 3, 90)
    folds = [np.arange(90) % 3 == i for i in range(3)]
    found = list(held_out_logits(x @ x.T, np.eye(3)[y], folds, [1e-1, 1e-3]))
    assert np.isfinite(found).all()
    assert (found[1].argmax(1) == y).mean() < 0.55
    weights, bias = solved(x, y, 1e-3)
    assert ((x @ weights + bias).argmax(1) == y).all()


def test_statistics_are_brought_to_one_size():
    values = np.random.default_rng(0).normal(5, [1, 100, 0], (40, 2, 3)).astype(np.float32)
    part = scaled(values)
    np.testing.assert_allclose(np.square(part.vectors).sum(1).mean(), 1, rtol=1e-4)
    np.testing.assert_allclose(part.vectors.mean(0), 0, atol=1e-5)
    assert part.gain[2] == 0  # what never changes says nothing
    own = (values - part.center) * part.gain
    np.testing.assert_allclose(own.reshape(40, -1) - part.middle, part.vectors, atol=1e-4)


def test_a_solved_probe_gives_the_logits_of_its_solution():
    """The scales and the weights in the head together are the classifier of the scaled statistics."""
    rng = np.random.default_rng(1)
    y = np.arange(30) % 3
    features = [rng.normal(y[i], 1, (4 + i % 5, 6)).astype(np.float32) for i in range(30)]
    clips = FeatureClips(lambda i: features[i], np.eye(3, dtype=np.float32)[y], [str(i) for i in range(30)], np.ones(6))
    probe = Probe((6,), 3, "mean+segments", segments=2, strength=1e-3).eval()
    statistics = describe(probe, clips, lambda x: x)
    solve_probe_(probe, clips, False)
    parts = [scaled(values) for values in statistics]
    x = np.concatenate([part.vectors for part in parts], 1).astype(np.float64) / np.sqrt(2)
    weights, bias = solved(x, y, 1e-3)
    batch = next(iter(clips.batches(Draw(30, range(30)))))
    with torch.no_grad():
        logits = probe(batch.x, probe.zero_state(30, batch.x), batch.mask)[0].numpy()
    expected = log_probabilities(x @ weights + bias)
    np.testing.assert_allclose(log_probabilities(logits), expected, atol=2e-2)
    assert (logits.argmax(1) == y).mean() > 0.9


def test_of_many_clips_some_hold_the_solution_which_is_close_to_that_of_all(monkeypatch):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 900)
    x = rng.normal(0, 1, (900, 2, 30)).astype(np.float32)
    x[:, :, :3] += np.eye(3, dtype=np.float32)[y][:, None]
    clips = FeatureClips(x.__getitem__, np.eye(3, dtype=np.float32)[y], [str(i) for i in range(900)], np.ones(30))
    found = []
    monkeypatch.setattr("vidlet.training.probes.ENOUGH", 100)
    for most in (4000, 300):
        monkeypatch.setattr("vidlet.training.probes.LANDMARKS", most)
        probe = Probe((30,), 3, "mean+highest", strength=1e-2).eval()
        solve_probe_(probe, clips, False)
        features = torch.from_numpy(x)
        found.append(probe(features, probe.zero_state(900, features))[0].softmax(1).detach().numpy())
    np.testing.assert_allclose(found[0], found[1], atol=0.05)
    assert np.abs(found[0] - found[1]).max() > 0  # another way, indeed


def test_least_squares_are_scikit_learns_ridge_regression():
    x, y = clips_of()
    x, targets = x - x.mean(0), np.eye(3)[y]
    span = coordinates(x @ x.T)
    weights = solve_squares(span.z, span.sizes, targets, 0.1, alike=False)
    np.testing.assert_allclose(weights, solve_squares(span.z, span.sizes, targets, 0.1))  # classes are of one size here
    oracle = Ridge(alpha=0.1 * len(y)).fit(x, targets)
    np.testing.assert_allclose(span.z @ weights[:-1] + weights[-1], oracle.predict(x), atol=1e-8)


def test_a_probe_solved_by_squares_names_what_one_of_cross_entropy_names():
    x, y = clips_of(count=90)
    features = x[:, None].astype(np.float32)  # clips of one frame
    clips = FeatureClips(features.__getitem__, np.eye(3, dtype=np.float32)[y], [str(i) for i in y], np.ones(200))
    probe = Probe((200,), 3, "mean", strength=1e-2, squares=8.0).eval()
    solve_probe_(probe, clips, False)
    logits = probe(torch.from_numpy(features), probe.zero_state(90, torch.from_numpy(features)))[0].detach().numpy()
    assert (logits.argmax(1) == y).all()
    assert logits.max() == pytest.approx(4, abs=2)  # a score of 1, less one half, times 8


def test_by_squares_some_clips_that_span_all_numbers_give_ridge_regression_of_all_clips(monkeypatch):
    """What is orthogonal over the some is not over all: solved one by one, correlated numbers would be half lost."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(900, 20)) @ rng.normal(size=(20, 20))).astype(np.float32)
    targets = (x @ rng.normal(size=(20, 5)) + rng.normal(size=(900, 5)) > 1).astype(np.float32)
    features = x[:, None]
    clips = FeatureClips(features.__getitem__, targets, [str(i) for i in range(900)], np.ones(20))
    monkeypatch.setattr("vidlet.training.probes.LANDMARKS", 30)
    probe = Probe((20,), 5, "mean", strength=1e-6, squares=8.0).eval()
    solve_probe_(probe, clips, True)
    logits = probe(torch.from_numpy(features), probe.zero_state(900, torch.from_numpy(features)))[0].detach().numpy()
    np.testing.assert_allclose(logits / 8 + 0.5, Ridge(alpha=1e-3).fit(x, targets).predict(x), atol=2e-3)


def test_by_squares_a_class_of_few_clips_is_not_outbid():
    """Fifty classes in twenty numbers, half of them with one clip, the others with five."""
    rng = np.random.default_rng(7)
    centers = rng.normal(size=(50, 20))
    y = np.concatenate([np.arange(50), np.repeat(np.arange(25, 50), 4)])
    x, other = (centers[labels] + rng.normal(0, 0.2, (len(labels), 20)) for labels in (y, np.arange(50)))
    span = coordinates(x @ x.T)
    shares = [
        (np.argmax((other @ x.T @ span.basis) @ w[:-1] + w[-1], 1) == np.arange(50))[:25].mean()
        for w in (solve_squares(span.z, span.sizes, np.eye(50)[y], 1e-3, alike) for alike in (True, False))
    ]
    assert shares[0] > 0.9
    assert shares[1] < 0.5  # where each label counts by its clips


def test_the_penalty_of_least_generalized_cross_validation_is_that_of_its_formula():
    """N |(I - H) Y|^2 / tr(I - H)^2, with the hat matrix H of ridge regression with a bias."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(300, 40)) * np.linspace(0.1, 2, 40)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[(x[:, :4] + 2 * rng.normal(size=(300, 4))).argmax(1)]
    features = x[:, None]
    clips = FeatureClips(features.__getitem__, targets, [str(i) for i in range(300)], np.ones(40))
    probe = Probe((40,), 4, "mean", whiten=0.0, squares=8.0).eval()
    ground = ground_of(probe, clips)
    sums = squares_of(probe, clips, ground)
    z = np.concatenate([own for _, own in ground.of_clips(probe, clips, lambda x: x)]).astype(np.float64)
    z -= z.mean(0)

    def missed(strength):
        hat = z @ np.linalg.solve(z.T @ z + 300 * strength * np.eye(z.shape[1]), z.T) + 1 / 300
        rest = np.eye(300) - hat
        return np.square(rest @ targets).sum() / np.trace(rest) ** 2

    strengths = np.logspace(-5, 1, 13).tolist()
    assert sums.best_of(strengths) == min(strengths, key=missed)
    assert strengths[0] < sums.best_of(strengths) < strengths[-1]


def test_of_classes_that_are_common_and_rare_least_squares_may_count_clips():
    """Where a class is common, one that counts alike is named too often: what held out clips say decides."""
    rng = np.random.default_rng(6)
    y = (rng.random(600) < 0.1).astype(int)
    x = rng.normal(size=(600, 5)) + y[:, None]
    products = (x - x.mean(0)) @ (x - x.mean(0)).T
    folds = [np.arange(600) % 3 == i for i in range(3)]
    right = [
        (next(held_out_logits(products, np.eye(2)[y], folds, [1e-4], squares=True, alike=a)).argmax(1) == y).mean()
        for a in (True, False)
    ]
    assert right[1] > right[0] + 0.02
