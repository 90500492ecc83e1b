"""The choice: the mean of the best probes, and what was trained where that helps; the same each time."""

from dataclasses import replace

import numpy as np
import pytest

from vidlet.models.heads import build_head
from vidlet.recipe import Head, Recipe, Training
from vidlet.selection import Decision, Pool, decide
from vidlet.selection.baselines import measure_baselines, middle_frame
from vidlet.selection.candidates import Candidate, probe, probes_of_clips, probes_of_records
from vidlet.selection.choose import MOST, choose, choose_that_fits, judged_without, order_matters
from vidlet.selection.decide import training_of
from vidlet.selection.measure import Measured, judged, measure_probes
from vidlet.training import FeatureClips

Y = np.eye(3)[np.arange(90) % 3]
PLACES = {"block6": (0, (2, 2, 2)), "head": (8, (4,))}


def said(right: float, cut: str = "block6", sure: float = 0.9, seed: int = 0, head: str = "probe") -> Measured:
    """A candidate that names so large a share of 90 clips rightly, and is as sure of wrong names as of right ones."""
    rng = np.random.default_rng(seed)
    named = np.where(rng.permutation(90) < round(90 * right), Y.argmax(1), (Y.argmax(1) + 1) % 3)
    p = np.full((90, 3), (1 - sure) / 2)
    p[np.arange(90), named] = sure
    pool = Pool(clips_of("order"), Y, PLACES, [])
    candidate = probe(cut, "mean") if head == "probe" else Candidate(head, head, (cut,), copies=2)
    return judged(candidate, p, pool)


def clips_of(kind: str, count: int = 90, frames: int = 12, seed: int = 0) -> FeatureClips:
    """Clips of three classes that differ in the order of their frames, or in their mean, in one of twelve numbers."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 3
    items = []
    for label in classes:
        x = rng.normal(0, 0.3, (frames, 12)).astype(np.float32)
        if kind == "order":
            x[:, 0] += np.roll(np.repeat([2.0, 0.0, -2.0], frames // 3), label * frames // 3)
        else:
            x[:, 8] += label
        items.append(x)
    targets = np.eye(3, dtype=np.float32)[classes]
    return FeatureClips(items.__getitem__, targets, [str(i) for i in range(count)], np.ones(12, np.float32))


def folds(count: int = 90) -> list[np.ndarray]:
    return [(np.arange(count) // 3) % 3 == i for i in range(3)]


def test_the_members_are_the_best_probes_in_their_order():
    """0.9 of the clips is not clearly ahead of 0.86 with 90 clips, but of 0.4."""
    found = choose([said(0.4, seed=3), said(0.86), said(0.9, seed=1)], Y)
    assert [m.accuracy for m in found.members] == [pytest.approx(0.9), pytest.approx(0.86, abs=0.01)]
    assert found.weights == (1, 1)


def test_there_are_no_more_probes_than_a_file_should_hold():
    assert len(choose([said(0.9, seed=i) for i in range(7)], Y).members) == MOST


@pytest.mark.parametrize(("right", "there"), [(0.85, True), (0.4, False)])
def test_what_is_kept_is_a_member_unless_it_is_clearly_behind(right, there):
    """The middle of the whole network's clips, whose errors are others than those of what is pooled over time."""
    middle = said(right, seed=9)
    middle = replace(middle, candidate=replace(middle.candidate, kept=True))
    members = choose([*(said(0.9, seed=i) for i in range(4)), middle], Y).members
    assert (middle in members) == there
    assert len(members) == MOST + there


def test_probes_that_err_elsewhere_are_better_together():
    alone, together = ([said(0.8, sure=0.6, seed=i) for i in range(n)] for n in (1, 3))
    assert choose(together, Y).accuracy > choose(alone, Y).accuracy


def test_what_was_trained_counts_as_much_as_all_probes_where_that_is_best():
    probes = [said(0.8, sure=0.6, seed=i) for i in (1, 2)]
    found = choose([*probes, said(0.85, sure=0.6, seed=5, head="grid-gru")], Y)
    assert {m.candidate.head: w for m, w in zip(found.members, found.weights, strict=True)} == {
        "grid-gru": 2,
        "probe": 1,
    }


