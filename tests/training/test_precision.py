"""``training.precision``: what it computes in, and what is said where a processor is slow at it."""

from dataclasses import replace

import numpy as np
import torch

from training_case import PLAIN, assert_same, made_up, network, weights
from vidlet.recipe import load_recipe
from vidlet.training import predict_logits, train_network
from vidlet.training.advice import warn_of_precision


def test_bfloat16_learns_as_well_and_keeps_float32_weights():
    clips, found = made_up(), {}
    for precision in ("float32", "bfloat16", "auto"):
        net = network()
        train_network(net, clips, made_up(seed=1), replace(PLAIN, epochs=12, precision=precision))
        assert (predict_logits(net, clips, 8).argmax(1) == clips.targets.argmax(1)).mean() >= 0.95
        found[precision] = weights(net)
    assert_same(found["auto"], found["float32"])  # on a CPU
    assert any((found["bfloat16"][name] != found["float32"][name]).any() for name in found["float32"])
    assert {value.dtype for value in found["bfloat16"].values()} <= {np.dtype("float32"), np.dtype("int64")}


def test_training_says_that_a_processor_must_emulate_bfloat16(monkeypatch, capsys):
    low = load_recipe("viva-1", {"training.precision": "bfloat16"})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True}, raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    warn_of_precision(load_recipe("viva-1"), "cpu")
    warn_of_precision(low, "cuda")
    assert capsys.readouterr().err == ""
    warn_of_precision(low, "cpu")
    assert "no instructions for bfloat16" in capsys.readouterr().err
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    warn_of_precision(low, "cpu")
    assert capsys.readouterr().err == ""
