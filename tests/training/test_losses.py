"""Optimizers, schedules and losses, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from training_case import PLAIN, made_up, network, rng
from vidlet.recipe import Schedule
from vidlet.training import predict_logits, train_network
from vidlet.training.losses import batch_loss, class_weights, clip_weights, teacher_losses
from vidlet.training.optimizers import make_optimizer, rate_at


def test_sgd_has_momentum_and_decays_matrices_only():
    net, config = network(name="mean", units=0), replace(PLAIN, optimizer="sgd", lr=0.5, weight_decay=0.1)
    optimizer = make_optimizer(net.head, None, config)
    layer = net.head.classifier[1]
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        layer.weight.grad, layer.bias.grad = torch.ones_like(weight), torch.ones_like(bias)
        optimizer.step()
        velocity = [0.9 * velocity[0] + 1 + 0.1 * weight, 0.9 * velocity[1] + 1]
        weight, bias = weight - 0.5 * velocity[0], bias - 0.5 * velocity[1]
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer.bias.detach(), bias)


def test_the_step_schedule_falls_to_a_tenth_every_so_many_epochs():
    config = replace(PLAIN, schedule=Schedule("step", 30))
    assert [rate_at(config, n, 4) for n in (0, 119, 120, 239, 240, 360)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_the_teachers_loss_is_torchs_divergence_and_nothing_where_both_agree():
    draw = torch.Generator().manual_seed(0)
    said, answer = torch.randn(5, 3, generator=draw), torch.randn(5, 3, generator=draw)
    p, q = (answer / 3).softmax(1), (said / 3).softmax(1)
    torch.testing.assert_close(teacher_losses(said, answer, 3.0), 9 * (p * (p / q).log()).sum(1))
    torch.testing.assert_close(teacher_losses(said, said + 7, 3.0), torch.zeros(5), atol=1e-5, rtol=0)
    gradient = torch.autograd.functional.jacobian(lambda x: teacher_losses(x, answer, 1.0, True).sum(), answer)
    torch.testing.assert_close(gradient, torch.zeros(5, 3), atol=1e-6, rtol=0)


def test_a_clip_without_a_label_counts_nothing_in_the_labels_loss():
    logits, y = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    partly = y.clone()
    partly[2] = torch.nan
    of_class = torch.tensor([0.5, 1.0, 1.5])
    assert clip_weights(partly, of_class).tolist() == [0.5, 1.0, 0.0, 0.5]
    kept = [0, 1, 3]
    for of in (None, of_class):
        expected = batch_loss(logits[kept], y[kept], 0.1, of, False)
        torch.testing.assert_close(batch_loss(logits, partly, 0.1, of, False), expected)
    assert batch_loss(logits, torch.full_like(y, torch.nan), 0.1, None, False).item() == 0


def test_the_keras_decay_divides_by_one_plus_a_millionth_of_the_updates():
    config = replace(PLAIN, schedule=Schedule("keras-decay"))
    assert [rate_at(config, n, 5) for n in (0, 1000, 1_000_000)] == pytest.approx([1.0, 1 / 1.001, 0.5])


def test_the_cosine_warms_up_over_a_tenth_and_ends_at_zero():
    config = replace(PLAIN, schedule=Schedule("cosine"), epochs=10)  # 10 updates an epoch: 100 in all, 10 of them warm
    assert [rate_at(config, n, 10) for n in range(10)] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert rate_at(config, 10, 10) == pytest.approx(1.0)
    assert rate_at(config, 55, 10) == pytest.approx(0.5)
    assert rate_at(config, 40, 10) == pytest.approx(0.75)
    assert rate_at(config, 100, 10) == pytest.approx(0.0)
    assert rate_at(replace(config, schedule=Schedule("constant")), 77, 10) == 1.0


def test_the_learning_rate_of_the_log_is_the_schedules(tmp_path):
    config = replace(PLAIN, schedule=Schedule("cosine"), epochs=4, lr=0.02)
    progress = train_network(network(), made_up(), made_up(seed=1), config, tmp_path, "x")
    assert [row["lr"] for row in progress.history] == pytest.approx(
        [0.02 * rate_at(config, 5 * epoch + 4, 5) for epoch in range(4)]
    )


def test_class_weights_are_the_inverse_roots_of_the_counts_with_mean_one():
    found = class_weights(np.repeat(np.eye(4, dtype=np.float32), [1, 4, 16, 0], axis=0))
    np.testing.assert_allclose(found, [1 / (7 / 12), 0.5 / (7 / 12), 0.25 / (7 / 12), 0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(np.eye(3, dtype=np.float32)), 1.0)


def test_the_weighted_loss_is_torchs_cross_entropy():
    draw = rng()
    logits = torch.from_numpy(draw.normal(size=(6, 3)).astype(np.float32))
    labels = torch.from_numpy(draw.integers(0, 3, 6))
    y, of_class = functional.one_hot(labels, 3).float(), torch.tensor([0.5, 1.0, 2.0])
    for smoothing, of in ((0.0, None), (0.1, None), (0.0, of_class)):
        expected = functional.cross_entropy(logits, labels, weight=of, label_smoothing=smoothing)
        assert batch_loss(logits, y, smoothing, of, False).item() == pytest.approx(expected.item(), rel=1e-6)


def test_with_many_labels_each_is_a_question_of_its_own():
    logits, y = torch.tensor([[0.0, 2.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    by_hand = [math.log(2) + math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)) + math.log(2)]
    assert batch_loss(logits, y, 0.0, None, True).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


def test_many_labels_a_clip_are_learned(tmp_path):
    clips = made_up(60, classes=3)
    clips.targets = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    features = [clips.read(i) for i in range(60)]
    for i in range(0, 60, 2):  # every second clip shows the next class too
        features[i][:, (i + 1) % 3] += 1.5
        clips.targets[i, (i + 1) % 3] = 1
    net = network(classes=3, hidden=16, units=64)
    train_network(net, clips, clips, replace(PLAIN, epochs=15), tmp_path, "x", multi_label=True)
    assert ((predict_logits(net, clips, 8) > 0) == (clips.targets > 0)).mean() >= 0.9
