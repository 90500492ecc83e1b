"""The search finds what trying everything finds, stays within the bytes, and counts GAP as the metrics do."""

import itertools

import numpy as np
import pytest

from vidlet.compression.ensemble_search import Candidate, join_tops, search_ensemble, top_scores
from vidlet.errors import DataError
from vidlet.metrics import gap


def world(models=6, clips=60, classes=40, seed=0):
    """Models that are right in different ways: (M, N, K) probabilities, labels as tuples and as a matrix."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((clips, classes)) < 0.04
    matrix[:, 0] |= ~matrix.any(1)
    noise = rng.normal(size=(models, clips, classes)) * np.linspace(0.8, 1.6, models)[:, None, None]
    scores = 1 / (1 + np.exp(-(2.5 * matrix - 2 + noise)))
    return scores, [tuple(np.flatnonzero(row)) for row in matrix], matrix


def candidates(scores, sizes, depth=50):
    return [
        Candidate(f"m{i}", size, top_scores(s, depth)) for i, (s, size) in enumerate(zip(scores, sizes, strict=True))
    ]


def mixed(scores, chosen):
    return sum(w * scores[int(name[1:])] for name, w in zip(chosen.members, chosen.weights, strict=True))


def test_the_gap_of_the_search_is_that_of_the_metrics():
    scores, labels, matrix = world()
    chosen = search_ensemble(candidates(scores, [10] * 6), labels, 100)
    assert chosen.gap == pytest.approx(gap(mixed(scores, chosen), matrix), abs=1e-6)
    assert sum(chosen.weights) == pytest.approx(1)
    assert min(chosen.weights) > 0


@pytest.mark.parametrize("limit", [10, 25, 47, 1000])
def test_no_subset_at_equal_weights_is_better(limit):
    scores, labels, matrix = world(5)
    sizes = [10, 12, 15, 20, 9]
    chosen = search_ensemble(candidates(scores, sizes), labels, limit)
    assert chosen.bytes <= limit
    best = max(
        gap(scores[list(members)].mean(0), matrix)
        for count in range(1, 6)
        for members in itertools.combinations(range(5), count)
        if sum(sizes[i] for i in members) <= limit
    )
    assert chosen.gap >= best - 1e-6


def test_what_the_file_takes_besides_its_members_counts():
    scores, labels, _ = world(3)
    chosen = search_ensemble(candidates(scores, [10, 10, 10]), labels, 35, shared_bytes=14)
    assert chosen.bytes <= 35
    assert len(chosen.members) <= 2


def test_beyond_twenty_models_the_greedy_path_is_within_the_bytes_and_not_worse_than_a_single_model():
    scores, labels, matrix = world(24)
    sizes = [10 + i for i in range(24)]
    chosen = search_ensemble(candidates(scores, sizes), labels, 60)
    single = max(gap(scores[i], matrix) for i in range(24))
    assert chosen.bytes <= 60
    assert chosen.gap > single + 0.02
    everything = search_ensemble(candidates(scores[:6], sizes[:6]), labels, 60)
    greedy = search_ensemble(candidates(scores[:6], sizes[:6]), labels, 60, exhaustive=0)
    assert everything.gap - 0.01 < greedy.gap <= everything.gap + 0.005


def test_files_of_one_model_in_several_storages_do_not_end_the_greedy_path():
    scores, labels, _ = world(6)
    sizes = [50, 60, 70, 50, 60, 70]
    small = search_ensemble(candidates(scores, sizes), labels, 185)
    rng = np.random.default_rng(1)
    copies = [np.clip(s + 1e-5 * rng.normal(size=s.shape), 0, 1) for s in scores for _ in range(4)]  # alike to 1e-5
    grown = [size * factor for size in sizes for factor in (4, 3, 2, 1)]  # in larger files
    chosen = search_ensemble(candidates(copies, grown), labels, 185)
    assert chosen.bytes <= 185
    assert len(chosen.members) >= 3
    assert chosen.gap >= small.gap - 1e-3


def test_a_useless_member_gets_no_weight():
    scores, labels, _ = world(2)
    useless = np.random.default_rng(5).random(scores[0].shape)
    chosen = search_ensemble(candidates([scores[0], useless], [1, 1]), labels, 10)
    assert chosen.members == ("m0",)


def test_screening_some_clips_judges_the_best_on_all():
    scores, labels, matrix = world(4, clips=300)
    chosen = search_ensemble(candidates(scores, [1] * 4), labels, 10, screen_clips=60)
    assert chosen.gap == pytest.approx(gap(mixed(scores, chosen), matrix), abs=1e-6)


def test_the_cache_keeps_the_highest_and_is_small():
    scores, _, _ = world(1, clips=30, classes=500)
    top = top_scores(scores[0], 50)
    assert top.nbytes == 30 * 50 * 8
    kept = np.sort(top.scores, 1)
    np.testing.assert_allclose(kept, np.sort(scores[0], 1)[:, -50:], rtol=1e-6)
    joined = join_tops([top_scores(scores[0][:10]), top_scores(scores[0][10:])])
    assert np.array_equal(np.sort(joined.scores, 1), kept)


def test_labels_that_no_model_names_still_count():
    scores = np.array([[0.9, 0.5, 0.2, 0.1]])
    top = top_scores(scores, 2)
    assert search_ensemble([Candidate("a", 1, top)], [(0, 3)], 1).gap == 0.5


def test_impossible_searches_are_refused():
    scores, labels, _ = world(2)
    with pytest.raises(DataError, match="smallest, m1, has 20"):
        search_ensemble(candidates(scores, [30, 20]), labels, 19)
    with pytest.raises(DataError, match="m0: predictions of 60 clips, labels of 59"):
        search_ensemble(candidates(scores, [1, 1]), labels[1:], 19)
    with pytest.raises(DataError, match="got none"):
        search_ensemble([], labels, 19)
