"""Where networks are trained, in which numbers (weights are float32 in any case), and how memory is kept for it."""

from __future__ import annotations

import ctypes
import platform
import sys

import torch

from ..errors import TrainingError
from ..recipe import Training

DEVICES = ("auto", "cpu", "cuda")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


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


def autocast(config: Training, device: str) -> torch.autocast:
    """Inside it products and convolutions take bfloat16 where the recipe's ``training.precision`` says so.

    "auto" is bfloat16 on a GPU and float32 on a CPU. The gradients of the weights are float32.
    """
    low = config.precision == "bfloat16" or (config.precision == "auto" and device == "cuda")
    return torch.autocast(device, torch.bfloat16, enabled=low)


def lacks_bfloat16(device: str) -> bool:
    """Whether the processor is known to have no instructions for bfloat16: it is emulated then, and slow."""
    if device != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    read = getattr(torch.cpu, "get_capabilities", None)
    found = read() if read else {}
    return bool(found) and not (found.get("avx512_bf16") or found.get("amx_bf16"))


def keep_memory() -> None:
    """Tell glibc to reuse large blocks instead of mapping them anew (halved a step's time; docs/lab-notes.md).

    For the entry point of a training process; does nothing where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
