"""Many records: probes are solved with all of them, and the plain classifiers that a model is held against, too."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vidlet.metrics import gap
from vidlet.recipe import load_recipe
from vidlet.selection import Pool, decide
from vidlet.selection.baselines import measure_squares
from vidlet.selection.decide import training_of
from vidlet.selection.measure import loss_of, said_by
from vidlet.selection.wide import decide_widely, probes_again
from vidlet.training import FeatureClips

CLASSES, WIDTH = 20, 16


def vectors(labels: np.ndarray, seed: int, noise: float = 0.6) -> FeatureClips:
    """One vector a record; a class is a direction, and the length of a vector is chance."""
    centers = np.random.default_rng(9).normal(size=(CLASSES, WIDTH))
    rng = np.random.default_rng(seed)
    x = centers[labels] + noise * rng.normal(size=(len(labels), WIDTH))
    x = (x * rng.uniform(0.3, 3, (len(labels), 1))).astype(np.float32)[:, None]
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    return FeatureClips(x.__getitem__, targets, ["record"] * len(labels), x.std((0, 1)))


def decided(clips: FeatureClips, some: int):
    """The decision by some of the records, and that by all."""
    pool_clips = clips.some(np.arange(some))
    held = [np.arange(some) % 3 == fold for fold in range(3)]
    pool = Pool(pool_clips, pool_clips.targets.astype(np.float64), {"features": (0, (WIDTH,))}, held)
    x = np.concatenate([clips.read(i) for i in range(len(clips))])
    moments = (x.mean(0), x.std(0))
    plan = load_recipe("auto")
    first = decide(pool, plan, moments, records=True, frames=1.0)
    own = np.arange(len(clips)) % 5 == 0
    return first, decide_widely(first, clips, own, plan.training, moments, False, 1.0)


@pytest.fixture(scope="module")
def both():
    labels = np.random.default_rng(1).integers(0, CLASSES, 600)
    labels[:CLASSES] = np.arange(CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidlet.selection.wide.trained_of_many", lambda *_: [])
        return decided(vectors(labels, 2), 60)


def test_what_is_told_of_all_records_is_more_than_what_some_promised(both):
    first, whole = both
    assert whole.choice.accuracy > first.choice.accuracy + 0.1
    assert np.isfinite(whole.choice.right).all()


def test_the_penalty_is_chosen_anew_on_all_records(both):
    first, whole = both
    options = [[m.candidate.options for m in decision.choice.members] for decision in both]
    ways = [{(own["strength"], own["sharpness"]) for own in members} for members in options]
    assert not ways[0] & ways[1]
    assert whole.choice.loss < first.choice.loss / 10


def test_probes_with_and_without_lengths_are_solved_again(both):
    assert {bool(c.options.get("unit")) for c in probes_again(both[0])} == {True, False}


def test_the_bag_of_frames_is_trained_as_its_recipe_says_and_the_hidden_layer_as_its_own():
    bag, video = load_recipe("gated-netvlad-small").training, load_recipe("records-video").training
    for head, own in (("netvlad", bag), ("pooled", video)):
        found = training_of([type("C", (), {"head": head})()], 5000)
        assert (found["batch"], found["lr"], found["averaging"]) == (own.batch, own.lr, own.averaging)


def test_plain_least_squares_see_all_records_and_are_scikit_learns():
    labels = np.random.default_rng(3).integers(0, CLASSES, 900)
    train, scored = vectors(labels, 4), vectors(labels[:300], 5)
    found = {b.name: b for b in measure_squares(train, scored, True)}
    x, other = (np.concatenate([c.read(i) for i in range(len(c))]) for c in (train, scored))
    best = max(
        gap(Ridge(alpha=alpha).fit(x, train.targets).predict(other), scored.targets > 0) for alpha in np.logspace(-2, 4)
    )
    assert found["least squares on the mean"].gap20 == pytest.approx(best, abs=0.01)
    assert found["least squares on the mean at one length"].gap20 > best + 0.02
    assert found["chance"].accuracy < 0.1


def test_of_frames_mean_and_deviation_are_a_plain_classifier_too():
    """Two classes of one mean, of which one moves."""
    rng = np.random.default_rng(8)
    labels = np.arange(200) % 2
    x = (rng.normal(size=(200, 9, 4)) * (1 + labels[:, None, None])).astype(np.float32)
    clips = FeatureClips(x.__getitem__, np.eye(2, dtype=np.float32)[labels], ["record"] * 200, np.ones(4))
    found = {
        b.name: b.accuracy for b in measure_squares(clips.some(np.arange(150)), clips.some(np.arange(150, 200)), False)
    }
    assert found["least squares on mean and deviation"] > 0.9
    assert found["least squares on the mean"] < 0.75


@pytest.mark.parametrize("many", [False, True])
def test_the_loss_is_the_mean_cross_entropy(many):
    rng = np.random.default_rng(0)
    y = rng.random((30, 7)) if many else np.eye(7)[rng.integers(0, 7, 30)]  # some labels by half
    y[:, 2:5] *= 0 if many else 1
    p = said_by(rng.normal(size=(30, 7)), 0.0, many)
    terms = y * np.log(p) + ((1 - y) * np.log(1 - p) if many else 0)
    assert loss_of(p, y, many) == pytest.approx(-terms.sum(1).mean())
    assert loss_of(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), many) == pytest.approx((1 + many) * -np.log(1e-9))


def test_a_score_times_a_factor_is_a_probability():
    np.testing.assert_allclose(said_by(np.array([[0.5, 1.0, 1e9]]), 4.0, True), [[0.5, 1 / (1 + np.exp(-2)), 1]])
    np.testing.assert_allclose(said_by(np.array([[0.5, 0.5]]), 4.0, False), [[0.5, 0.5]])
