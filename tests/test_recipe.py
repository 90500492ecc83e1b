"""Recipes: validated once, wrong keys named with the nearest valid one."""

import dataclasses
import math

import pytest

from vidlet import recipe as recipe_module
from vidlet.errors import RecipeError
from vidlet.recipe import (
    Averaging,
    Extractor,
    Sampling,
    Schedule,
    Training,
    flat_keys,
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
        ("training.schedule.step_epochs=0", r"training\.schedule\.step_epochs must be from 1 to"),
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


OLD = """
[extractor]
name = "onnx"
pixels = "unit"
audio = true

[training]
schedule = "step"
step_epochs = 7
average = 0.5
average_every = 50
"""


@pytest.fixture
def nothing_told(monkeypatch):
    monkeypatch.setattr(recipe_module, "_TOLD", set())


def test_old_keys_are_read_and_say_once_what_they_are_called_now(nothing_told, tmp_path, capsys):
    path = tmp_path / "old.toml"
    path.write_text(OLD)
    for _ in range(2):
        found = load_recipe(path)
    assert found.extractor.options == {"pixels": "unit"}  # audio says what is so by default, of another extractor
    assert found.training.schedule == Schedule("step", 7) and found.training.averaging == Averaging(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "recipe: extractor.pixels is called extractor.options.pixels now"
    assert len(lines) == 4 and "recipe: training.average is called training.averaging.decay now" in lines


def test_old_keys_of_set_change_what_the_recipe_has(nothing_told, capsys):
    said = dict(map(parse_override, ["training.average=0.0", "training.schedule=step", "training.step_epochs=3"]))
    found = load_recipe("mobilenetv2-grid-gru", said)
    assert load_recipe("mobilenetv2-grid-gru").training.averaging.decay == 0.98
    assert found.training.averaging.decay == 0.0 and found.training.schedule == Schedule("step", 3)
    assert capsys.readouterr().err.count(" is called ") == 3


def test_the_recipe_in_an_older_model_is_read_without_a_word(nothing_told, capsys):
    old = {"name": "x", "extractor": {"name": "mobilenetv2", "pixels": "imagenet", "audio": True},
           "training": {"schedule": "keras-decay", "step_epochs": 30, "step_factor": 0.1, "average": 0.0,
                        "average_last": 4, "average_every": 50}}  # fmt: skip
    found = recipe_from_dict(old)
    assert found.extractor.options == {} and found.training.schedule == Schedule("keras-decay")
    assert found.training.averaging == Averaging(last=4) and capsys.readouterr().err == ""
    assert recipe_from_dict(recipe_to_dict(found)) == found
    assert old["training"]["average_last"] == 4  # the caller's dict stays as it is


def test_options_of_an_extractor_are_held_to_its_builder():
    from vidlet.models import build_extractor

    with pytest.raises(RecipeError, match=r"extractor pixels: unknown option 'pixel'; known: none"):
        build_extractor(Extractor("pixels", grid=0, weights="none", options={"pixel": 1}))


def test_a_recipe_read_again_has_the_same_flat_values_whatever_the_order_of_its_keys(tmp_path):
    member = {"head": "probe", "options": {"strength": 1e-05, "statistics": "middle"}, "begin": 0, "shape": [96, 4, 4]}
    plan = load_recipe("mean")
    plan = dataclasses.replace(plan, head=dataclasses.replace(plan.head, options={"members": [member]}))
    save_recipe(plan, tmp_path / "recipe.toml")
    again = load_recipe(tmp_path / "recipe.toml")
    assert list(again.head.options["members"][0]) != list(member)  # TOML has tables behind values
    assert flat_keys(recipe_to_dict(again)) == flat_keys(recipe_to_dict(plan))