@pytest.mark.parametrize(("right", "heads"), [(0.2, ["probe"]), (1.0, ["grid-gru"])])
def test_what_was_trained_stays_away_or_alone_where_that_is_better(right, heads):
    found = choose([said(0.6, sure=0.95), said(right, sure=0.95, seed=5, head="grid-gru")], Y)
    assert [m.candidate.head for m in found.members] == heads


def test_a_deeper_cut_must_be_better_for_what_it_costs():
    cheap, deep = said(0.8), said(0.8, cut="head")
    assert choose([deep, cheap], Y).members[0].candidate.cuts == ("block6",)


def test_what_was_tried_on_fewer_clips_is_compared_on_those():
    """The probe is right where the head was not tried, and wrong where it was."""
    trained = said(1.0, sure=0.95, head="grid-gru")
    trained.probabilities[30:] = np.nan
    p = np.full((90, 3), 0.025)
    p[np.arange(90), (Y.argmax(1) + (np.arange(90) < 30)) % 3] = 0.95
    weak = judged(probe("block6", "mean"), p, Pool(clips_of("order"), Y, PLACES, []))
    assert choose([weak, trained], Y).members == (trained,)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_best_by_luck_is_told_as_it_would_be_on_other_clips(seed):
    """Sixty candidates that know nothing: the best of them are right more often than chance where they were chosen."""
    pool = Pool(clips_of("order"), Y, PLACES, folds())
    luck = np.random.default_rng(seed)
    measured = [judged(probe("block6", "mean"), luck.dirichlet(np.full(3, 9.0), 90), pool) for _ in range(60)]
    flattered = choose(measured, Y)
    told = judged_without(flattered, measured, Y, folds())
    assert told.members == flattered.members
    assert flattered.accuracy > 0.4
    assert told.accuracy < 0.37
    assert told.loss > flattered.loss


def test_what_is_good_by_more_than_luck_stays_as_good():
    measured = [said(0.4, seed=3), said(0.9, seed=1)]
    found = choose(measured, Y)
    told = judged_without(found, measured, Y, folds())
    assert (told.accuracy, told.loss) == (pytest.approx(found.accuracy), pytest.approx(found.loss))


def test_a_head_that_was_tried_on_one_fold_leaves_nothing_to_judge_it_by():
    trained = said(1.0, sure=0.95, head="grid-gru")
    trained.probabilities[~folds()[0]] = np.nan
    measured = [said(0.5), trained]
    found = choose(measured, Y)
    assert judged_without(found, measured, Y, folds()) is found


def test_where_clips_and_classes_are_many_probes_are_solved_by_squares_and_are_as_good(monkeypatch):
    pool = Pool(clips_of("order"), Y, PLACES, folds())
    slow = measure_probes(pool, [probe("block6", "segments+steps")])[0]
    monkeypatch.setattr("vidlet.selection.measure.LONG", 1)
    quick = measure_probes(pool, [probe("block6", "segments+steps")])[0]
    assert "squares" not in slow.candidate.options
    assert quick.candidate.options["squares"] > 0
    assert quick.accuracy == pytest.approx(slow.accuracy, abs=0.03)


def test_where_the_order_tells_the_class_an_ordered_probe_wins_and_heads_are_worth_training():
    pool = Pool(clips_of("order"), Y, PLACES, folds())
    measured = measure_probes(pool, [probe("block6", "mean+deviation"), probe("block6", "segments+steps")])
    assert [m.accuracy > 0.95 for m in measured] == [False, True]
    assert not order_matters(measured)  # nothing is left to gain
    assert [m.candidate.ordered for m in choose(measured, Y).members] == [True]


def test_where_the_mean_tells_it_a_probe_without_order_will_do():
    pool = Pool(clips_of("mean"), Y, PLACES, folds())
    measured = measure_probes(pool, probes_of_clips(PLACES))
    assert not order_matters(measured)
    assert choose(measured, Y).accuracy > 0.95


