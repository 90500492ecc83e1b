"""The built-in recipes: of which task each is, and what it is in a sentence."""

from __future__ import annotations

from typing import Any

from ..errors import RecipeError
from ..recipe import describe_recipe, load_recipe, nearest, recipe_names
from ..tasks import TASKS, name_of_recipe_task


def recipes(task: str | None = None, word: str = "") -> list[dict[str, Any]]:
    """List the built-in recipes, by task and name.

    Args:
        task: "clips", "records" or "boxes": only recipes for such data.
        word: only recipes whose name or description holds it, in any case.

    Returns:
        {"name", "task", "description"} of each: the first sentence of its file.

    Raises:
        RecipeError: no such task.
    """
    if task is not None and task not in TASKS:
        raise RecipeError(f"--task {task}: no such task{nearest(task, TASKS)}; known: {', '.join(TASKS)}")
    found = [
        {"name": name, "task": name_of_recipe_task(load_recipe(name)), "description": describe_recipe(name)}
        for name in recipe_names()
    ]
    chosen = [row for row in found if task in (None, row["task"]) and word.lower() in " ".join(row.values()).lower()]
    return sorted(chosen, key=lambda row: ([*TASKS].index(row["task"]), row["name"]))
