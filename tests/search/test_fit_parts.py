"""The parts of a budget search that need no training: budgets, the log, the choice of trials, the front."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidlet.datasets import Clip, ClipTable
from vidlet.errors import RecipeError, TrainingError
from vidlet.recipe import load_recipe
from vidlet.search import clips as clips_module
from vidlet.search.budget import Budget, parse_bytes, parse_milliseconds, parse_seconds, quiet
from vidlet.search.cards import Card, Cards
from vidlet.search.choice import ALIKE, best_first, deliverable
from vidlet.search.course import Asked, Course, time_told
from vidlet.search.data import Judged
from vidlet.search.halving import Search, finalists
from vidlet.search.points import by_quality, front, what_if
from vidlet.search.proxy import Outcome
from vidlet.search.realize import RESERVE, ClipPoint, Timing
from vidlet.search.space import (
    ALONE,
    MEMBER_BYTES,
    STORAGES,
    Candidate,
    Space,
    Storage,
    cuts_of,
    first_candidates,
    is_known,
    known_cost,
)
from vidlet.search.trials import TrialLog, holds_search

CANDIDATE = Candidate("mobilenetv2 block6 224 px", 8.0, 16, 64, 64, True, 0.2, 0.0, 0.2, 2e-3)
SPACE = Space(epochs=20, rounds=(0.25, 1.0))
MEASURED = {"frame_ms": {"p50": 3.0, "p95": 4.0}, "clip_ms": {"p50": 60.0, "p95": 70.0}, "peak_rss_bytes": 90_000_000}


@pytest.mark.parametrize(
    ("text", "size"), [("1MB", 10**6), ("256KiB", 2**18), ("800000", 800000), ("1.5 kb", 1500), ("64KB", 64000)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_bytes(text) == size


def test_times_are_read_as_people_write_them():
    assert [parse_seconds(t) for t in ("30m", "90s", "2h", "90")] == [1800, 90, 7200, 90]
    assert [parse_milliseconds(t) for t in ("8ms", "0.5s", "8")] == [8, 500, 8]


@pytest.mark.parametrize("text", ["", "1XB", "-1MB", "0", "MB", "1e6"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(RecipeError, match=f"{text!r}: expected a size such as 1MB"):
        parse_bytes(text)


def test_a_budget_names_each_limit_that_a_file_breaks():
    budget = Budget(max_bytes=1000, max_latency_ms=3.5, max_memory_bytes=10**8, slowdown=2.0)
    assert budget.broken(1000) == []
    assert budget.broken(1001) == ["1,001 bytes, allowed 1,000"]
    assert budget.broken(10, MEASURED) == ["8.00 ms a frame (p95), allowed 3.5"]
    assert replace(budget, latency=("frame", "p50"), slowdown=1.0).broken(10, MEASURED) == []
    assert replace(budget, max_memory_bytes=1, max_latency_ms=None).broken(10, MEASURED) == [
        "90,000,000 bytes of memory, allowed 1"
    ]


def test_the_log_keeps_whole_lines_and_drops_the_one_that_was_cut_off(tmp_path):
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path, "a")
    log.add("trial", number=1)
    log.add("trial", number=2)
    path.write_bytes(path.read_bytes()[:-5])  # killed while it wrote
    again = TrialLog(path, "a")
    assert [r["number"] for r in again.of("trial")] == [1]
    again.add("trial", number=3)
    assert [json.loads(line).get("number") for line in path.read_text().splitlines()] == [None, 1, 3]
    with pytest.raises(TrainingError, match=r"trials.jsonl: belongs to a search of other data"):
        TrialLog(path, "b")


def test_the_log_of_a_refused_search_stands_in_the_way_of_no_other(tmp_path):
    path = tmp_path / "trials.jsonl"
    TrialLog(path, "a").add("card", bytes=3)
    assert [record["kind"] for record in TrialLog(path, "a").records] == ["begin", "card"]
    other = TrialLog(path, "b")
    assert (other.records, holds_search(path)) == ([], False)
    other.add("trial", round=0)
    assert [record.get("identity") for record in TrialLog(path, "b").records] == ["b", None]
    with pytest.raises(TrainingError, match="belongs to a search of other data"):
        TrialLog(path, "a")


def test_what_an_impossible_budget_leaves_is_no_search(tmp_path):
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path, "a")
    assert not path.exists() and not holds_search(path)  # nothing is written before there is something to say
    log.add("card", card={"place": "block3"})
    assert path.exists() and not holds_search(path)
    log.add("trial", number=1)
    assert holds_search(path)
    path.write_text("something else\n")
    assert holds_search(path)


def worth(candidate, epochs):
    """A made-up truth: wider is better, up to noise-free saturation; more epochs show more of it."""
    size = candidate.hidden + candidate.project
    return Outcome(min(0.9, size / 500) * (0.5 + 0.5 * epochs / 20), 1.0, 0.1)


def small(candidate):
    return candidate.hidden + candidate.project <= 192


def play(search, trials):
    """Run a search with an answer for every trial; the trials in their order."""
    asked = []
    for _ in range(trials):
        job = search.next()
        if job is None:
            break
        asked.append((job[0].key, job[1]))
        search.finish(*job, worth(job[0], search.rounds[job[1]]))
    return asked


def test_a_search_tries_only_what_fits_and_nothing_twice(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), small, small)
    asked = play(search, 60)
    assert len(asked) == len(set(asked)) == 60
    assert all(small(trial.candidate) for trial in search.trials)
    best = search.best()[0]
    assert best.round == 1
    assert best.candidate.hidden + best.candidate.project >= 160  # of at most 192


def test_the_better_third_of_a_round_goes_on(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), small, small)
    play(search, 60)
    begun: list[float] = []
    for trial in search.trials:  # in the order in which they ended
        if trial.round == 0:
            begun.append(trial.outcome.score)
        else:
            own = next(
                t.outcome.score for t in search.trials if t.round == 0 and t.candidate.key == trial.candidate.key
            )
            assert sum(score > own for score in begun) < max(1, len(begun) / 3)
    assert len(search.trials) - len(begun) >= len(begun) // 4


def test_what_would_train_too_long_is_not_continued(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), small, small, seconds=30.0)
    slow = {48, 64, 96, 128, 192, 256}  # hidden units: 10 s for 5 of 20 epochs
    for _ in range(60):
        job = search.next()
        assert job is not None
        found = worth(job[0], search.rounds[job[1]])
        search.finish(*job, replace(found, seconds=10.0 if job[0].hidden in slow else 5.0))
    went_on = [trial.candidate for trial in search.trials if trial.round == 1]
    assert went_on and not any(candidate.hidden in slow for candidate in went_on)


def test_a_search_that_was_stopped_goes_on_without_repeating_a_trial(tmp_path):
    log = TrialLog(tmp_path / "t.jsonl", "a")
    before = play(Search(SPACE, log, small, small), 25)
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), small, small)
    assert len(search.trials) == 25
    after = play(search, 25)
    assert not set(before) & set(after)


def test_a_search_ends_where_nothing_fits(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), lambda candidate: False, lambda candidate: False)
    assert search.next() is None


def test_the_random_baseline_begins_nowhere_and_tries_what_fits_once(tmp_path):
    space = replace(SPACE, sampler="random", rounds=(1.0,))
    search = Search(space, TrialLog(tmp_path / "t.jsonl", "a"), small, small)
    asked = play(search, 30)
    assert len(set(asked)) == 30
    assert {number for _, number in asked} == {0}
    assert all(small(trial.candidate) for trial in search.trials)


def test_first_candidates_are_of_the_space_and_differ():
    space = Space(cuts_of(cuts=("block3", "block6"), size=96), rates_hz=(8.0,))
    first = first_candidates(space)
    assert {c.place for c in first} == {"mobilenetv2 block3 96 px", "mobilenetv2 block6 96 px"}
    assert {c.hz for c in first} == {8.0}
    assert len({c.key for c in first}) == len(first)
    assert {c.kind for c in first} == {"grid-gru", "tt-grid-gru", "pooled"}
    assert next(c.place for c in first if c.kind == "pooled") == "mobilenetv2 block6 96 px"  # the deeper
    assert {c.kind for c in first_candidates(replace(space, kinds=("grid-gru",)))} == {"grid-gru"}
    assert [(e.cut, e.grid) for e in cuts_of()][-2:] == [("block14", 4), ("block16", 2)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_kind_of_head_is_drawn_and_builds(tmp_path, sampler):
    space = replace(SPACE, sampler=sampler, rounds=(1.0,), begin=())
    search = Search(space, TrialLog(tmp_path / "t.jsonl", "a"), lambda c: True, lambda c: True)
    play(search, 30)
    drawn = {trial.candidate.kind: trial.candidate for trial in search.trials}
    assert set(drawn) == {"grid-gru", "tt-grid-gru", "pooled"}
    numbers = {}
    for kind, candidate in drawn.items():
        head = replace(candidate, channels=8, project=64, hidden=64).counted_head((32, 4, 4), 5)
        assert type(head).__name__ == {"grid-gru": "GridGRU", "tt-grid-gru": "TTGridGRU", "pooled": "Pooled"}[kind]
        numbers[kind] = sum(p.numel() for p in head.parameters())
    assert numbers["tt-grid-gru"] < numbers["grid-gru"]
    assert numbers["pooled"] == 2 * 32 * 16 * 5 + 5  # mean and deviation, linear
    again = Search(space, TrialLog(tmp_path / "t.jsonl", "a"), lambda c: True, lambda c: True)
    assert [t.candidate for t in again.trials] == [t.candidate for t in search.trials]


def point(size, ms, accuracy):
    measured = {**MEASURED, "frame_ms": {"p50": ms, "p95": ms}}
    return ClipPoint(
        candidate=CANDIDATE, chain="int8", file="f.onnx", bytes=size, accuracy=accuracy, loss=1.0, interval=(0.0, 1.0),
        clips=10, measured=measured, temperature=None, seconds=1.0,
    )  # fmt: skip


def test_the_front_holds_what_nothing_beats_in_size_time_and_accuracy():
    best, quick, small_one = point(300, 3, 0.9), point(300, 1, 0.8), point(100, 3, 0.7)
    beaten = point(301, 3, 0.89)
    assert front([beaten, best, quick, small_one]) == [small_one, best, quick]


def test_what_is_behind_a_plain_classifier_or_behind_guessing_is_not_delivered():
    plain = replace(point(100, 1, 0.6), candidate=replace(CANDIDATE, kind="linear", recipe="{}"))
    worse, better = point(50, 1, 0.5), point(300, 3, 0.7)
    assert deliverable([worse, plain, better], 0.25) == [plain, better]
    assert deliverable([worse, better], 0.25) == [worse, better]
    assert deliverable([worse, plain, better], 0.65) == [better]
    known = {"head_worth": 0.0, "judged": 0.4, "judged_accuracy": 0.45}  # on all folds: both, or neither counts
    assert deliverable([replace(better, **known), plain], 0.25) == [replace(better, **known), plain]
    on_all = replace(plain, head_worth=plain.own, judged=0.5, judged_accuracy=0.55)
    assert deliverable([replace(better, **known | {"head_worth": better.own}), on_all], 0.25) == [on_all]
    assert deliverable([on_all], 0.6) == []


def test_a_smaller_file_that_is_alike_is_not_behind_but_never_one_that_names_fewer_clips_rightly():
    plain = replace(point(24_000, 1, 0.9), candidate=replace(CANDIDATE, kind="linear", recipe="{}"), loss=0.0717)
    small_one = replace(plain, chain="int8+compact", bytes=14_000, loss=0.0743)  # .00013 of a score
    assert deliverable([plain, small_one], 0.25) == [plain, small_one]
    assert best_first([plain, small_one])[0] == small_one
    unsure = replace(small_one, loss=plain.loss + 0.09)  # .0045 of a score
    assert deliverable([plain, unsure], 0.25) == [plain]
    fewer = replace(small_one, accuracy=0.899, loss=0.06)  # alike in its score, one clip of a thousand wrong
    assert plain.own - ALIKE < fewer.own < plain.own
    assert deliverable([plain, fewer], 0.25) == [plain]
    folds = {"head_worth": plain.own, "judged": 0.8, "judged_accuracy": 0.81}
    whole = replace(plain, **folds)
    assert deliverable([whole, replace(small_one, **folds)], 0.25) == [whole, replace(small_one, **folds)]
    assert deliverable([whole, replace(small_one, **folds | {"judged_accuracy": 0.809})], 0.25) == [whole]
    assert deliverable([whole, replace(small_one, **folds | {"judged": 0.795})], 0.25) == [whole]


def test_at_each_budget_the_file_is_named_that_would_be_chosen():
    plain = replace(point(24_000, 1, 0.9), candidate=replace(CANDIDATE, kind="linear", recipe="{}"), loss=0.07)
    small_one = replace(plain, chain="int8+compact", bytes=14_000, loss=0.0743)
    behind_it = replace(point(10_000, 1, 0.95), loss=3.0)  # most accurate on its clips, and most unsure

    def rank(points):
        return best_first(deliverable(points, 0.25))

    rows = what_if([plain, small_one, behind_it], Budget(max_bytes=20_000), rank, plain)
    assert [row["best"] and row["best"]["bytes"] for row in rows] == [10_000, 24_000, 14_000]
    assert [row["best"]["bytes"] for row in what_if([plain, small_one], Budget(), by_quality, None)] == [14_000] * 3


def test_bytes_of_a_head_are_counted_by_their_storage():
    head = CANDIDATE.counted_head((32, 4, 4), 10)
    numbers = [p.numel() for p in [*head.parameters(), *head.buffers()]]
    assert Storage("", 32, 0.0).head_bytes(head) == 4 * sum(numbers)
    assert Storage("int8", 8, 0.0).head_bytes(head) < 0.35 * 4 * sum(numbers)
    three = Storage("ensemble:3+int8+compact", 8, 0.0, 3)
    assert three.head_bytes(head) == 3 * Storage("int8+compact", 8, 0.0).head_bytes(head) + 2 * MEMBER_BYTES
    assert three.stored == "int8+compact"
    tuned = Storage("int8", 8, 0.0).distilled()
    assert (tuned.chain, tuned.stored, tuned.trainings, three.trainings) == ("distill+int8", "int8", 2, 3)
    assert (Storage("", 32, 0.0).distilled().chain, Storage("", 32, 0.0).distilled().stored) == ("distill", "")


def test_of_a_pruned_head_half_the_bytes_count_and_one_training_more():
    plain = Storage("int8+compact", 8, 0.002)
    pruned = plain.pruned()
    head = CANDIDATE.counted_head((32, 4, 4), 10)
    assert (pruned.chain, pruned.stored, pruned.trainings) == ("units:0.5+int8+compact", "int8+compact", 2)
    assert pruned.head_bytes(head) == plain.head_bytes(head) / 2
    assert pruned.penalty > plain.penalty


def test_what_is_too_large_for_a_tier_is_looked_at_with_half_of_its_units(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), lambda c: True, lambda c: True)
    large = replace(CANDIDATE, channels=32, project=192, hidden=256)
    cards = Cards(classes=10)
    cards.add(CANDIDATE.place, (32, 4, 4), [Card(CANDIDATE.place, s.chain, 50_000, MEASURED) for s in ALONE])
    sizes = {c: cards.bytes(c, next(s for s in ALONE if s.chain == "int8+compact")) for c in (CANDIDATE, large)}
    search.finish(large, 0, Outcome(0.8, 1.0, 3.0))
    found = {(c.hidden, s.chain) for c, s in finalists(search, cards, Budget(max_bytes=sizes[CANDIDATE]))}
    assert found and all(chain.startswith("units:0.5+") for _, chain in found)
    search.finish(CANDIDATE, 0, Outcome(0.7, 1.0, 1.0))
    order = finalists(search, cards, Budget(max_bytes=10**7))
    assert order[0] == (large, max(cards.storages(large, Budget()), key=lambda s: -s.penalty))
    assert {s.chain for c, s in order if c == large and s.members == 1} >= {"distill", ""}
    assert len(order) == len(set(order))


def test_what_is_known_of_a_storage_is_known_by_its_chain():
    of = {storage.chain: storage.penalty for storage in STORAGES}
    assert known_cost("ensemble:2+int8+compact") == of["ensemble:2+int8+compact"] < 0 < known_cost("int8+compact")
    assert known_cost("distill+int8+compact") == known_cost("int8") == known_cost("int8+compact")
    assert known_cost("") == known_cost("prune:0.5+half") == 0
    assert 0 < known_cost("head4") == pytest.approx(known_cost("head4+int8") - known_cost("int8"))
    assert known_cost("ensemble:3") < known_cost("ensemble:2") < 0
    for storage in STORAGES:  # what a search makes of each is known by its chain too, where half of the units are gone
        assert known_cost(storage.pruned().chain) == pytest.approx(storage.pruned().penalty)
        assert is_known(storage.chain) and is_known(storage.pruned().chain) and not is_known(storage.distilled().chain)
    assert not is_known("prune:0.5+half+int8") and is_known("")


def test_a_file_of_a_candidate_judged_on_all_folds_is_chosen_by_that_and_by_what_its_chain_cost():
    alone = point(100, 1, 0.8)
    assert alone.score == pytest.approx(0.8 - 0.05)
    whole = replace(alone, head_worth=0.78, judged=0.70)
    assert whole.score == pytest.approx(0.70 + (0.75 - 0.78))


@pytest.mark.parametrize(
    ("known", "error", "effect"),
    [(0.0, 0.0, -0.03), (-0.01, 0.01, -0.01), (-0.01, 0.005, -0.02), (0.02, 0.01, -0.01), (0.02, 0.1, 0.02)],
)
def test_the_effect_of_a_chain_counts_as_it_is_known_but_for_what_is_beyond_two_standard_errors(known, error, effect):
    """These clips show -.03."""
    found = replace(point(100, 1, 0.8), head_worth=0.78, judged=0.70, known_effect=known, effect_error=error)
    assert found.score == pytest.approx(0.70 + effect)
    assert replace(found, judged=None).score == pytest.approx(0.78 + effect)


def test_the_time_of_a_file_follows_from_the_longest_trial(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), small, small)
    candidate = replace(CANDIDATE, project=96)
    search.finish(candidate, 0, Outcome(0.5, 1.0, 3.0))  # 5 of 20 epochs
    assert search.expected_seconds(candidate) == 12.0
    search.finish(candidate, 1, Outcome(0.6, 1.0, 10.0))  # all of them
    assert search.expected_seconds(candidate) == 10.0
    search.folds = 2  # a trial trained twice, a file is trained once
    assert search.expected_seconds(candidate) == 5.0


@pytest.mark.parametrize(("clips", "least"), [(5000, 10), (2000, 18), (100, 20)])
def test_files_train_for_fewer_epochs_where_time_is_short_and_clips_are_many(tmp_path, clips, least):
    search = Search(SPACE, TrialLog(tmp_path / "trials.jsonl", "a"), lambda c: True, lambda c: True)
    search.finish(CANDIDATE, 0, Outcome(0.5, 1.0, 10.0))  # 5 of 20 epochs: 40 s for all
    table = ClipTable([Clip(Path(str(i)), "ab"[i % 2], split="train") for i in range(clips)], ("a", "b"), tmp_path)
    judged = Judged(table, (table,), table.of_split("test"), "no clips")
    three = next(storage for storage in STORAGES if storage.members == 3)

    def timed(seconds):
        timing = Timing(Asked("", tmp_path, Budget(), seconds), judged, tmp_path)
        timing.trials, timing.epochs = search, SPACE.epochs
        return timing

    measuring = timed(1.0).measuring
    assert timed(1000.0).epochs_for([(CANDIDATE, three)], SPACE) == 20
    assert timed(10.0).epochs_for([(CANDIDATE, three)], SPACE) == least
    middle = timed((5 * measuring + 0.95 * 120) / RESERVE)  # three heads of 40 s; two files and the steps beside
    assert middle.epochs_for([(CANDIDATE, three)], SPACE) == max(19, least)
    both = [(CANDIDATE, three), (CANDIDATE, ALONE[1])]
    one = timed((5 * measuring + 1.1 * 40) / RESERVE)  # too little for three heads of half the epochs: one, with all
    assert one.epochs_for(both, SPACE) == 20
    assert timed(1000.0).file(CANDIDATE, three) == pytest.approx(120 + 4 * measuring)
    seen = timed(1000.0)
    file = replace(point(300, 3, 0.9), seconds=80.0)
    seen.saw(file, took=90.0, expected=40.0)  # twice as long as expected, and 10 s to measure it
    assert seen.file(CANDIDATE, three) == pytest.approx(240 + 4 * 10)
    assert seen.room(file) in (99, 100)  # nothing is left to train


def test_a_trial_counts_as_whole_on_several_folds_and_all_epochs_only(tmp_path):
    search = Search(SPACE, TrialLog(tmp_path / "t.jsonl", "a"), small, small, folds=3)
    play(search, 30)
    whole = next(t for t in search.trials if t.round == 1)
    part = next(
        t for t in search.trials if (t.candidate.key, 1) not in {(u.candidate.key, u.round) for u in search.trials}
    )
    assert search.whole(whole.candidate) == whole.outcome
    assert search.whole(part.candidate) is None
    search.folds = 1
    assert search.whole(whole.candidate) is None


def test_what_an_extractor_costs_decides_in_which_storages_a_candidate_may_come():
    cards = Cards(classes=10)
    cards.add(CANDIDATE.place, (32, 4, 4), [Card(CANDIDATE.place, s.chain, 50_000, MEASURED) for s in ALONE])
    chains = [s.chain for s in cards.storages(CANDIDATE, Budget(max_bytes=260_000))]
    assert chains[0].startswith("ensemble:3")  # promises most
    assert "" not in chains  # in float32 the head alone is too large
    for storage in (s for s in STORAGES if s.chain in chains):
        assert cards.bytes(CANDIDATE, storage) <= 260_000
    assert cards.storages(CANDIDATE, Budget(max_bytes=260_000, max_latency_ms=3.5)) == []
    assert cards.possible(CANDIDATE.place, Budget(max_bytes=70_000))
    assert not cards.possible(CANDIDATE.place, Budget(max_bytes=50_000))
    pooled = replace(CANDIDATE, kind="pooled")
    assert {s.members for s in cards.storages(pooled, Budget())} == {1}  # alike from every start
    assert "with 4.00 ms a frame" in cards.nearest(Budget(max_latency_ms=1.0))


@pytest.mark.parametrize(
    "damage", [b"3.5\n", b"{}\n", b"\xff\xfe\n", b"{\n", b"[" * 5000 + b"\n", b'{"kind": 4}\n', b"null\n"]
)
def test_a_damaged_line_of_the_log_is_said_and_those_behind_it_stay(tmp_path, capsys, damage):
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path, "id")
    for number in range(3):
        log.add("trial", number=number)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, *lines[3:], b'{"kind": "trial", "num']))
    again = TrialLog(path, "id")
    assert [record["number"] for record in again.of("trial")] == [0, 2]
    assert "line 3 is damaged and left out" in capsys.readouterr().err
    again.add("trial", number=3)
    assert [record["number"] for record in TrialLog(path, "id").of("trial")] == [0, 2, 3]
    assert capsys.readouterr().err == ""


def test_where_a_busy_machine_measured_every_file_too_slow_they_are_timed_again(tmp_path, monkeypatch):
    asked = Asked("clips", tmp_path, Budget(max_bytes=10**6, max_latency_ms=3.0), 10.0)
    course = Course(asked, None, None, TrialLog(tmp_path / "trials.jsonl", ""), None, {}, "")
    slow, slower = point(1000, 7.0, 0.9), point(2000, 9.0, 0.9)
    course.points += [slow, slower]
    assert course.able() == [slow, slower]
    answers = iter([point(1, ms, 0.9).measured for ms in (4.0, 2.0)])
    monkeypatch.setattr("vidlet.search.course.benchmark", lambda *_, **__: next(answers))
    assert course.first_that_fits(course.able()) is slower
    course.points.append(quick := point(3000, 2.5, 0.9))
    assert course.able() == [quick]


def test_on_a_machine_that_is_never_quiet_a_file_is_judged_by_its_quickest_call_and_that_is_said(tmp_path, monkeypatch):
    asked = Asked("clips", tmp_path, Budget(max_latency_ms=3.0), 10.0)
    course = Course(asked, None, None, TrialLog(tmp_path / "trials.jsonl", ""), None, {}, "")

    def timed(p95, least):
        return {**MEASURED, "frame_ms": {"p50": p95 / 2, "p95": p95, "least": least}}

    assert quiet(timed(9.0, 2.0))["frame_ms"] == {"p50": 2.5, "p95": 2.5, "least": 2.0}
    assert quiet(timed(2.1, 2.0)) == timed(2.1, 2.0) and quiet(MEASURED) == MEASURED
    slow, busy = (
        replace(point(1, 1, 0.9), measured=timed(9.0, 2.9)),
        replace(point(2, 1, 0.8), measured=timed(8.0, 2.0)),
    )
    course.points += [slow, busy]
    assert course.able() == [busy]  # 2.9 ms at best are more than 3 in one call of twenty
    measured = []

    def benchmark(path, **_):
        measured.append(path.name)
        return timed(7.0, 2.9 if len(measured) == 1 else 2.0)

    monkeypatch.setattr("vidlet.search.course.benchmark", benchmark)
    assert course.first_that_fits([slow, busy]) is busy
    assert len(measured) == 1 + 3  # what cannot keep it once, what could as often as is worth it
    [doubt] = course.doubts
    assert "7.00 ms a frame (p95), allowed 3; the quickest call took 2.00 ms" in doubt
    kept = replace(point(3, 1, 0.7), file="kept.onnx")
    times = {kept.file: timed(2.9, 2.8)}
    monkeypatch.setattr("vidlet.search.course.benchmark", lambda path, **_: times.get(path.name, timed(7.0, 2.0)))
    assert course.first_that_fits([busy, kept]) is kept and not course.doubts  # what keeps it as measured goes first
    monkeypatch.setattr("vidlet.search.course.benchmark", lambda *_, **__: timed(2.5, 2.0))
    assert course.first_that_fits([busy]) is busy and not course.doubts


@pytest.mark.parametrize(("left", "epochs", "told"), [(200.0, 20, []), (75.0, 15, ["the last training had 15 epochs"])])
def test_the_last_training_is_shortened_where_the_time_is_and_it_is_said(monkeypatch, tmp_path, left, epochs, told):
    """A recurrent head of 20 epochs takes 100 s; a log of an older version knows no seconds of it."""
    taken = []
    monkeypatch.setattr(clips_module, "refit", lambda plan, *_: taken.append(plan.training.epochs) or (1, 1))
    plan = replace(load_recipe("auto"), training=replace(load_recipe("auto").training, epochs=20))
    member = {"head": "grid-gru", "options": {}, "weight": 1.0}
    plan = replace(plan, head=replace(plan.head, name="blend", options={"members": [member]}))
    candidate = Candidate.listed("place", plan, "auto")
    search = object.__new__(clips_module.ClipSearch)
    search.judged = SimpleNamespace(test=[1], folds=[None])
    search.asked = SimpleNamespace(left=left, device="cpu")
    search.solved, search.files, search.budget = [(candidate, None)], tmp_path, Budget()
    search.course = SimpleNamespace(missed=[])
    search.timing = SimpleNamespace(last=lambda *_: 0.0, again=1.0, epochs=20)
    search.space = SimpleNamespace(recipe=lambda *_: plan)
    search.log = SimpleNamespace(of=lambda kind: iter([{"again_s": 100.0}]))
    (tmp_path / "model.onnx").write_bytes(b"")
    chosen = SimpleNamespace(candidate=candidate, chain="", seconds=1.0)
    assert search._refit(chosen, tmp_path / "model.onnx") and taken == [epochs]
    assert [text[: len(told[0])] for text in search.course.missed] == told if told else not search.course.missed
    search.log = SimpleNamespace(of=lambda kind: iter([]))
    assert search._seconds(candidate, "again_s") == 0.0
    tried = {"again_s": 100.0, "epochs": 20, "whole": 50}  # was tried for 20 epochs of 50, for the time that files take
    search.log = SimpleNamespace(of=lambda kind: iter([tried]))
    search.timing.measuring, search.timing.test_share = 5.0, 2.0
    for seconds, longer in ((1000.0, 50), (210.0, 36), (110.0, 20), (75.0, 15)):
        search.asked.left = seconds
        assert search._refit(chosen, tmp_path / "model.onnx") and taken[-1] == longer


@pytest.mark.parametrize(("left", "epochs"), [(300.0, 40), (150.0, 25), (130.0, 20), (60.0, 10), (45.0, 0)])
def test_where_time_is_short_a_recurrent_head_comes_before_files_that_explain(left, epochs):
    """An epoch of all clips takes 1 s, and it is tried on three quarters of them; all files take 100 s, one 40 s."""
    search, added = object.__new__(clips_module.ClipSearch), []
    search.log = SimpleNamespace(of=lambda kind: iter([]), add=lambda kind, **values: added.append(values))
    search.judged = SimpleNamespace(folds=[None], test=[1])
    search.timing = SimpleNamespace(left=left, least=100.0, delivering=40.0)
    plan = SimpleNamespace(epochs=40)
    paced = SimpleNamespace(member=SimpleNamespace(copies=1), training=plan, epoch_s=1.0)
    assert search._epochs_of(paced, kept=True) == epochs
    assert added[0]["epochs"] == epochs and added[0]["again_s"] == epochs and added[0]["whole"] == 40


@pytest.mark.parametrize(("took", "why"), [(95.0, "the time was over"), (50.0, "what was left of the time did not do")])
def test_a_search_that_ends_before_its_time_says_so(tmp_path, monkeypatch, capsys, took, why):
    monkeypatch.setattr("vidlet.search.course.now", lambda: took)
    asked = Asked(str(tmp_path), tmp_path, Budget(), 100.0, began=0.0)
    (warning,) = time_told(asked, ["no head was tried"])["warnings"]
    assert (
        warning.startswith(why)
        and "; no head was tried; " in warning
        and " of 100 s: " in warning.replace("2 min", "100 s")
    )
    assert not time_told(asked, [])["warnings"]
