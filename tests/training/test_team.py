"""Several processes that train one network learn what one learns; here they are threads (jobs/test_torchrun.py)."""

import copy
import threading
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from test_checkpoint import Killed, kill_after
from test_detector_training import CONFIG as BOXES
from test_detector_training import parts, table  # noqa: F401
from torch import nn

from training_case import AUGMENT, PLAIN, frame_clips, made_up, network, weights
from vidlet.errors import TrainingError
from vidlet.models import build_head
from vidlet.models.head import Head as HeadModule
from vidlet.recipe import Averaging, Head
from vidlet.training import ClipNetwork, predict_logits, train_network
from vidlet.training.detection import fit_detector, validation_loss
from vidlet.training.team import Team, check_alike, own_rows, shared_norms

DRAWING = threading.Lock()  # torch's numbers are drawn by one thread at a time


class Threads(Team):
    """A team whose processes are threads, which exchange what they have in a common list."""

    def __init__(self, rank, board):
        super().__init__(rank, len(board["values"]), rank)
        self.board = board

    def gather(self, value):
        self.board["values"][self.rank] = value
        self.board["barrier"].wait()
        found = list(self.board["values"])
        self.board["barrier"].wait()
        return found

    def tell(self, value):
        return copy.deepcopy(self.gather(value)[0])

    def add(self, tensor):
        return torch.stack(self.gather(tensor.clone())).sum(0)


