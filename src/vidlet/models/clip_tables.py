"""The clip networks, one table each: convolutions with their pools, fully connected layers, and their trains.

Source: Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition". Its figures give the layers, its tables
the counts; V4, V5 and the fully connected sizes follow from the counts, the channels of V1 to V3 are one choice of
several, the pools are ours. Kernels and pools are time x height x width; every convolution keeps its size ("same"),
every pool rounds up; the output layer, dense in all of them, is not listed.

``train`` holds the modes of the tensor train, "c.s" a core, and behind @ the rank of every bond, or the inner bonds.
"" stays dense in every form; "auto" takes our factorization and the paper's rank rule (tensor_train/cores.py).
"""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Convolution:
    """One 3-D convolution, ReLU, and the pool behind it."""

    channels: int
    kernel: Triple
    pool: Triple
    train: str = ""


@dataclass(frozen=True)
class Linear:
    """One hidden fully connected layer."""

    size: int
    train: str = ""


@dataclass(frozen=True)
class ClipTable:
    """A network: its layers, the frames of a clip and the (height, width) of the paper's input.

    ``norm``: batch normalization before each ReLU of a convolution.
    """

    frames: int
    size: tuple[int, int]
    convolutions: tuple[Convolution, ...]
    linear: tuple[Linear, ...]
    norm: bool = False

    def maps(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T, H, W) behind the last pool of clips (T, H, W)."""
        t, h, w = frames, height, width
        for layer in self.convolutions:
            t, h, w = (-(-side // step) for side, step in zip((t, h, w), layer.pool, strict=True))
        return self.convolutions[-1].channels, t, h, w


def read_train(text: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Input modes, output modes and inner bonds (one number: all of them) of "4.4 4.8 @16" or "8.5 8.5 6.5 @40,30"."""
    modes, _, ranks = text.partition("@")
    pairs = [tuple(map(int, pair.split("."))) for pair in modes.split()]
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), tuple(map(int, ranks.split(",")))


HALF, QUARTER, ROWS, PICTURE, ALL = (2, 2, 2), (4, 2, 2), (2, 1, 1), (1, 2, 2), (1, 1, 1)
VIVA, UCF = (28, 62), (60, 80)  # height, width

_VIVA_2_LINEAR = (Linear(1536, "8.4 16.8 8.12 8.4 @32"), Linear(512, "4.4 12.4 8.8 4.4 @16"))
_VIVA_4_FIRST = (  # V5 begins alike
    Convolution(64, (5, 7, 7), HALF),
    Convolution(128, (3, 5, 5), HALF, "4.4 4.8 4.4 @16"),
    Convolution(256, (3, 3, 5), HALF, "4.8 4.8 8.4 @32"),
)

CLIP_NETWORKS: dict[str, ClipTable] = {
    "viva-1": ClipTable(
        32, VIVA,
        (
            Convolution(16, (3, 3, 3), HALF),
            Convolution(32, (3, 3, 3), HALF, "4.4 4.8 @16"),
            Convolution(64, (3, 3, 3), QUARTER, "4.4 4.4 2.4 @16"),
        ),
        (Linear(512, "8.4 4.4 4.4 4.2 8.4 @32"), Linear(256)),
    ),
    "viva-2": ClipTable(
        32, VIVA,
        (
            Convolution(8, (5, 5, 5), HALF),
            Convolution(32, (3, 5, 5), HALF, "4.8 2.4 @8"),
            Convolution(128, (3, 3, 5), QUARTER, "4.4 4.4 2.8 @16"),
        ),
        _VIVA_2_LINEAR,
    ),
    "viva-3": ClipTable(
        32, VIVA,
        (
            Convolution(64, (5, 7, 7), HALF),
            Convolution(256, (3, 5, 5), HALF, "4.8 4.8 4.4 @16"),
            Convolution(128, (3, 3, 5), QUARTER, "4.8 8.4 8.4 @32"),
        ),
        (Linear(1536, "8.6 8.8 8.8 16.4 @48"), Linear(512, "4.4 8.4 8.4 6.8 @16")),
    ),
    "viva-4": ClipTable(
        32, VIVA,
        (*_VIVA_4_FIRST, Convolution(256, (3, 3, 3), ROWS, "4.8 8.8 8.4 @32")),
        (Linear(4096, "8.8 16.8 16.8 8.8 @64"), Linear(512, "8.4 8.4 8.4 8.8 @32")),
    ),
    "viva-5": ClipTable(
        32, VIVA,
        (*_VIVA_4_FIRST, Convolution(384, (3, 3, 3), ROWS, "8.6 8.8 4.8 @32")),
        (Linear(3125, "8.5 8.5 8.5 8.5 6.5 @40,40,40,30"), Linear(1024, "5.4 5.4 5.4 5.4 5.4 @20")),
    ),
    # One stream; the paper's network is two of them, on pictures and on optical flow, their scores averaged.
    "ucf": ClipTable(
        50, UCF,
        (
            Convolution(32, (5, 7, 7), PICTURE),
            Convolution(64, (3, 5, 5), HALF, "4.4 4.4 2.4 @16"),
            Convolution(64, (3, 5, 5), HALF, "4.4 4.4 4.4 @32"),
            Convolution(128, (3, 3, 3), HALF, "4.4 4.8 4.4 @16"),
            Convolution(512, (3, 3, 3), HALF, "4.8 8.8 4.8 @32"),
        ),
        (Linear(3125, "8.5 8.5 8.5 6.5 4.5 @40,40,40,20"), Linear(1024, "5.4 5.4 5.4 5.4 5.4 @20,40,40,20")),
        norm=True,
    ),
    # The paper's question whether large kernels compress better: viva-2 with stacks of small ones (one reading of it).
    "viva-2-stacks": ClipTable(
        32, VIVA,
        (
            Convolution(8, (3, 3, 3), ALL),
            Convolution(8, (3, 3, 3), HALF, "auto"),
            Convolution(32, (3, 3, 3), ALL, "4.8 2.4 @8"),
            Convolution(32, (1, 3, 3), HALF, "auto"),
            Convolution(128, (3, 3, 3), ALL, "4.4 4.4 2.8 @16"),
            Convolution(128, (1, 1, 3), QUARTER, "auto"),
        ),
        _VIVA_2_LINEAR,
    ),
    # Ours: what two cores train in minutes, on pictures of any size.
    "small": ClipTable(
        16, (32, 32),
        (
            Convolution(8, (3, 3, 3), PICTURE),
            Convolution(16, (3, 3, 3), HALF, "auto"),
            Convolution(32, (3, 3, 3), HALF, "auto"),
            Convolution(64, (3, 3, 3), HALF, "auto"),
        ),
        (Linear(128, "auto"),),
        norm=True,
    ),
}  # fmt: skip
