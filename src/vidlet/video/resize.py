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
    "uint8; then every column (vertical), round to uint8; an axis that already has its length is left alone. "
    "One axis from n to m samples: scale = n / m; s = max(scale, 1). For output i: center = (i + 0.5) * scale; "
    "first = max(0, floor(center - s + 0.5)); last = min(n, floor(center + s + 0.5)); "
    "weight[j] = max(0, 1 - abs((j + 0.5 - center) / s)) for j = first .. last - 1; divide the weights by their sum, "
    "then make them integers: fixed[j] = floor(0.5 + weight[j] * 2^22); "
    "output[i] = floor((2^21 + sum of fixed[j] * input[j]) / 2^22), held in 0 .. 255. Each color channel by itself. "
    "All of it in double precision; the result is exact."
)


def resize(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch a picture (H, W, 3) to ``size`` (height, width) by the rule in ``FORMULA``; the same size: unchanged."""
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    for step in ((width, picture.height), (width, height)):  # newer Pillows choose the order of axes by cost
        if picture.size != step:
            picture = picture.resize(step, Image.Resampling.BILINEAR)
    return np.array(picture)


# A small picture enlarged from 3 to 5 columns and shrunk from 7 to 4 rows: whoever gets `output` has the rule.
RESIZE: dict[str, Any] = {
    "rule": "triangle",
    "formula": FORMULA,
    "golden": {
        "input": [
            [[0, 83, 166], [59, 243, 171], [118, 147, 176]],
            [[37, 120, 203], [155, 83, 11], [17, 46, 75]],
            [[148, 231, 58], [69, 253, 181], [246, 19, 48]],
            [[77, 160, 243], [57, 241, 169], [37, 66, 95]],
            [[80, 163, 246], [119, 47, 231], [158, 187, 216]],
            [[157, 240, 67], [255, 183, 111], [97, 126, 155]],
            [[52, 135, 218], [209, 137, 65], [110, 139, 168]],
        ],
        "size": [4, 5],
        "output": [
            [[23, 106, 177], [54, 133, 147], [101, 175, 103], [88, 128, 117], [81, 98, 127]],
            [[106, 189, 139], [96, 200, 140], [83, 216, 144], [118, 109, 97], [142, 38, 67]],
            [[95, 178, 209], [108, 158, 201], [129, 129, 190], [118, 136, 178], [112, 141, 170]],
            [[98, 181, 155], [149, 170, 130], [224, 152, 93], [154, 142, 136], [107, 136, 165]],
        ],
    },
}
