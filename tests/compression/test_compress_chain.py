"""Chains of compression steps: how recipes write them, and that they are applied in order."""

import onnx
import pytest

from vidlet import recipe
from vidlet.cli import parser_of
from vidlet.cli.before_work import check_paths
from vidlet.compression import (
    BOX_STEPS,
    CLIP_STEPS,
    Step,
    StepEntry,
    chain_text,
    file_name,
    find_chain,
    integer_steps,
    shrink_graph,
    split_chain,
)
from vidlet.compression.chain import parse_chain
from vidlet.errors import RecipeError

FEW = {name: CLIP_STEPS[name] for name in ("units", "distill", "int8", "sparse")}


def test_a_chain_is_read_from_left_to_right_with_its_amounts():
    chain = parse_chain("units:0.5 + distill+int8", CLIP_STEPS)
    assert chain == (Step("units", 0.5), Step("distill"), Step("int8"))
    assert chain_text(chain) == "units:0.5+distill+int8"
    assert parse_chain(chain_text(chain), CLIP_STEPS) == chain


@pytest.mark.parametrize(
    ("text", "name"),
    [("int8", "model.int8.onnx"), ("units:0.5+int8", "model.units0.5-int8.onnx"), ("sparse:2", "model.sparse2.onnx")],
)
def test_a_file_is_named_for_its_chain(text, name):
    assert file_name(parse_chain(text, FEW)) == name
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
        parse_chain(text, FEW)


def test_the_graph_steps_of_a_chain_are_applied_in_its_order(monkeypatch):
    def noted(name):
        def step(graph, amount, clips):
            return onnx.ModelProto(producer_name=f"{graph.producer_name} {name} {amount}")

        return step

    for name in ("int8", "half"):
        monkeypatch.setitem(CLIP_STEPS, name, StepEntry(noted(name)))
    assert shrink_graph(find_chain("half:3+int8"), onnx.ModelProto(), []).producer_name == " half 3.0 int8 None"


def test_the_table_says_what_a_step_is():
    training, storage = split_chain(find_chain("units:0.5+ensemble:2+head4+int8:0.01+compact"), CLIP_STEPS)
    assert chain_text(training) == "units:0.5+ensemble:2" and chain_text(storage) == "head4+int8:0.01+compact"
    assert integer_steps(storage, CLIP_STEPS) == ()  # a bound on the loss: which layers are integers, the head decides
    assert integer_steps(find_chain("head4+int8"), CLIP_STEPS) == (Step("int8"),)
    assert not any(entry.trains and (entry.lossless or entry.integers(None)) for entry in CLIP_STEPS.values())


def test_the_names_that_are_known_before_torch_are_those_of_the_tables():
    own = [name for name, step in CLIP_STEPS.items() if step.apply.__module__.startswith("vidlet.")]  # no plugin's
    assert tuple(own) == recipe.CLIP_STEPS
    assert tuple(BOX_STEPS) == recipe.BOX_STEPS


@pytest.mark.parametrize(
    "words", [["compress", "{run}", "{clips}", "half+intt8"], ["sweep", "{clips}", "--chain", "half", "intt8"]]
)
def test_a_step_that_there_is_not_is_refused_before_anything_is_loaded(words, tiny_run, motion_clips):
    given = [word.format(run=tiny_run.folder, clips=motion_clips) for word in words]
    args = parser_of(given[0]).parse_args(given[1:])
    args.command = given[0]
    with pytest.raises(RecipeError, match=r"unknown step 'intt8' \(did you mean int8\?\)"):
        check_paths(args)
    args = parser_of(given[0]).parse_args([word.replace("intt8", "int8") for word in given[1:]])
    args.command = given[0]
    check_paths(args)
