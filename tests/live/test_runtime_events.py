"""Events: once each, with hysteresis and a shortest duration; held to a slow count and to cases worked by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlet.errors import RecipeError
from vidlet.live.events import Change, Event, EventRule, EventState, advance, finish

RULE = EventRule("wave", above=0.8, below=0.5, min_s=0.5)


def events_from_scores(rule, scores):
    """The events of (time_s, score) in order of time."""
    state, found, last_s = EventState(), [], 0.0
    for last_s, score in scores:
        state, change = advance(rule, state, last_s, score)
        found += [change.ended] if change.ended else []
    last = finish(state, last_s)
    return found + ([last] if last else [])


def at_4_hz(scores):
    """(time_s, score), four a second."""
    return [(number / 4, score) for number, score in enumerate(scores)]


def test_a_score_that_flickers_around_one_border_is_one_event():
    assert events_from_scores(RULE, at_4_hz([0.1, 0.85, 0.7, 0.82, 0.6, 0.9, 0.2, 0.1, 0.1, 0.1])) == [
        Event("wave", 0.25, 0.9, 1.5)
    ]


def test_what_is_short_is_no_event_and_a_short_gap_ends_none():
    assert events_from_scores(RULE, at_4_hz([0.9, 0.9, 0.1, 0.9, 0.1, 0.79, 0.79, 0.79])) == []
    assert events_from_scores(RULE, at_4_hz([0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1])) == [
        Event("wave", 0.0, 0.9, 1.25)
    ]


def test_an_event_is_told_once_while_it_goes_on_and_again_when_it_comes_again():
    scores = at_4_hz([0.9] * 40 + [0.1] * 8 + [0.9] * 40)
    state, began = EventState(), []
    for time_s, score in scores:
        state, change = advance(RULE, state, time_s, score)
        began += [(time_s, change.began.start_s)] if change.began else []
    assert began == [(0.5, 0.0), (12.5, 12.0)]
    assert finish(state, 21.75) == Event("wave", 12.0, 0.9, 21.75)


def test_without_a_shortest_duration_every_crossing_is_told_at_once():
    rule = EventRule("wave", above=0.8, below=0.8, min_s=0.0)
    state, change = advance(rule, EventState(), 1.0, 0.8)
    assert change == Change(began=Event("wave", 1.0, 0.8))
    assert advance(rule, state, 1.1, 0.79) == (EventState(), Change(ended=Event("wave", 1.0, 0.8, 1.1)))
    assert finish(EventState(Event("wave", 0.0, 0.9)), 5.0) is None  # a candidate was never told


@pytest.mark.parametrize("wrong", [{"above": 0}, {"above": 1.2}, {"below": 0.9}, {"below": 0.0}, {"min_s": -1}])
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(RecipeError):
        EventRule("wave", **wrong)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.4, 0.5, 0.7, 0.8, 1.0]), max_size=40))
def test_events_keep_their_guarantees_on_any_scores(scores):
    rows = at_4_hz(scores)
    events = events_from_scores(RULE, rows)
    for event in events:
        inside = [score for time_s, score in rows if event.start_s <= time_s < event.end_s]
        assert event.end_s - event.start_s >= RULE.min_s - 1e-9
        assert inside[0] >= RULE.above and event.score == max(
            inside + [s for t, s in rows if t == event.end_s and s >= 0.5]
        )
    for first, second in itertools.pairwise(events):
        gap = [score for time_s, score in rows if first.end_s <= time_s < second.start_s]
        assert second.start_s - first.end_s >= RULE.min_s and min(gap) < RULE.border
