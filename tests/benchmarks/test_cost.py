"""The model of cost: what more workers buy, and where they buy nothing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks"), str(Path(__file__).parents[2] / "benchmarks/studies")]
from cost import WORKERS, Pieces, Place, clip_rows, extraction, record_rows  # noqa: E402

PIECES = Pieces(4.0, 0.5, 1.0, 0.1, 2e-5, 1e-5, 0.01, 0.06, 200_000)


def value(row, key):
    return row.figures[key]["value"]


def test_work_is_shared_and_what_each_process_does_is_not():
    one, hundred = (extraction(PIECES, Place(), workers) for workers in (1, 100))
    assert one["work"] == pytest.approx(1_000_000 * 1.6)
    assert 0.9 < one["work"] / (100 * hundred["work"]) < 1  # the largest shard is larger than the mean
    assert hundred["table"] == one["table"] == pytest.approx(20)
    assert hundred["merge"] == one["merge"] > 8000  # a million clips are read once more for their keys
    assert hundred["network"] == pytest.approx(one["network"] / 16)  # of the disk: sixteen workers fill it


def test_the_limit_is_the_stage_that_takes_longest():
    limits = [value(row, "limit") for row in clip_rows(PIECES, Place())]
    assert limits[0] == "work" and limits[-1] == "merge"
    slow = replace(Place(), disk_bytes_s=1e6)
    assert {value(row, "limit") for row in clip_rows(PIECES, slow)[1:]} == {"network"}
    hours = [value(row, "features (h)") for row in clip_rows(PIECES, Place())]
    assert hours == sorted(hours, reverse=True)


def test_money_of_one_worker_is_its_hours_and_more_workers_cost_more():
    rows = clip_rows(PIECES, Place(core_hour=1.0))
    first = rows[0]
    assert value(first, "money") == pytest.approx(
        sum(value(first, key) for key in ("features (h)", "merge (h)", "head, one worker (h)")), rel=1e-4
    )
    assert value(rows[-1], "money") > value(first, "money")


def test_ranks_beyond_a_clip_each_of_a_batch_buy_nothing():
    rows = record_rows(PIECES, Place())
    assert [row.name for row in rows] == [f"records, {n:,}" for n in WORKERS]
    assert [value(row, "limit") for row in rows] == ["work", "network", "network", "batch, and network"]
    assert value(rows[1], "training (h)") > value(rows[0], "training (h)") / 10
