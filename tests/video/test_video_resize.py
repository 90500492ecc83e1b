"""The resize rule: Pillow's, the formula's and the golden vector's are one."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vidlet.video import RESIZE, resize


def by_formula(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The rule as RESIZE["formula"] says it, and nothing else: slow, in plain floats."""
    across = _axis(rgb.astype(float), size[1], axis=1)
    return _axis(across, size[0], axis=0).astype(np.uint8)


def _axis(values: NDArray[np.float64], m: int, axis: int) -> NDArray[np.float64]:
    source = np.moveaxis(values, axis, 0)
    n = len(source)
    if n == m:
        return values
    scale = n / m
    s = max(scale, 1.0)
    out = []
    for i in range(m):
        center = (i + 0.5) * scale
        first = max(0, math.floor(center - s + 0.5))
        last = min(n, math.floor(center + s + 0.5))
        weight = np.array([max(0.0, 1 - abs((j + 0.5 - center) / s)) for j in range(first, last)])
        fixed = np.floor(0.5 + weight / weight.sum() * 2**22)
        out.append(np.floor((2**21 + np.tensordot(fixed, source[first:last], axes=1)) / 2**22).clip(0, 255))
    return np.moveaxis(np.stack(out), 0, axis)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((240, 320), (224, 224)),
        ((60, 80), (224, 224)),
        ((97, 33), (32, 48)),
        ((160, 90), (112, 112)),
        ((50, 50), (50, 20)),
        ((7, 300), (224, 3)),
        ((1, 1), (4, 5)),
    ],
)
def test_pillow_follows_the_formula_in_every_pixel(before, after):
    rgb = np.random.default_rng(0).integers(0, 256, (*before, 3), dtype=np.uint8)
    ours, slow = resize(rgb, after), by_formula(rgb, after)
    assert ours.shape == (*after, 3)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, slow)


def test_the_golden_vector_is_what_the_rule_and_the_formula_give():
    golden = RESIZE["golden"]
    rgb, output = np.array(golden["input"], np.uint8), np.array(golden["output"], np.uint8)
    np.testing.assert_array_equal(resize(rgb, tuple(golden["size"])), output)
    np.testing.assert_array_equal(by_formula(rgb, tuple(golden["size"])), output)


def test_the_golden_vector_tells_other_rules_apart():
    cv2 = pytest.importorskip("cv2")
    golden = RESIZE["golden"]
    height, width = golden["size"]
    other = cv2.resize(np.array(golden["input"], np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(other.astype(int) - np.array(golden["output"])).max() > 5


def test_the_rule_travels_as_json():
    assert json.loads(json.dumps(RESIZE)) == RESIZE


def test_a_picture_of_the_right_size_is_unchanged():
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert resize(rgb, (9, 7)) is rgb


def test_one_color_stays_that_color_and_channels_do_not_mix():
    rgb = np.broadcast_to(np.array([3, 128, 250], np.uint8), (31, 17, 3))
    np.testing.assert_array_equal(resize(rgb, (12, 40)), np.broadcast_to(rgb[0, 0], (12, 40, 3)))


def test_resizing_commutes_with_mirroring():
    rgb = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    mirrored = resize(rgb[:, ::-1], (16, 16))[:, ::-1]
    assert np.abs(mirrored.astype(int) - resize(rgb, (16, 16))).max() <= 1
