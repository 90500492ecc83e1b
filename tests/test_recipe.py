"""Recipes: validated once, wrong keys named with the nearest valid one."""

import dataclasses
import math

import pytest

from vidlet.errors import RecipeError
from vidlet.recipe import (
    Extractor,
    Sampling,
    Training,
    load_recipe,
    parse_override,
    recipe_from_dict,
    recipe_names,
    recipe_to_dict,
    save_recipe,
)


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_is_valid_and_survives_writing(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    save_recipe(recipe, tmp_path / "again.toml")
    assert load_recipe(tmp_path / "again.toml") == recipe
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_an_override_changes_one_value_and_keeps_its_type():
    recipe = load_recipe(
        "mobilenetv2-grid-gru", dict([parse_override("training.epochs=3"), parse_override("training.lr=1")])
    )
    assert recipe.training.epochs == 3
    assert recipe.training.lr == 1.0
    assert isinstance(recipe.training.lr, float)


def test_a_bare_word_is_a_string():
    assert parse_override("extractor.weights=none") == ("extractor.weights", "none")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epoch=3", r"unknown key training\.epoch \(did you mean epochs\?\)"),
        ("training.epochs=many", r"training\.epochs must be int, got 'many'"),
        ("training.epochs=2.5", r"training\.epochs must be int"),
        ("training.epochs=0", r"training\.epochs must be from 1 to"),
        ("training.optimizer=adam", r"training\.optimizer must be one of adamw, sgd"),
        ("training.precision=bfloat", r"must be one of auto, float32, bfloat16, .* \(did you mean bfloat16\?\)"),
        ("training.step_epochs=0", r"training\.step_epochs must be from 1 to"),
        ("training.micro_batch=-1", r"training\.micro_batch must be from 0 to"),
        ("training.l2={classify = -1}", r"training\.l2\.classify must be a number, 0 or more"),
        ("sampling.rule=rates", r"did you mean rate"),
        ("extractor.input_size=[3]", r"input_size must have 2 values"),
        ("training.class_weights=1", r"class_weights must be bool"),
        ("name.x=1", r"name is not a section"),
    ],
)
def test_a_wrong_override_is_named(override, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("mobilenetv2-grid-gru", dict([parse_override(override)]))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean mobilenetv2-gru"):
        load_recipe("mobilenetv2-gro")


def test_a_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(RecipeError, match=r"bad\.toml: not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_an_override_without_a_value_says_what_is_expected():
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        parse_override("training.epochs")


NUMBERS = [
    (section, item.name, item.metadata["range"])
    for section, kind in (("sampling", Sampling), ("extractor", Extractor), ("training", Training))
    for item in dataclasses.fields(kind)
    if "range" in item.metadata
]


@pytest.mark.parametrize(("section", "name", "limits"), NUMBERS, ids=[f"{s}.{n}" for s, n, _ in NUMBERS])
def test_every_number_has_a_range_and_is_refused_outside_of_it(section, name, limits):
    least, most, above = limits
    for value in (least - 1, most + 1, math.nan, math.inf, -math.inf, 10**400, *([above] if above >= least else [])):
        given = [value, value] if name == "input_size" else value
        with pytest.raises(RecipeError, match=rf"{section}\.{name} must be") as caught:
            load_recipe("tiny-grid-gru", {f"{section}.{name}": given})
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_no_number_of_a_recipe_is_without_a_range():
    for kind in (Sampling, Extractor, Training):
        for item in dataclasses.fields(kind):
            if item.type in ("int", "float") or item.name == "input_size":
                assert "range" in item.metadata, item.name


@pytest.mark.parametrize(
    "text",
    [
        f"training = {{epochs = {'9' * 5000}}}",
        "a = " + "[" * 3000,
        "training.epochs = 2026-01-01",
        "head = {name = 'mean', options = {units = 2026-01-01T00:00:00Z}}",
        "head.options.units = nan",
        "head.options.units = [[1, inf]]",
        "training.l2 = {a = 1e999}",
        "training = 3",
        "[[training]]",
        "compress = [1]",
        "name = 7",
        "sampling.hz = true",
        "extractor.input_size = [1]",
        "\\u0000",
    ],
)
def test_odd_toml_is_one_line(tmp_path, text):
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"odd\.toml") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_value_on_the_command_line_that_no_parser_takes_is_one_line():
    with pytest.raises(RecipeError, match=r"--set training\.epochs"):
        parse_override("training.epochs=" + "9" * 5000)