def run_team(size, work):
    """What ``work(team)`` gives in each of ``size`` threads; the first error of any is raised."""
    board = {"values": [None] * size, "barrier": threading.Barrier(size, timeout=60)}
    found, errors = [None] * size, []

    def run(rank):
        try:
            found[rank] = work(Threads(rank, board))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            board["barrier"].abort()

    threads = [threading.Thread(target=run, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def assert_close(a, b, atol=1e-5):
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_allclose(value, b[name], atol=atol, rtol=0, err_msg=name)


NETS = {
    "gru": lambda: network(hidden=8, units=8, dropout=0.0),
    "netvlad": lambda: ClipNetwork(build_head(Head("netvlad", {"clusters": 4, "hidden": 16, "experts": 2}), (6,), 2)),
}
# AdamW moves by the sign of a gradient, and a bias before a norm has none but rounding.
TRAIN = replace(PLAIN, epochs=3, clip_norm=1.0, class_weights=True, optimizer="sgd", lr=0.02)


def trained(name, config, team=None, folder=None, clips=None, **more):
    with DRAWING:
        torch.manual_seed(3)
        net = NETS[name]()
    together = {} if team is None else {"team": team}
    train, val = clips or (made_up(21), made_up(7, seed=1))
    progress = train_network(net, train, val, config, folder, "x", **together, **more)
    return net, progress


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("changes", [{}, {"micro_batch": 3, "augment": AUGMENT, "averaging": Averaging(0.9)}])
def test_processes_with_one_global_batch_learn_what_one_process_learns(name, size, changes):
    config = replace(TRAIN, **changes)  # 21 clips by 8: the last batch of 5 (and 2) is dealt unevenly
    alone, log = trained(name, config)
    found = run_team(size, lambda team: trained(name, config, team))
    assert_close(weights(alone), weights(found[0][0]))
    for row, other in zip(log.history, found[0][1].history, strict=True):
        assert other == pytest.approx(row, abs=1e-5)
    assert [progress.history for _, progress in found] == [found[0][1].history] * size


def test_a_batch_of_fewer_clips_than_processes_hangs_nobody_and_the_idle_do_not_count():
    clips = (made_up(9), made_up(2, seed=1))  # batches of 8 and of 1; two clips validate three processes
    config = replace(TRAIN, epochs=2)
    alone, _ = trained("gru", config, clips=clips)
    found = run_team(3, lambda team: trained("gru", config, team, clips=clips))
    assert_close(weights(alone), weights(found[0][0]))


class Small(HeadModule):
    """A convolution with a norm on the frames themselves."""

    state_shapes: ClassVar = {}

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4)
        self.classify = nn.Linear(4, 10)

    def forward(self, x, state, mask=None):
        real = self.norm(self.conv(x[mask].to(self.conv.weight.dtype) / 255)).relu().mean((2, 3))
        seen = real.new_zeros(*mask.shape, 4)
        seen[mask] = real
        return self.classify(seen.sum(1) / mask.sum(1, keepdim=True)), {}


@pytest.mark.parametrize("size", [2, 4])
def test_frames_are_read_once_among_all_and_norms_see_all_of_them(size):
    augment = {"flip": 0.5, "crop": 0.3, "light": 0.2}
    config = replace(TRAIN, epochs=2, batch=4, mode="finetune", augment=augment)

    def run(team=None):
        with DRAWING:
            torch.manual_seed(0)
            net, clips, read = ClipNetwork(Small()).double(), frame_clips(), []
        inner = clips.read
        clips.read = lambda index: read.append(index) or inner(index)
        train_network(net, clips, frame_clips(), config, **({} if team is None else {"team": team}))
        return net, read

    alone, _ = run()
    found = run_team(size, run)
    assert_close(weights(alone), weights(found[0][0]), 1e-8)  # so that no rounding hides what is wrong
    assert {i for _, read in found for i in read} == set(range(10))
    # Ten clips by four are 4, 4 and 2; an idle process reads one that does not count. The first reads all at the end.
    assert [len(read) for _, read in found[1:]] == [2 * (3 if size == 4 else 5)] * (size - 1)


def test_norms_of_all_processes_give_the_gradients_of_one():
    torch.manual_seed(0)
    x, target = torch.randn(7, 3, 4, 4), torch.randn(7, 3, 4, 4)

    def run(team=None):
        norm = nn.BatchNorm2d(3, momentum=0.3)
        norm.weight.data = torch.tensor([1.0, 2.0, 0.5])
        rows = [0, 1, 2, 3, 4, 5, 6] if team is None else [[0, 1], [2, 3, 4, 5, 6], [0]][team.rank]
        part = x[rows].clone().requires_grad_()
        if team is None:
            loss = ((norm(part) - target[rows]) ** 2).sum()
        else:
            team.idle = team.rank == 2
            with shared_norms(norm, team):
                loss = ((norm(part) - target[rows]) ** 2).sum() * (not team.idle)
        loss.backward()
        return norm, part.grad

    norm, gradient = run()
    found = run_team(3, run)
    torch.testing.assert_close(torch.cat([found[0][1], found[1][1]]), gradient, atol=1e-5, rtol=1e-5)
    assert not found[2][1].any()
    torch.testing.assert_close(found[0][0].weight.grad + found[1][0].weight.grad, norm.weight.grad)
    torch.testing.assert_close(found[0][0].bias.grad + found[1][0].bias.grad, norm.bias.grad)
    for other, _ in found:
        torch.testing.assert_close(other.running_mean, norm.running_mean)
        torch.testing.assert_close(other.running_var, norm.running_var)
        assert "forward" not in vars(other)


def test_detectors_are_trained_together(table):  # noqa: F811
    config = replace(BOXES, epochs=2, batch=6, optimizer="sgd", lr=1e-3)

    def run(team=None):
        with DRAWING:
            detector, train, val = parts(table)
        progress = fit_detector(detector, train, val, config, **({} if team is None else {"team": team}))
        return detector, progress, val

    alone, log, val = run()
    found = run_team(2, run)
    assert_close(weights(alone), weights(found[0][0]))
    assert found[0][1].history[-1] == pytest.approx(log.history[-1], rel=1e-4)
    shared = run_team(3, lambda team: validation_loss(alone, val, 4, team=team))
    assert shared == pytest.approx([validation_loss(alone, val, 4)] * 3, rel=1e-6)


def test_evaluation_is_dealt_without_padding():
    net, clips = network().eval(), made_up(7)
    whole = predict_logits(net, clips, 2)
    for size in (2, 3, 8):
        for logits in run_team(size, lambda team: predict_logits(net, clips, 2, team=team)):
            np.testing.assert_allclose(logits, whole, atol=1e-6)
        rows = run_team(size, lambda team: list(own_rows(team, 7)))
        assert [row for own in rows for row in own] == list(range(7))


@pytest.mark.parametrize("before, after", [(2, 3), (3, 1), (1, 2)])
def test_a_run_is_resumed_by_another_number_of_processes_and_only_the_first_writes(before, after, tmp_path):
    whole, _ = trained("netvlad", replace(TRAIN, averaging=Averaging(0.9)))

    def go(team, **more):
        return trained("netvlad", replace(TRAIN, averaging=Averaging(0.9)), team, tmp_path, **more)

    def folder_of(team):
        return tmp_path if team.leads else tmp_path / "nobody"

    with pytest.raises(Killed):
        run_team(before, lambda team: go(team, report=kill_after(2) if team.leads else None))
    stamp = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    found = run_team(
        after,
        lambda team: trained("netvlad", replace(TRAIN, averaging=Averaging(0.9)), team, folder_of(team), resume=True),
    )
    assert_close(weights(whole), weights(found[0][0]))
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns > stamp and not (tmp_path / "nobody").exists()


def test_processes_that_differ_are_refused_by_name():
    words = "runs another vidlet ({}, not {})"
    with pytest.raises(TrainingError, match=r"process 2 of 2 runs another vidlet \(0.2.0, not 0.1.0\)"):
        run_team(2, lambda team: check_alike(team, ("0.1.0", "0.2.0")[team.rank], words))
