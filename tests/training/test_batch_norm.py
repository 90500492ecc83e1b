"""Batch normalization in trainings: no batch of one clip, and statistics that arrive, however few the updates are."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from training_case import PLAIN, assert_same, frame_clips, made_up, weights
from vidlet.errors import TrainingError
from vidlet.models import build_head
from vidlet.recipe import Averaging, Head, Schedule
from vidlet.training import ClipNetwork, Draw, predict_logits, train_network
from vidlet.training.batches import batch_slices
from vidlet.training.optimizers import for_clips

NETVLAD = {"clusters": 4, "hidden": 16, "experts": 2}


def network(momentum: float = 0.02, name: str = "netvlad") -> ClipNetwork:
    torch.manual_seed(0)
    options = {**NETVLAD, "momentum": momentum} if name == "netvlad" else {}
    return ClipNetwork(build_head(Head(name, options), (6,), 2))


# No batch of one.


@pytest.mark.parametrize("least", [1, 2])
def test_slices_hold_every_item_once_and_differ_from_plain_ones_only_where_too_few_are_left(least):
    for count, size in itertools.product(range(1, 40), range(1, 9)):
        found = batch_slices(count, size, least)
        lengths = [rows.stop - rows.start for rows in found]
        assert [i for rows in found for i in range(count)[rows]] == list(range(count))
        assert min(lengths) >= min(least, count)
        assert max(lengths) <= max(size, least) + least - 1
        plain = [slice(a, min(a + size, count)) for a in range(0, count, size)]
        if size >= least and (count % size == 0 or count % size >= least):
            assert found == plain


def test_the_clip_that_is_left_over_is_joined_by_one_of_the_batch_before():
    assert batch_slices(65, 32, 2) == [slice(0, 32), slice(32, 63), slice(63, 65)]
    assert batch_slices(5, 2, 2) == [slice(0, 2), slice(2, 5)]
    assert batch_slices(3, 1, 2) == [slice(0, 3)]
    assert batch_slices(0, 4) == []


@pytest.mark.parametrize("count", [2, 3, 9, 17, 18])
@pytest.mark.parametrize("micro_batch", [0, 1, 3])
def test_any_count_of_clips_trains_in_parts_or_not(count, micro_batch):
    net = network()
    config = replace(PLAIN, epochs=1, micro_batch=micro_batch)
    progress = train_network(net, made_up(count), made_up(seed=1), config)
    assert progress.updates == -(-count // 8)
    assert np.isfinite(predict_logits(net, made_up(4), 4)).all()


def test_frames_are_batched_alike():
    sizes = [len(batch.names) for batch in frame_clips().batches(Draw(3, range(10), None, (0,), least=2))]
    assert sizes == [3, 3, 2, 2]


def test_a_single_clip_trains_where_nothing_is_normalized_over_clips_and_is_refused_in_one_line_elsewhere():
    train_network(network(name="gru"), made_up(2), made_up(1), replace(PLAIN, epochs=1))
    with pytest.raises(TrainingError, match=r"^1 training clip: the network normalizes over .* needs two at least"):
        train_network(network(), made_up(1), made_up(2), replace(PLAIN, epochs=1))
    plain = ClipNetwork(build_head(Head("window", {"frames": 4, "project": 4, "hidden": 4}), (6,), 2))
    assert train_network(plain, made_up(1), made_up(2), replace(PLAIN, epochs=1)).updates == 1


# Statistics that arrive.


def test_few_updates_of_a_slow_norm_leave_statistics_of_the_trained_network():
    """The trap: 15 updates at momentum .001; before, all that was learned was lost in evaluation."""
    net = network(momentum=0.001)
    config = replace(PLAIN, epochs=3)
    progress = train_network(net, made_up(), made_up(seed=1), config)
    assert progress.history[-1]["val_accuracy"] >= 0.9  # in the epochs, too
    fresh = made_up(seed=2)
    assert (predict_logits(net, fresh, 8).argmax(1) == fresh.targets.argmax(1)).mean() >= 0.9
    assert {norm.momentum for norm in net.modules() if isinstance(norm, torch.nn.BatchNorm1d)} == {0.001}


def test_statistics_of_a_long_training_are_those_of_its_updates():
    """After 1000 updates at momentum .02 nothing of the start is left: nothing is measured anew."""
    net = network(momentum=0.3)
    train_network(net, made_up(), made_up(seed=1), replace(PLAIN, epochs=6))
    norms = [norm for norm in net.modules() if isinstance(norm, torch.nn.BatchNorm1d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {6 * 5}


def test_a_short_training_that_was_cut_off_goes_on_to_the_same_statistics(tmp_path):
    class Killed(BaseException):
        pass

    def kill(row, _):
        if row["epoch"] == 2:
            raise Killed

    config = replace(PLAIN, epochs=4, micro_batch=3)
    whole, cut, again = (network(momentum=0.001) for _ in range(3))
    train_network(whole, made_up(), made_up(seed=1), config, tmp_path / "whole", "x")
    with pytest.raises(Killed):
        train_network(cut, made_up(), made_up(seed=1), config, tmp_path / "cut", "x", report=kill)
    train_network(again, made_up(), made_up(seed=1), config, tmp_path / "cut", "x", resume=True)
    assert_same(weights(whole), weights(again))


# Small sets are seen more often.


def test_a_small_set_is_seen_until_there_are_so_many_updates_and_the_schedule_is_stretched():
    config = replace(PLAIN, epochs=5, least_updates=100, schedule=Schedule("step", 1), early_stopping=2,
                     averaging=Averaging(every=2000))  # fmt: skip
    longer = for_clips(config, 7 * 8)
    assert (longer.epochs, longer.schedule.step_epochs, longer.early_stopping) == (15, 3, 6)
    assert longer.averaging.every == 2000
    assert for_clips(longer, 7 * 8) == longer  # what is long enough stays
    assert for_clips(config, 20 * 8) == config
    averaged = for_clips(replace(config, early_stopping=0, averaging=Averaging(0.0, 4, 2000)), 7 * 8)
    assert averaged.averaging.every == 105 // 8  # the last half


def test_training_counts_updates_where_the_recipe_does():
    told = []
    config = replace(PLAIN, epochs=2, least_updates=21)
    progress = train_network(network(name="gru"), made_up(), made_up(seed=1), config,
                             report=lambda row, epochs: told.append(epochs))  # fmt: skip
    assert progress.updates == 25  # 5 epochs of 5
    assert told == [5] * 5
