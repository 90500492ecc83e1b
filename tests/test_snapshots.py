"""The mean of the last checkpoints: by hand, in a folder as in memory, as many of them as are best."""

import pytest
import torch
from torch import nn

from vidlet.training.snapshots import Snapshots


def network(value=0.0):
    made = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    nn.init.constant_(made[0].weight, value)
    return made


def walk(snapshots, values):
    """Updates 1, 2 ... with these weights and as running means."""
    made = network()
    for update, value in enumerate(values, 1):
        nn.init.constant_(made[0].weight, value)
        made[1].running_mean.fill_(10 * value)
        made[1].num_batches_tracked.fill_(update)
        snapshots.keep(made, update)
    return made


@pytest.mark.parametrize("folder", [False, True])
def test_every_second_update_is_kept_and_the_last_three_stay(folder, tmp_path):
    snapshots = Snapshots(3, 2, tmp_path if folder else None)
    walk(snapshots, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert snapshots.updates() == [4, 6, 8]
    mean = snapshots.mean([4, 6, 8])
    assert mean["0.weight"].tolist() == [[6.0, 6.0]]
    assert mean["1.running_mean"].tolist() == [60.0]
    assert mean["1.num_batches_tracked"].item() == 8


def test_another_start_finds_what_lies_in_the_folder(tmp_path):
    walk(Snapshots(2, 1, tmp_path), [1, 2, 3])
    assert Snapshots(2, 1, tmp_path).updates() == [2, 3]


@pytest.mark.parametrize(("target", "count"), [(8.0, 1), (7.5, 2), (6.5, 4), (5.5, 6)])
def test_as_many_are_averaged_as_are_best(target, count):
    snapshots = Snapshots(6, 1)
    made = walk(snapshots, [1, 2, 3, 4, 5, 6, 7, 8])
    snapshots.choose_(made, lambda: -abs(made[0].weight.mean().item() - target))
    assert snapshots.chosen == count
    assert made[0].weight.mean().item() == pytest.approx(target)


def test_without_any_the_network_stays():
    made = network(3.0)
    Snapshots(4, 50).choose_(made, lambda: pytest.fail("nothing to judge"))
    assert torch.equal(made[0].weight, torch.full((1, 2), 3.0))
