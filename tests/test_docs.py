"""What the documents say of the code stays true."""

import argparse
import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

import vidlet
from vidlet.cli import COMMANDS, _parser
from vidlet.compression import BOX_STEPS, CLIP_STEPS
from vidlet.models import HEADS
from vidlet.recipe import Extractor, Recipe, Sampling, Training, load_recipe, recipe_names
from vidlet.training.augment import AMOUNTS
from vidlet.video import RESIZE

ROOT = Path(__file__).parents[1]
RECIPES = (ROOT / "docs" / "recipes.md").read_text("utf-8")


def test_the_recipe_of_the_docs_is_valid_and_shows_the_defaults(tmp_path):
    path = tmp_path / "docs.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", RECIPES, re.S)[1], "utf-8")
    shown = load_recipe(path)
    assert shown.sampling == Sampling()
    assert shown.extractor == Extractor()
    assert dataclasses.replace(shown.training, augment={}) == Training()
    assert shown.compress == Recipe("default").compress


def test_the_docs_name_every_recipe_head_step_and_augmentation():
    rows = re.findall(r"^\| `([\w-]+)`", RECIPES.split("## The sections")[0], re.M)
    assert sorted(rows) == recipe_names()
    for name in (*HEADS, *CLIP_STEPS, *BOX_STEPS, *AMOUNTS):
        assert re.search(rf"\b{name}\b", RECIPES), name


def test_the_table_of_recipes_is_what_their_files_say():
    spec = importlib.util.spec_from_file_location("recipe_table", ROOT / "docs" / "recipe_table.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.page() == RECIPES, "python docs/recipe_table.py writes it anew"


def test_the_resize_page_holds_the_golden_vector():
    text = (ROOT / "docs" / "resize.md").read_text("utf-8")
    for picture in (RESIZE["golden"]["input"], RESIZE["golden"]["output"]):
        for row in picture:
            assert "    " + "  ".join("{:3} {:3} {:3}".format(*pixel) for pixel in row) in text


PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
PAGES += sorted(str(page.relative_to(ROOT).as_posix()) for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_the_docs_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text("utf-8")):
        if re.match(r"\w+:", link):
            continue  # addresses elsewhere are not asked
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M)
            assert anchor in [re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads], link


@pytest.mark.parametrize("page", PAGES)
def test_no_heading_is_lost_in_a_paragraph(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
    assert re.findall(r"^(?!#| {4}|\|).*\S ##+ .*$", text, re.M) == []


def test_every_public_name_is_in_the_interface():
    told = re.findall(r"^::: vidlet\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
    assert sorted(told) == sorted(set(vidlet.__all__) - {"__version__"})


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_docs_can_be_parsed(page):
    text = (ROOT / page).read_text("utf-8")
    lines = re.findall(r"^(?:    |\$ )vidlet (\w+) (.*?)(?: +#.*)?$", text, re.M)
    for name, rest in lines:
        assert name in COMMANDS, f"vidlet {name}"
        words = [name, *rest.split()]
        assert isinstance(_parser(words).parse_args(words), argparse.Namespace)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_every_command_can_be_parsed(name):
    epilog = _parser([name])._subparsers._group_actions[0].choices[name].epilog
    words = epilog.removeprefix("example: vidlet ").split()
    assert words[0] == name
    assert _parser(words).parse_args(words).command == name


def test_the_first_steps_of_each_task_have_a_picture_and_drawings_are_those_of_their_script():
    for page in (*sorted((ROOT / "docs" / "tasks").glob("*.md")), ROOT / "docs" / "raspberry-pi.md"):
        above = page.read_text("utf-8").split("\n## ")[0]
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", above)
        assert len(pictures) == 1, page
        assert (page.parent / pictures[0]).is_file()
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "pictures" / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, drawn in draw.drawings().items():
        assert (ROOT / "docs" / "pictures" / name).read_text("utf-8") == drawn, "python docs/pictures/draw.py"
