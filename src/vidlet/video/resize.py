"""The one resize rule, as a formula, as code, and as a golden vector that travels in every model file.

Training, runtime and browser must shrink a frame alike: bilinear rules with and without antialiasing differ by up to
29 levels. The rule is Pillow's BILINEAR: a triangle filter as wide as the shrinkage, first along rows, then columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMULA = (
    "Stretch to (H, W); the proportions are not kept. One axis at a time: first every row (horizontal), round to "
    "uint8, then every column (vertical), round to uint8; an axis that already has its length is left alone. "
    "One axis from n to m samples: scale = n / m; s = max(scale, 1). For output i: center = (i + 0.5) * scale; "
    "first = max(0, floor(center - s + 0.5)); last = min(n, floor(center + s + 0.5)); "
    "weight[j] = max(0, 1 - abs((j + 0.5 - center) / s)) for j = first .. last - 1; divide the weights by their sum; "
    "output[i] = floor(0.5 + sum of weight[j] * input[j]), held in 0 .. 255. Each color channel by itself."
)


def resize(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch a picture (H, W, 3) to ``size`` (height, width) by the rule in ``FORMULA``; the same size: unchanged."""
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


# A small picture shrunk from 7 to 4 columns and enlarged from 3 to 5 rows: whoever gets `output` has the rule.
RESIZE: dict[str, Any] = {
    "rule": "triangle",
    "formula": FORMULA,
    "golden": {
        "input": [
            [
                [0, 83, 166],
                [59, 243, 171],
                [118, 147, 176],
                [177, 51, 181],
                [236, 211, 186],
                [39, 115, 191],
                [98, 19, 196],
            ],
            [
                [37, 120, 203],
                [155, 83, 11],
                [17, 46, 75],
                [135, 9, 139],
                [253, 228, 203],
                [115, 191, 11],
                [233, 154, 75],
            ],
            [[148, 231, 58], [69, 253, 181], [246, 19, 48], [167, 41, 171], [88, 63, 38], [9, 85, 161], [186, 107, 28]],
        ],
        "size": [5, 4],
        "output": [
            [[31, 155, 169], [123, 139, 176], [180, 147, 186], [79, 69, 193]],
            [[53, 133, 147], [105, 101, 138], [185, 152, 170], [121, 111, 137]],
            [[87, 101, 115], [78, 43, 80], [192, 159, 147], [183, 173, 54]],
            [[106, 178, 112], [144, 60, 97], [133, 100, 119], [136, 126, 73]],
            [[119, 230, 110], [188, 72, 109], [94, 61, 100], [105, 95, 85]],
        ],
    },
}
