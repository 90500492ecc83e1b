"""The table of built-in recipes in docs/recipes.md, made of their files: `python docs/recipe_table.py` writes it anew.

A row is the first sentence of the file's head comment, and what its sections say. tests/test_docs.py compares.
"""

from __future__ import annotations

from pathlib import Path

from vidlet.recipe import Recipe, describe_recipe, load_recipe, recipe_names

PAGE = Path(__file__).with_name("recipes.md")
BEGIN, END = "<!-- made by docs/recipe_table.py -->\n", "<!-- end of what is made -->\n"
DEFAULT = "mobilenetv2-grid-gru"
COLUMNS = ("name", "what it is", "frames", "extractor", "head", "trained")


def table() -> str:
    """The rows of all recipes, the default first."""
    names = sorted(recipe_names(), key=lambda name: (name != DEFAULT, name))
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(name, load_recipe(name)) for name in names)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page() -> str:
    """docs/recipes.md with the table as the recipes are now."""
    text = PAGE.read_text("utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:begin] + table() + text[end:]


def _row(name: str, recipe: Recipe) -> tuple[str, ...]:
    sampling, head = recipe.sampling, recipe.head
    frames = f"{sampling.hz:g} a second" if sampling.rule == "rate" else f"{sampling.frames} a clip"
    if head.name == "region":
        frames = "an image"
    elif recipe.extractor.name == "features":
        frames = f"a record's, {sampling.max_frames} at most"
    options = [f"{key} {value}" if isinstance(value, str) else key for key, value in head.options.items()
               if value is True or (isinstance(value, str) and value != "none")]  # fmt: skip
    trained = "the head" if recipe.training.mode == "frozen" else "end to end"
    return (
        f"`{name}`" + (" (default)" if name == DEFAULT else ""), describe_recipe(name).replace("|", r"\|"), frames,
        _extractor(recipe), f"`{head.name}`" + "".join(f", {option}" for option in options), trained,
    )  # fmt: skip


def _extractor(recipe: Recipe) -> str:
    extractor = recipe.extractor
    if extractor.name in ("features", "detector"):
        return {"features": "stored features", "detector": "a detector's file"}[extractor.name]
    height, width = extractor.input_size
    parts = [f"{extractor.name}{f' {extractor.width:g}' if extractor.width != 1 else ''}, {height} x {width}"]
    if extractor.name == "pixels":
        parts.append(extractor.cut)
    elif extractor.name != "tiny-yolov2":
        parts.append("whole" if extractor.cut == "head" else f"cut at {extractor.cut}")
        parts += (
            [f"{extractor.grid} x {extractor.grid} grid"] if extractor.grid and recipe.head.name != "region" else []
        )
        if extractor.weights == "none":
            parts.append("weights of yours" if recipe.training.mode == "frozen" else "from scratch")
    return ", ".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
