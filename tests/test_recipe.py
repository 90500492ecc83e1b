"""Recipes: validated once, wrong keys named with the nearest valid one."""

import pytest

from vidlet.errors import RecipeError
from vidlet.recipe import load_recipe, parse_override, recipe_from_dict, recipe_names, recipe_to_dict, save_recipe


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
        ("training.epochs=0", r"training\.epochs must be positive"),
        ("training.optimizer=adam", r"training\.optimizer must be one of adamw, sgd"),
        ("training.precision=bfloat", r"must be one of auto, float32, bfloat16, .* \(did you mean bfloat16\?\)"),
        ("training.step_epochs=0", r"training\.step_epochs must be positive"),
        ("training.micro_batch=-1", r"training\.micro_batch must be 0 or more"),
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
