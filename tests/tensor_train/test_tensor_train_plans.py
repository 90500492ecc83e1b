"""The plans that people see: which contraction, why, what it costs, and warnings where dense would be faster."""

import itertools

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vidlet.jobs.inspect import inspect_text, measure_trains
from vidlet.models import build_head
from vidlet.recipe import Head, recipe_from_dict
from vidlet.runtime.structure import check_structure
from vidlet.runtime.train_plan import TrainPlan, frame_bill, groupings, merge_shapes, plan_frame, tensor_trains
from vidlet.tensor_train import PlannedProduct, TTConv3d, TTLinear, slow_trains
from vidlet.training.advice import warn_of_slow_trains

SHAPES = ((1, 8, 16, 4), (4, 20, 4, 4), (4, 20, 4, 4), (4, 18, 4, 1))


def stored(groups, shapes=SHAPES):
    """The description of a file in which these groups of cores meet the input, each as one tensor."""
    kept = [numpy_helper.from_array(np.zeros(shape, np.float32), f"map.cores.{k}") for k, shape in enumerate(shapes)]
    nodes, state = [], "x"
    for i, group in enumerate(groups):
        whole = f"map.cores.{group[0]}"
        for k in group[1:]:
            nodes.append(helper.make_node("MatMul", [whole, f"map.cores.{k}"], [f"{whole}+{k}"]))
            whole = f"{whole}+{k}"
        nodes.append(helper.make_node("MatMul", [state, whole], [f"y{i}"]))
        state = f"y{i}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", state))
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], kept))
    return tensor_trains(check_structure(model.SerializeToString(), "").graph)[0]


@pytest.mark.parametrize(
    ("groups", "form"),
    [([[0], [1], [2], [3]], "chain"), ([[0], [1], [2, 3]], "merged"), ([[0, 1, 2, 3]], "rebuilt")],
)
def test_a_file_says_how_its_train_is_contracted_and_what_that_should_cost(groups, form):
    found = stored(groups)
    assert (found["form"], found["groups"]) == (form, groups)
    costs = [
        min(frame_bill(merge_shapes(SHAPES, parts), last).us for last in (True, False))
        for parts in (groups, [[0, 1, 2, 3]], [[0], [1], [2], [3]])
    ]
    assert [found[key] for key in ("expected_us", "dense_us", "chain_us")] == pytest.approx(costs, abs=0.051)
    assert f"{costs[1]:,.0f}" in found["why"]  # what it was chosen against is said too
    assert not found["slower"]


def test_the_chosen_plan_is_the_cheapest_of_all():
    best = plan_frame(SHAPES)
    every = [
        frame_bill(merge_shapes(SHAPES, groups), last).us
        for groups, last in itertools.product(groupings(4), (True, False))
    ]
    assert best.us == min(every)


def test_a_file_whose_train_is_slower_than_dense_warns_with_figures():
    tiny = [(1, 2, 2, 2), (2, 2, 2, 2), (2, 2, 2, 1)]  # 8 x 8: three nodes cost more than one product
    found = stored([[0], [1], [2]], tiny)
    assert found["slower"].startswith("map: slower than dense, ")
    assert f"{found['dense_us'] / 1e3:.3g} ms" in found["slower"]


def test_measured_times_stand_beside_the_expected_ones_and_settle_the_warning():
    rows = [stored([[0, 1], [2]], [(1, 4, 8, 3), (3, 5, 4, 3), (3, 6, 4, 1)]), {**stored([[0, 1, 2, 3]]), "places": 9}]
    measure_trains(rows)
    assert 0 < rows[0]["ms"] < 50 and 0 < rows[0]["dense_ms"] < 50
    assert bool(rows[0]["slower"]) == (rows[0]["ms"] > 1.05 * rows[0]["dense_ms"])
    assert rows[1]["ms"] is None
    text = "\n".join(_table(rows))
    assert f"measured {rows[0]['ms']:.3g} ms, dense {rows[0]['dense_ms']:.3g} ms" in text


def test_what_is_measured_is_the_product_of_the_train():
    layer = TTLinear((3, 4), (5, 2), 3, bias=False)
    x = torch.randn(2, 12)
    for groups in (((0,), (1,)), ((0, 1),)):
        got = PlannedProduct(list(layer.cores), TrainPlan(groups))(x)
        torch.testing.assert_close(got, x @ layer.matrix())


class Two(nn.Module):
    """A train that pays and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.large = TTLinear((8, 20, 20, 18), (16, 4, 4, 4), 4)
        self.small = TTLinear((32, 32), (4, 16), 32)
        self.conv = TTConv3d((2, 2), (4, 4), 3, 4, padding=1)

    def forward(self, x, clip):
        return self.small(self.large(x)).sum() + self.conv(clip).sum()


def test_layers_that_train_slower_than_dense_are_named_with_figures():
    network = Two()
    before = [p.clone() for p in network.parameters()]

    def run(shadow):
        shadow(torch.empty(1, 57_600, device="meta"), torch.empty(1, 4, 2, 2, 2, device="meta"))

    lines = slow_trains(network, run)
    assert [line.split(":")[0] for line in lines] == ["small", "conv"]
    assert all("ms against" in line and "training" in line for line in lines)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_training_warns_of_slow_trains_of_a_head_and_says_nothing_of_dense_ones(capsys):
    plan = recipe_from_dict({"name": "x", "training": {"batch": 1}, "sampling": {"rule": "uniform", "frames": 1}})
    slow = build_head(Head("tt-gru", {"in_modes": [8, 8], "out_modes": [8, 8], "ranks": [64]}), (64,), 3)
    found = warn_of_slow_trains(slow, (64,), plan, 1.0, "cpu")
    assert found and "rnn.input_map" in found[0]
    assert capsys.readouterr().err == "".join(f"warning: {line}\n" for line in found)
    assert warn_of_slow_trains(build_head(Head("gru"), (64,), 3), (64,), plan, 1.0, "cpu") == []


def _table(rows):
    found = {
        "path": "m.onnx", "bytes": dict.fromkeys(("weights", "graph", "metadata", "total"), 1), "parameters": 1,
        "metadata": {"labels": ["a"], "recipe": {}, "sampling": {"rule": "rate", "hz": 8, "median_s": 1.0}},
        "inputs": [], "state": [], "outputs": [], "parts": [], "tensors": [], "operators": {}, "tensor_trains": rows,
    }  # fmt: skip
    return inspect_text(found).splitlines()


def test_the_text_of_inspect_shows_form_reason_and_warning():
    found = stored([[0], [1], [2, 3]])
    slow = {**stored([[0], [1], [2]], [(1, 2, 2, 2), (2, 2, 2, 2), (2, 2, 2, 1)]), "name": "head.tiny"}
    text = "\n".join(_table([found, slow]))
    assert "merged 1 | 2 | 3-4" in text and found["why"] in text
    assert f"warning: {slow['slower']}" in text
