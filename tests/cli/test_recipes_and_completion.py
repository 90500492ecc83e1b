"""`vidlet recipes` lists what there is; `vidlet completion` lets a shell complete it."""

import json
import shutil
import subprocess

import pytest

import vidlet
from vidlet.cli import COMMANDS
from vidlet.errors import RecipeError
from vidlet.recipe import recipe_names


def test_recipes_are_listed_by_task_and_word(run):
    status, out, err = run("recipes", "--json")
    rows = json.loads(out)["recipes"]
    assert (status, err) == (0, "")
    assert sorted(row["name"] for row in rows) == recipe_names()
    tasks = {row["name"]: row["task"] for row in rows}
    assert (tasks["tiny-yolov2"], tasks["records-mean"], tasks["mean"]) == ("boxes", "records", "clips")
    assert [row["name"] for row in vidlet.recipes("boxes")] == ["mobilenetv2-boxes", "tiny-yolov2"]
    assert "gated-netvlad" in {row["name"] for row in vidlet.recipes(word="NetVLAD")}
    with pytest.raises(RecipeError, match="did you mean clips"):
        vidlet.recipes("clip")


def test_recipes_are_printed_for_people(run):
    status, out, err = run("recipes", "tiny", "--task", "boxes")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == ["for boxes: vidlet train boxes/ --recipe NAME", "  tiny-yolov2"]
    assert "      A detector of boxes: tiny-YOLOv2 from scratch" in out
    assert run("recipes", "nothing-like-it")[1] == "no recipe has 'nothing-like-it' in its name or description\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("vidlet tra", "train"),
        ("vidlet train --rec", "--recipe"),
        ("vidlet train --recipe tiny-", "tiny-grid-gru tiny-yolov2"),
        ("vidlet train --device c", "cpu cuda"),
        ("vidlet export runs/a --format w", "web"),
        ("vidlet train cl", ""),  # the shell offers files
    ],
)
def test_bash_completes_commands_options_and_recipes(run, typed, offered):
    script = run("completion", "bash")[1]
    words = typed.split()
    ask = f'COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _vidlet; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{offered}\n", "")


def test_all_commands_are_offered_and_zsh_reads_the_same_script(run):
    bash, zsh = run("completion", "bash")[1], run("completion", "zsh")[1]
    assert zsh.endswith(bash)
    assert "bashcompinit" in zsh
    assert f'words="{" ".join(COMMANDS)}"' in bash
