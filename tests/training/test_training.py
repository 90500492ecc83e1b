"""The loop: it learns, gives the same weights for the same seed, and says what went wrong."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from training_case import AUGMENT, PLAIN, assert_same, grids, made_up, network, weights
from vidlet.errors import TrainingError
from vidlet.recipe import Averaging, Schedule
from vidlet.training import Teacher, predict_logits, train_network


def test_a_separable_problem_is_learned(tmp_path):
    net = network()
    progress = train_network(net, made_up(), made_up(seed=1), replace(PLAIN, epochs=12), tmp_path, "x")
    assert progress.history[-1]["val_accuracy"] >= 0.95
    assert progress.history[-1]["val_loss"] < progress.history[0]["val_loss"]
    assert not net.training
    clips = made_up(seed=2)
    assert (predict_logits(net, clips, 8).argmax(1) == clips.targets.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize(
    "config", [PLAIN, replace(PLAIN, augment=AUGMENT, averaging=Averaging(0.9), schedule=Schedule("cosine"))]
)
def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(config, tmp_path):
    found = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        net = network()
        train_network(net, made_up(), made_up(seed=1), replace(config, epochs=2, seed=seed), tmp_path / place, "x")
        found.append(weights(net))
    assert_same(found[0], found[1])
    assert any((found[0][name] != found[2][name]).any() for name in found[0])


def test_early_stopping_keeps_the_weights_of_the_lowest_validation_loss(tmp_path):
    net = network(name="window", frames=8, project=8, hidden=8, dropout=0.0)  # no norm: as it was judged, it is kept
    config = replace(PLAIN, epochs=30, lr=0.1, early_stopping=3)
    val = made_up(20, seed=5)
    val.targets[::5] = 1 - val.targets[::5]  # labels that training contradicts: the loss rises with confidence
    progress = train_network(net, made_up(), val, config, tmp_path, "x")
    losses = [row["val_loss"] for row in progress.history]
    assert progress.epoch == progress.best_epoch + 3 < 30
    assert progress.best_loss == min(losses) == losses[progress.best_epoch - 1]
    kept = functional.cross_entropy(torch.from_numpy(predict_logits(net, val, 8)), torch.from_numpy(val.targets))
    assert kept.item() == pytest.approx(progress.best_loss, rel=1e-5)


def test_the_log_has_a_row_an_epoch(tmp_path):
    progress = train_network(network(), made_up(), made_up(seed=1), replace(PLAIN, epochs=3), tmp_path, "x")
    with (tmp_path / "log.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["val_loss"]) == pytest.approx(progress.history[2]["val_loss"], rel=1e-5)
    assert progress.updates == 3 * math.ceil(40 / 8)


def test_a_loss_that_is_not_finite_says_where(tmp_path):
    config, bad = replace(PLAIN, batch=8), 13
    order = np.random.default_rng([0, 0]).permutation(40).tolist()
    batch = order.index(bad) // 8
    with pytest.raises(TrainingError) as told:
        train_network(network(), made_up(bad=bad), made_up(seed=1), config, tmp_path, "x")
    assert f"the loss became nan in epoch 1, batch {batch + 1} " in str(told.value)
    assert f"clip{order[8 * batch]}.mp4" in str(told.value)
    assert "training.lr" in str(told.value)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_without_a_folder_nothing_is_written_and_the_weights_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, held, free = replace(PLAIN, epochs=2, averaging=Averaging(0.9)), network(), network()
    train_network(held, made_up(), made_up(seed=1), config, tmp_path / "run", "x")
    train_network(free, made_up(), made_up(seed=1), config)
    assert_same(weights(free), weights(held))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("of_class", [False, True])
def test_a_batch_in_parts_moves_the_weights_as_the_whole_batch_does(of_class):
    found = []
    for size in (0, 1, 3, 100):
        net = network(name="grid-gru", channels=3, project=6, hidden=5, dropout=0.0, classes=3)
        config = replace(PLAIN, epochs=2, batch=7, micro_batch=size, class_weights=of_class, label_smoothing=0.1)
        teacher = Teacher(lambda x, mask: x.sum((1, 3, 4))[:, :3], share=0.3)
        train_network(net, grids(), grids(seed=1), config, teacher=teacher)
        found.append(weights(net))
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_allclose(other[name], value, atol=1e-5, err_msg=name)
    start = weights(network(name="grid-gru", channels=3, project=6, hidden=5, dropout=0.0, classes=3))
    assert abs(found[0]["head.project.weight"] - start["head.project.weight"]).max() > 1e-2


def test_hold_is_called_after_every_update_before_the_average_moves():
    net, calls = network(name="mean", units=0), []

    def hold() -> None:
        net.head.classifier[1].weight.data[:, 0] = 0
        calls.append(1)

    progress = train_network(net, made_up(), made_up(seed=1), replace(PLAIN, epochs=2), hold=hold)
    assert len(calls) == progress.updates
    assert (net.head.classifier[1].weight[:, 0] == 0).all()
    assert (net.head.classifier[1].weight[:, 1:] != 0).all()


def test_a_teacher_alone_teaches_what_the_labels_do_not_say():
    clips, truth = made_up(60), made_up(60).targets
    clips.targets = np.full_like(truth, np.nan)  # no clip has a label
    net = network()
    teacher = Teacher(lambda x, mask: 4 * (x * mask[..., None]).sum(1)[:, :2], temperature=2.0, share=0.5)
    progress = train_network(net, clips, made_up(seed=1), replace(PLAIN, epochs=10), teacher=teacher)
    assert progress.history[-1]["val_accuracy"] >= 0.95
    assert progress.history[-1]["train_accuracy"] == 0  # of no clip it is known what is right