def test_a_decision_becomes_a_recipe_of_the_chosen_cuts_alone():
    plan = Recipe("auto", training=Training(epochs=1))
    pool = Pool(clips_of("mean"), Y, PLACES, folds())
    moments = (np.zeros(12, np.float32), np.ones(12, np.float32))
    decision = decide(pool, plan, moments)
    recipe = decision.recipe(plan, False, {})
    assert decision.cuts == ("head",)
    assert (recipe.extractor.cut, recipe.extractor.grid) == ("head", 0)
    assert decision.columns().tolist() == [8, 9, 10, 11]
    head = build_head(recipe.head, (4,), 3)
    assert head.temperature == pytest.approx(decision.choice.temperature)
    again = decide(pool, plan, moments)
    assert again.findings() == decision.findings()


def test_members_on_two_cuts_find_their_parts_side_by_side():
    both = [said(0.9, cut="block6", sure=0.6), said(0.9, cut="head", sure=0.6, seed=3)]
    decision = Decision(choose(both, Y), tuple(both), PLACES)
    recipe = decision.recipe(Recipe("auto"), False, {})
    assert (recipe.extractor.cut, recipe.extractor.grid) == ("block6/2+head/0", 0)
    members = {tuple(m["shape"]): m["begin"] for m in recipe.head.options["members"]}
    assert members == {(2, 2, 2): 0, (4,): 8}


def test_of_a_head_that_is_trained_the_model_gets_its_copies_each_with_its_share_of_the_weight():
    probes = [said(0.8, sure=0.6, seed=i) for i in (1, 2)]
    measured = [*probes, said(0.85, sure=0.6, seed=5, head="grid-gru")]
    members = Decision(choose(measured, Y), tuple(measured), PLACES).recipe(Recipe("auto"), False, {}).head
    assert [(m["head"], m["weight"]) for m in members.options["members"]] == [
        ("grid-gru", 1),
        ("grid-gru", 1),
        ("probe", 1),
        ("probe", 1),
    ]


@pytest.mark.parametrize(("clips", "epochs"), [(1500, 40), (4800, 40), (100_000, 2)])
def test_the_updates_of_heads_that_are_trained_are_bounded(clips, epochs):
    large = Candidate("large", "grid-gru", ("block6",))
    assert training_of([large], clips)["epochs"] == epochs


def test_every_candidate_of_records_is_a_probe_that_can_be_built():
    for candidate in probes_of_records({"features": (0, (6,))}):
        build_head(Head(candidate.head, candidate.options), (6,), 3)


def test_the_baselines_are_chance_one_frame_mean_and_mean_and_deviation():
    clips = clips_of("mean")
    found = {b.name: b.accuracy for b in measure_baselines(clips, folds(), clips_of("mean", seed=1), False)}
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["mean"] > 0.95
    assert found["one frame"] > 0.8
    assert list(found) == ["chance", "one frame", "mean", "mean and deviation"]


def test_one_frame_is_the_middle_one():
    clips = clips_of("mean", frames=9)
    np.testing.assert_array_equal(middle_frame(clips).read(5), clips.read(5)[4:5])


def test_many_clips_are_offered_probes_of_more_numbers():
    few, many = ({c.name for c in probes_of_clips(PLACES, clips)} for clips in (999, 1000))
    assert many > few
    assert all("segments+steps+deviation+change" in name for name in many - few)


def test_beside_a_trained_head_the_best_probe_that_has_room_is_a_member():
    """The best three fill the file; a lighter one, worse alone, is better with the head than any of them without."""
    large = [said(0.7, seed=seed) for seed in range(3)]
    light = said(0.6, cut="head", seed=5)
    recurrent = said(0.7, seed=7, head="grid-gru")
    size = {id(m): 5 for m in large} | {id(light): 1, id(recurrent): 4}

    def penalty(members):
        return 0.0 if sum(size[id(m)] for m in members) <= 5 else None

    found = choose_that_fits([*large, light, recurrent], Y, penalty)
    assert found.members == (recurrent, light)
    assert choose_that_fits([*large, light], Y, penalty).members == (max(large, key=lambda m: m.accuracy),)
