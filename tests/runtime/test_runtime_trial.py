"""A network of others that the judge does not know is run once in a process with limits, before it runs here."""

import subprocess
import sys

import numpy as np
import pytest
from onnx import helper

import artifacts
from vidlet.errors import ModelError
from vidlet.runtime.trial import TRUST, check_runnable

GIB = 2**30


def model(nodes, stored=()):
    value = helper.make_tensor_value_info
    return artifacts.model_of(
        nodes, [value("x", 1, [1, 3])], [value("made", 1, None)], list(stored)
    ).SerializeToString()


def endless():
    value = helper.make_tensor_value_info
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "b",
        [value("i", 7, []), value("go", 9, [])],
        [value("on", 9, [])],
    )
    nodes = [helper.make_node("Loop", ["m", "yes"], [], body=turn), helper.make_node("Identity", ["x"], ["made"])]
    return model(nodes, [artifacts.constant("m", 2**62, np.int64), artifacts.constant("yes", True, bool)])


def test_what_the_judge_does_not_know_runs_if_it_behaves():
    check_runnable(model([helper.make_node("Einsum", ["x", "x"], ["made"], equation="ij,kj->ik")]), "net.onnx")


def test_a_network_that_never_ends_is_refused():
    with pytest.raises(
        ModelError, match=r"^net\.onnx: (refused, one run of it takes more than 3 s|cannot be run within)"
    ):
        check_runnable(endless(), "net.onnx", seconds=3)


def test_a_network_that_takes_all_memory_is_refused():
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("ReduceSum", ["c"], ["t"], keepdims=0)]
    nodes.append(helper.make_node("Add", ["x", "t"], ["made"]))
    much = model(nodes, [artifacts.constant("s", [2**35], np.int64)])
    with pytest.raises(ModelError, match=r"^net\.onnx: cannot be run within 2048 MiB"):
        check_runnable(much, "net.onnx", memory_bytes=2 * GIB, seconds=30)


def test_trust_skips_the_trial_and_not_the_structure(monkeypatch):
    monkeypatch.setenv(TRUST, "1")
    check_runnable(endless(), "net.onnx", seconds=1)
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        check_runnable(endless()[:-9], "net.onnx")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
def test_a_limit_that_was_set_before_is_kept_and_no_reason_to_refuse():
    code = """
import resource, sys
limit = 5 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from vidlet.runtime.trial import check_runnable
check_runnable(sys.stdin.buffer.read(), "net.onnx")
"""
    network = model([helper.make_node("Einsum", ["x", "x"], ["made"], equation="ij,kj->ik")])
    ended = subprocess.run([sys.executable, "-c", code], input=network, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
