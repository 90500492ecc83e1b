"""Batches of clips as frames in parts that find room."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidlet.datasets import read_table
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Extractor, Head, Training, load_recipe
from vidlet.tasks import prepare
from vidlet.training import ClipNetwork, Draw, FrameClips, train_network
from vidlet.training import parts as module
from vidlet.training.parts import activation_bytes, clips_at_once, free_bytes, parts_of

CONFIG = Training(mode="finetune", epochs=2, batch=6, optimizer="sgd", lr=3e-2, extractor_lr=3e-2)


def network(still: bool = True) -> ClipNetwork:
    """Of random weights, with norms that hold ``still``, as those of pretrained extractors do."""
    torch.manual_seed(0)
    extractor = build_extractor(Extractor("mobilenetv2", 0.35, (32, 32), "block3", 2, "none"))
    extractor.freeze_norm = still
    options = {"channels": 3, "project": 6, "hidden": 5, "dropout": 0.0}
    return ClipNetwork(build_head(Head("grid-gru", options), extractor.feature_shape, 3), extractor)


def clips(count: int = 8) -> FrameClips:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, 4, 32, 32, 3), np.uint8)
    return FrameClips(frames.__getitem__, np.eye(3, dtype=np.float32)[np.arange(count) % 3], ["clip"] * count)


def see(count: int):
    x = torch.full((count, 4, 3, 32, 32), 100.0)
    return lambda net: (torch.rand(3), net(x, torch.ones(count, 4, dtype=torch.bool)))


def test_activations_grow_with_clips_and_nothing_is_changed_by_counting_them():
    net = network().train()
    before, drawn = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    one, three = (activation_bytes(net, see(count), "cpu") for count in (1, 3))
    weights = sum(4 * p.numel() for p in net.parameters())
    assert one > weights and 1.5 * one < three < 3 * one  # weights are kept, too, and do not grow
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(p.grad is None for p in net.parameters())


def test_as_many_clips_at_once_as_find_room(monkeypatch, capsys):
    net = network()
    each = activation_bytes(net, see(1), "cpu")
    for free, room, expected in ((None, 10 * each, 6), (None, 3.5 * each, 3), (4.5 * each, 10 * each, 2), (1, 1, 1)):
        monkeypatch.setattr(module, "free_bytes", lambda device, free=free: free)
        monkeypatch.setattr(module, "ROOM", room)
        assert clips_at_once(net, see(1), 1, 6, "cpu") == expected
    assert "warning" not in capsys.readouterr().err


def test_a_network_that_normalizes_gets_the_batch_whole_unless_memory_is_short(monkeypatch, capsys):
    net = network(still=False)
    each = activation_bytes(net, see(1), "cpu")
    monkeypatch.setattr(module, "ROOM", each)
    monkeypatch.setattr(module, "free_bytes", lambda device: 100 * each)
    assert clips_at_once(net, see(1), 1, 6, "cpu") == 6
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr(module, "free_bytes", lambda device: 6.5 * each)
    assert clips_at_once(net, see(1), 1, 6, "cpu") == 3
    assert "there is memory for 3 of the 6 clips of a batch" in capsys.readouterr().err


def test_in_parts_that_find_room_the_weights_move_as_in_whole_batches(monkeypatch):
    found, counts = [], []
    for room in (1e12, 1):
        monkeypatch.setattr(module, "ROOM", room)
        net = network()
        see_parts = net.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
        train_network(net, clips(), clips(3), replace(CONFIG, precision="float32"))
        see_parts.remove()
        found.append(net.state_dict())
    assert 6 in counts and 1 in counts
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=2e-5, rtol=1e-4, msg=name)
    start = network().state_dict()
    assert any((found[0][name] - value).abs().max() > 1e-3 for name, value in start.items())


@pytest.mark.parametrize(("clips", "most", "least", "sizes"), [
    (7, 0, 1, [7]), (7, 3, 1, [2, 2, 3]), (7, 100, 1, [7]), (3, 1, 2, [3]), (1, 1, 1, [1]),
])  # fmt: skip
def test_parts_are_about_equally_long(clips, most, least, sizes):
    assert [part.stop - part.start for part in parts_of(clips, most, least)] == sizes


def test_free_memory_is_told_where_the_system_tells_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MEMORY", tmp_path / "meminfo")
    assert free_bytes("cpu") is None
    (tmp_path / "meminfo").write_text("MemTotal:       24680000 kB\nMemAvailable:    1000 kB\n")
    assert free_bytes("cpu") == 1_024_000


def test_frames_that_find_no_room_in_memory_are_decoded_again(motion_clips, monkeypatch):
    table, plan = read_table(motion_clips), load_recipe("tiny-grid-gru")
    read, decoded = prepare.read_clip, []
    monkeypatch.setattr(
        prepare, "read_clip", lambda path, *given, **more: decoded.append(path) or read(path, *given, **more)
    )
    kept = []
    for free in (None, 0):
        monkeypatch.setattr(prepare, "free_bytes", lambda device, free=free: free)
        found = prepare.prepare_frames(plan, table, build_extractor(plan.extractor), False)
        decoded.clear()
        kept.append(next(found.train.batches(Draw(4, range(4)))).x)
        assert len(decoded) == (0 if free is None else 4)
    assert torch.equal(*kept)
