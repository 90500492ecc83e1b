"""Chains of compression steps: how recipes write them, and that they are applied in order."""

import onnx
import pytest

from vidlet.compression import GRAPH_STEPS, Step, chain_text, file_name, find_chain, shrink_graph
from vidlet.compression.chain import parse_chain
from vidlet.errors import RecipeError

NETWORK, GRAPH = ("units", "distill"), ("int8", "sparse")


def test_a_chain_is_read_from_left_to_right_with_its_amounts():
    chain = parse_chain("units:0.5 + distill+int8", NETWORK, GRAPH)
    assert chain == (Step("units", 0.5), Step("distill"), Step("int8"))
    assert chain_text(chain) == "units:0.5+distill+int8"
    assert parse_chain(chain_text(chain), NETWORK, GRAPH) == chain


@pytest.mark.parametrize(
    ("text", "name"),
    [("int8", "model.int8.onnx"), ("units:0.5+int8", "model.units0.5-int8.onnx"), ("sparse:2", "model.sparse2.onnx")],
)
def test_a_file_is_named_for_its_chain(text, name):
    assert file_name(parse_chain(text, NETWORK, GRAPH)) == name
    assert file_name(()) == "model.onnx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", r"unknown step 'int9' \(did you mean int8\?\); known: distill, int8, sparse, units"),
        ("int8+units", "'int8\\+units': units changes the network and must stand before int8"),
        ("units:half", "the amount of a step is a positive number, got 'half'"),
        ("units:-1", "the amount of a step is a positive number, got '-1'"),
        ("units:inf", "the amount of a step is a positive number, got 'inf'"),
        ("", "unknown step ''"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_with_its_reason(text, message):
    with pytest.raises(RecipeError, match=message):
        parse_chain(text, NETWORK, GRAPH)


def test_the_graph_steps_of_a_chain_are_applied_in_its_order(monkeypatch):
    def noted(name):
        def step(graph, amount, clips):
            return onnx.ModelProto(producer_name=f"{graph.producer_name} {name} {amount}")

        return step

    for name in ("int8", "half"):
        monkeypatch.setitem(GRAPH_STEPS, name, noted(name))
    assert shrink_graph(find_chain("half:3+int8"), onnx.ModelProto(), []).producer_name == " half 3.0 int8 None"
