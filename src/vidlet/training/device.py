"""Where networks are trained."""

from __future__ import annotations

import torch

from ..errors import TrainingError

DEVICES = ("auto", "cpu", "cuda")


def find_device(asked: str) -> str:
    """ "cpu" or "cuda" for what was asked for; "auto" is the GPU where there is one.

    Raises:
        TrainingError: "cuda" where torch sees no GPU, or a name that is none of ``DEVICES``.
    """
    if asked not in DEVICES:
        raise TrainingError(f"--device {asked}: must be one of {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        built = "was built without CUDA" if torch.version.cuda is None else "finds no GPU that it can use"
        raise TrainingError(f"--device cuda: torch {torch.__version__} {built}; take --device cpu, or auto")
    return "cuda" if there and asked != "cpu" else "cpu"
