"""The mean of the last checkpoints of a training, running statistics of batch normalization included.

Of the last 1, 2, 4, 8 ... checkpoints those are averaged whose mean is best on the validation clips. It helps at a
constant learning rate; behind a decayed one there is nothing left to average. The chosen mean's statistics are then
measured anew (statistics.py).

Source: Liu and Liu 2018 (ECCV workshop on YouTube-8M); Izmailov et al. 2018, arXiv:1803.05407.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoint import save_tensors


class Snapshots:
    """The network's weights every so many updates, the last of them kept.

    Args:
        last: how many are kept.
        every: updates between two.
        folder: of the run; they lie in its ``snapshots/``, so that a resumed training finds them. None: in memory.
    """

    def __init__(self, last: int, every: int, folder: Path | None = None) -> None:
        self.last, self.every = last, every
        self.folder = folder / "snapshots" if folder is not None else None
        self._kept: dict[int, dict[str, Tensor]] = {}
        self.chosen = 0  # how many were averaged

    def keep(self, network: nn.Module, updates: int) -> None:
        """Take the weights after this update, where it is time."""
        if updates % self.every:
            return
        state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        if self.folder is None:
            self._kept[updates] = state
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tensors(state, self._path(updates))
        for old in self.updates()[: -self.last]:
            self._drop(old)

    def updates(self) -> list[int]:
        """After which updates those that are kept were taken, ascending."""
        if self.folder is None:
            return sorted(self._kept)
        return sorted(int(path.stem) for path in self.folder.glob("*.pt"))

    def choose_(self, network: nn.Module, quality: Callable[[], float]) -> None:
        """Put into ``network`` the mean of as many of the last checkpoints as make ``quality()`` highest."""
        known = self.updates()
        if not known:
            return
        counts = sorted({min(2**power, len(known)) for power in range(self.last.bit_length() + 1)})
        found: list[tuple[float, int]] = []
        for count in counts:
            network.load_state_dict(self.mean(known[-count:]))
            found.append((quality(), count))
        _, self.chosen = max(found)
        network.load_state_dict(self.mean(known[-self.chosen :]))

    def mean(self, updates: list[int]) -> dict[str, Tensor]:
        """The mean of some checkpoints; whole numbers are the last one's."""
        total: dict[str, Tensor] = {}
        for one in updates:  # one at a time in memory
            for name, value in self._read(one).items():
                if name in total and value.is_floating_point():
                    total[name] = total[name] + value.double()
                else:
                    total[name] = value.double() if value.is_floating_point() else value
        return {
            name: (value / len(updates)).float() if value.is_floating_point() else value
            for name, value in total.items()
        }

    def _read(self, updates: int) -> dict[str, Tensor]:
        if self.folder is None:
            return self._kept[updates]
        state: dict[str, Tensor] = torch.load(self._path(updates), weights_only=True, map_location="cpu")
        return state

    def _path(self, updates: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{updates:08d}.pt"

    def _drop(self, updates: int) -> None:
        if self.folder is None:
            del self._kept[updates]
        else:
            self._path(updates).unlink()
