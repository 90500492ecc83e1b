"""Batches in parts: how many clips have their activations in memory at once; a network on frames needs much for each.

On a processor small parts are quicker, too: eight clips of 32 frames at once took 1.5 times as long as one by one.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..progress import say
from .statistics import learning_norms

ROOM = 300_000_000  # bytes of activations on a processor, of a network that sees each clip by itself; more gain nothing
SHARE = 0.5  # of the memory that is free
MEMORY = Path("/proc/meminfo")


def parts_of(clips: int, most: int, least: int) -> Iterator[slice]:
    """Slices of at most ``most`` clips (but no fewer than ``least``), about equally long; 0: all at once."""
    count = min(math.ceil(clips / most), max(1, clips // least)) if most else 1
    edges = [clips * part // count for part in range(count + 1)]
    return (slice(a, b) for a, b in itertools.pairwise(edges))


def clips_at_once(network: nn.Module, see: Callable[[nn.Module], object], clips: int, batch: int, device: str) -> int:
    """How many clips of a batch are computed at once, so that their activations find room; ``batch`` at most.

    A network that normalizes over its batch is given whole batches as long as half of the free memory holds them: in
    parts it learns from other statistics, which is said. Others have the same gradients in any parts.

    Args:
        see: puts the first ``clips`` clips of a batch through a network, with gradients.
    """
    each = activation_bytes(network, see, device) / clips
    norms, free = learning_norms(network), free_bytes(device)
    room = math.inf if free is None else SHARE * free
    if not norms and device == "cpu":
        room = min(room, ROOM)
    most = int(min(batch, max(1.0, room / max(1.0, each))))
    if norms and most < batch:
        say(
            f"warning: there is memory for {most} of the {batch} clips of a batch ({each / 1e6:.0f} MB each): the "
            "network normalizes over so many; a smaller training.batch or extractor.input_size avoids that"
        )
    return most


def activation_bytes(network: nn.Module, see: Callable[[nn.Module], object], device: str) -> int:
    """Bytes that a forward pass keeps for the gradients. Neither the network nor what is drawn later is changed."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        see(copy.deepcopy(network))
    return sum(kept.values())


def free_bytes(device: str) -> int | None:
    """Memory that nothing uses; None where the system does not tell."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = MEMORY.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
