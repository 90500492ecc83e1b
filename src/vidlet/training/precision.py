"""The numbers in which a network computes while it learns; its weights are float32 in any case."""

from __future__ import annotations

import platform

import torch

from ..recipe import Training


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
