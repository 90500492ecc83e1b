"""A head that is trained on stored features before it is trained end to end with its extractor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vidlet.datasets import read_table
from vidlet.recipe import Recipe, load_recipe
from vidlet.runs import RunFolder
from vidlet.tasks import TASKS
from vidlet.tasks import clip_networks as module
from vidlet.tasks.networks import Order
from vidlet.tasks.transfer import open_start

CHANGES = {"training.head_epochs": 3, "training.epochs": 1, "training.least_updates": 0}


@pytest.fixture
def trained(monkeypatch, tmp_path_factory):
    """What was trained: (whether the extractor was, epochs, the mean that the head knew), one after the other."""
    calls, real = [], module.train_network
    monkeypatch.setattr(module, "HEAD_FIRST", replace(module.HEAD_FIRST, least_updates=0))
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path_factory.mktemp("cache")))

    def train(network, train, val, config, *given, **more):
        progress = real(network, train, val, config, *given, **more)
        known = network.head.state_dict()["standardize.mean"].abs().max().item()
        calls.append((network.extractor is not None, config.epochs, known > 0))
        return progress

    monkeypatch.setattr(module, "train_network", train)
    return calls


def fit(plan: Recipe, table, folder, **more):
    networks = TASKS["clips"].networks()
    network = networks.build(plan, table, None)
    prepared = networks.prepare(plan, table, network, False)
    networks.fit(network, prepared, Order(plan, plan.training, table, RunFolder(folder), "", **more))
    return network


def test_the_head_is_trained_first_and_then_all_of_it(trained, motion_clips, tmp_path):
    table = read_table(motion_clips)
    fit(load_recipe("tiny-grid-gru", CHANGES), table, tmp_path)
    assert [call[:2] for call in trained] == [(False, 3), (True, 1)]
    assert all(known for _, _, known in trained)  # the scale of the features stays
    assert (tmp_path / "head.pt").exists() and (tmp_path / "extractor.pt").exists()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2  # of the epochs end to end


def test_end_to_end_goes_on_from_the_head(trained, motion_clips, tmp_path):
    table = read_table(motion_clips)
    still = CHANGES | {"training.lr": 1e-9, "training.extractor_lr": 0.0, "training.averaging.decay": 0.0}
    network = fit(load_recipe("tiny-grid-gru", still), table, tmp_path / "both")
    frozen = load_recipe("tiny-grid-gru", still)
    own = replace(module.HEAD_FIRST, epochs=3, label_smoothing=frozen.training.label_smoothing)
    frozen = replace(frozen, training=replace(own, seed=frozen.training.seed))
    alone = fit(frozen, table, tmp_path / "alone")
    for name, value in alone.head.state_dict().items():
        torch.testing.assert_close(network.head.state_dict()[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_a_training_that_goes_on_or_begins_from_another_has_its_head_already(trained, motion_clips, tiny_run, tmp_path):
    table, plan = read_table(motion_clips), load_recipe("tiny-grid-gru", CHANGES)
    fit(plan, table, tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()
    trained.clear()
    fit(plan, table, tmp_path, resume=True)
    assert [call[0] for call in trained] == [True]
    trained.clear()
    fit(plan, table, tmp_path / "other", start=open_start(tiny_run.folder))
    assert [call[0] for call in trained] == [True]


def test_without_epochs_for_it_no_head_is_trained_first(trained, motion_clips, tmp_path):
    fit(load_recipe("tiny-grid-gru", CHANGES | {"training.head_epochs": 0}), read_table(motion_clips), tmp_path)
    assert [call[0] for call in trained] == [True]
