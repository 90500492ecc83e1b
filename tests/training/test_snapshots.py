"""The mean of the last checkpoints: by hand, in a folder as in memory, as many of them as are best."""

import numpy as np
import pytest
import torch
from torch import nn

from vidlet.training.batches import Draw, FeatureClips
from vidlet.training.snapshots import Snapshots
from vidlet.training.statistics import estimate_statistics_


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


class Pairs(nn.Module):
    """A norm over the features of clips, and one that does not learn."""

    def __init__(self):
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm1d(2, momentum=0.02), nn.BatchNorm1d(2).eval()
        self.norm.running_mean.fill_(7.0)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x, mask):
        return self.frozen(self.norm(x[:, 0]))


def test_statistics_measured_anew_are_the_mean_over_batches_and_the_rest_stays():
    features = np.random.default_rng(0).normal(3, 2, (9, 1, 2)).astype(np.float32)
    names = [str(number) for number in range(9)]
    clips = FeatureClips(features.__getitem__, np.eye(9, dtype=np.float32), names, np.ones(2, np.float32))
    made = Pairs()

    def measure(size):
        batches = clips.batches(Draw(size, range(9), {}, (0, 0)))
        estimate_statistics_(made, batches, lambda batch: made(batch.x, batch.mask))

    measure(4)  # 4, 4, and one alone
    assert not made.training and made.norm.momentum == 0.02
    pairs = [features[:4, 0], features[4:8, 0]]
    np.testing.assert_allclose(made.norm.running_mean, np.mean([p.mean(0) for p in pairs], 0), rtol=1e-5)
    np.testing.assert_allclose(made.norm.running_var, np.mean([p.var(0, ddof=1) for p in pairs], 0), rtol=1e-5)
    assert made.frozen.running_mean.tolist() == [0.0, 0.0]
    measure(2)
    np.testing.assert_allclose(made.norm.running_mean, features[:8, 0].mean(0), rtol=1e-5)
    measure(1)  # nothing that could be measured: as it was
    np.testing.assert_allclose(made.norm.running_mean, features[:8, 0].mean(0), rtol=1e-5)
    assert made.norm.momentum == 0.02
