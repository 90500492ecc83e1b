"""Put the files of a run on Hugging Face's hub, with a model card made of their evidence."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..progress import say, working
from ..runs import RunFolder, hub, product_of


def push(
    run: str | Path, repository: str, public: bool = False, out: str | Path | None = None, message: str = ""
) -> dict[str, Any]:
    """Push the model files of a run, its recipe and a card to a repository of the hub; nothing else leaves the machine.

        vidlet.push("runs/a", "me/gestures")
        vidlet.load("hf://me/gestures")

    Args:
        run: a run folder: its model.onnx and the files beside it.
        repository: "USER/NAME"; made where there is none.
        public: make it one that everybody sees; it is private else.
        out: leave the files in this folder instead, for you to look at: nothing is sent.
        message: of the commit.

    Returns:
        {"out": the folder, or hf://USER/NAME, "files": {name: bytes}}.

    Raises:
        ModelError: a folder without a product. DataError: the hub refused. DependencyError: huggingface_hub is missing.
    """
    product, folder = product_of(run, told=False), RunFolder.of(run)
    names = [product.name, *(path.name for path in folder.candidates() if path.name != product.name)]
    with tempfile.TemporaryDirectory() as made:
        place = Path(out) if out is not None else Path(made)
        with working(f"gather {run}"):
            copied = hub.gather(folder, names, repository, place)
        files = {name: (place / name).stat().st_size for name in copied}
        if out is not None:
            say(f"{place}: {', '.join(copied)}; nothing was sent")
            return {"out": str(place), "files": files}
        with working(f"push {repository}"):
            address = hub.upload(place, repository, public, message or f"{', '.join(names)} by vidlet")
    say(f'{address}: {", ".join(copied)}; vidlet.load("{address}")')
    return {"out": address, "files": files}
