"""Integer weights that no kernel can saturate: the bound, what it costs, and kernels that add in 16 bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vidlet.compression.blocks import quantize_kernel
from vidlet.compression.deepeye import weight_codes
from vidlet.compression.exact import (
    CLEAR,
    PAIR,
    added_together,
    clear_of_ties,
    pair_sums,
    quantize_exactly,
    room,
)  # fmt: skip
from vidlet.compression.fake_quant import channel_scales, fake_int8, pair_sums_of
from vidlet.compression.storage import quantize_weight

SHAPES = [(6, 32, 1, 1), (4, 3, 3, 3), (8, 1, 3, 3), (5, 7), (3, 6, 3, 3, 3), (4, 5, 3, 1, 1), (4, 4, 1, 3, 3), (6, 1)]


def weights(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Weights with far values, as trained ones have them."""
    return np.random.default_rng(seed).standard_t(3, size=shape).astype(np.float32)


def layouts(codes: np.ndarray) -> list[np.ndarray]:
    """A weight (O, I, ...) as the rows (O, K) that matrix kernels read: taps fastest, channels fastest; 3-D as 2-D."""
    forms = [codes]
    if codes.ndim == 5:
        forms.append(np.concatenate([codes[:, :, k] for k in range(codes.shape[2])], axis=1))
    rows = [order.reshape(len(codes), -1) for form in forms for order in (form, np.moveaxis(form, 1, -1))]
    odd = [np.pad(form, ((0, 0), (0, form.shape[1] % 2), *[(0, 0)] * (form.ndim - 2))) for form in forms]
    return [*rows, *(np.moveaxis(form, 1, -1).reshape(len(codes), -1) for form in odd)]  # channels filled up


def saturating(bytes_: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums as a processor without VNNI has them: bytes (N, K) by codes (O, K), two products added within 16 bits."""
    odd = codes.shape[1] % 2
    products = bytes_.astype(np.int64)[:, None] * codes.astype(np.int64)[None]  # (N, O, K)
    products = np.pad(products, ((0, 0), (0, 0), (0, odd)))
    return (products[..., ::2] + products[..., 1::2]).clip(-(2**15), 2**15 - 1).sum(2)


def worst_bytes(codes: np.ndarray) -> np.ndarray:
    """For each output the bytes (2 O, K) that make its sums largest and least, beside some at random."""
    random = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (16, codes.shape[1]))
    return np.concatenate([np.where(codes > 0, 255, 0), np.where(codes < 0, 255, 0), random]).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_in_16_bits_are_exact_whatever_the_bytes(shape):
    codes, _ = quantize_exactly(weights(shape))
    for rows in layouts(codes):
        found = worst_bytes(rows)
        np.testing.assert_array_equal(saturating(found, rows), found.astype(np.int64) @ rows.T.astype(np.int64))


def test_plain_codes_in_8_bits_are_cut_off_there():
    codes, _ = quantize_weight(weights((6, 32, 1, 1)))
    rows = codes.reshape(6, 32)
    assert (saturating(worst_bytes(rows), rows) != worst_bytes(rows).astype(np.int64) @ rows.T.astype(np.int64)).any()


def test_no_bytes_at_all_take_two_codes_within_the_bound_out_of_16_bits():
    every = np.arange(256, dtype=np.int64)
    sums = every[:, None] + every[None]  # what two bytes weigh, over all pairs of them
    assert sums.max() == 510
    for first in range(-127, 128):
        second = PAIR - first if first > 1 else 127  # the largest that the bound allows beside it
        largest = max(first, 0) * 255 + max(second, 0) * 255
        assert largest <= 2**15 - 1
    assert 255 * (PAIR + 1) > 2**15 - 1  # and one more would not fit


@given(
    arrays.arrays(
        np.float32,
        st.sampled_from(SHAPES),
        elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0, -1.0, 127.0, 63.5, 64.5]),
    )
)
@settings(max_examples=150, deadline=None)
def test_the_bound_and_half_a_step_hold_for_any_weight(weight):
    codes, scales = quantize_exactly(weight)
    assert codes.dtype == np.int8
    assert pair_sums(codes).max() <= PAIR
    assert (np.abs(weight - codes * scales.astype(np.float64)) <= scales * 0.5001).all()


def test_a_channel_has_the_finest_step_of_the_bound():
    row = np.array([[100.02, 2.98, 2.13, 1.07, 30.0, 29.51, 0.0, -5.0]], np.float32)
    codes, scales = quantize_exactly(row)
    assert scales[0, 0] == pytest.approx(103 / 128)  # 100.02 and 2.98 are neighbors; 100.02 / 127 would be finer
    assert codes.tolist() == [[124, 4, 3, 1, 37, 37, 0, -6]]
    alone, scales = quantize_exactly(np.array([[127.0, 0.0, 0.0, -127.0, 1.0]], np.float32))
    assert alone.tolist() == [[127, 0, 0, -127, 1]]  # signs do not add up, and 127 keeps its 8 bits
    assert scales[0, 0] == 1


def test_what_was_rounded_before_stays_as_it_is():
    codes, scales = quantize_exactly(weights((64, 96, 1, 1)))
    again, same = quantize_exactly(codes * scales)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(same, scales, rtol=1e-6)
    lattice = np.array([[60, 3, 68, -1], [60, 3, 70, -1]], np.float32) * 0.25
    found, steps = quantize_exactly(lattice)
    assert found[0].tolist() == [60, 3, 68, -1]
    assert steps[0, 0] == 0.25
    assert steps[1, 0] == 0.25  # 3 and 70, 60 and 3 are added, 60 and 70 are not


def test_outputs_along_another_axis():
    weight = weights((40, 6))
    codes, scales = quantize_exactly(weight, 1)
    across, flat = quantize_exactly(np.ascontiguousarray(weight.T))
    np.testing.assert_array_equal(codes, across.T)
    np.testing.assert_array_equal(scales, flat.T)
    assert scales.shape == (1, 6)


def test_pairs_run_along_channels_and_along_taps():
    assert added_together((5,)).tolist() == [[0, 1], [2, 3], [4, -1]]
    assert added_together((4, 1, 1)).tolist() == [[0, 1], [2, 3]]
    both = added_together((2, 1, 2)).tolist()  # channel 1 lies two places behind
    assert both == [[0, 1], [0, 2], [1, 3], [2, 3]]
    odd = added_together((3, 1, 2)).tolist()  # channels of a tap: 0 2 4, then 1 3 5; any two neighbors, and tap by tap
    assert odd == [[0, 1], [0, 2], [1, 3], [2, 3], [2, 4], [3, 5], [4, -1], [4, 1], [4, 5], [5, -1]]


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_may_all_move_within_their_room(shape):
    codes, _ = quantize_exactly(weights(shape))
    lowest, highest = room(codes)
    flat = codes.reshape(len(codes), -1)
    assert ((lowest <= flat) & (flat <= highest)).all()
    assert (highest - lowest).max() > 0
    draw = np.random.default_rng(2)
    for _ in range(10):
        moved = np.where(draw.random(flat.shape) < 0.5, lowest, highest)
        assert pair_sums(moved.reshape(shape)).max() <= PAIR


@pytest.mark.parametrize("shape", SHAPES)
def test_training_rounds_as_the_file_does(shape):
    weight = torch.from_numpy(weights(shape))
    codes, scales = quantize_exactly(weight.numpy())
    np.testing.assert_allclose(pair_sums_of(weight).numpy(), pair_sums(weight.numpy()), rtol=1e-7)
    np.testing.assert_array_equal(channel_scales(weight).numpy(), scales.reshape(-1))
    np.testing.assert_allclose(fake_int8(weight, channel_scales(weight)).numpy(), codes * scales, rtol=1e-6)


def test_kernels_of_4_bits_and_deepeyes_codes_keep_the_bound():
    for seed in range(5):
        weight = weights((12, 64, 1, 1), seed)
        assert pair_sums(quantize_kernel(weight)[0]).max() <= PAIR
        kernel = torch.from_numpy(weights((12, 16, 3, 3), seed))
        assert pair_sums(weight_codes(kernel).numpy()).max() <= PAIR


def sums_by(kernel: str, a: tuple[float, int], b: tuple[float, int], out: tuple[float, int]) -> np.ndarray:
    """Codes of the sums of all pairs of codes, rounded from float32 as one of the kernels that are about does it."""
    one = np.float32
    x, y = (np.arange(256, dtype=one).reshape(shape) for shape in ((-1, 1), (1, -1)))
    (sa, za), (sb, zb), (sc, zc) = ((one(scale), one(zero)) for scale, zero in (a, b, out))
    if kernel == "ratios":
        codes = x * (sa / sc) + (y * (sb / sc) + (zc - za * (sa / sc) - zb * (sb / sc)))
    elif kernel == "divided":
        codes = ((x - za) * sa + (y - zb) * sb) / sc + zc
    else:
        codes = ((x - za) * sa + (y - zb) * sb) * (one(1) / sc) + zc
    return np.rint(codes)


def test_sums_have_the_same_codes_in_whatever_order_float32_computes_them():
    rng, different = np.random.default_rng(0), 0
    for _ in range(50):
        a, b = ((float(rng.uniform(0.02, 0.1)), int(rng.integers(0, 256))) for _ in range(2))
        wanted = (a[0] + b[0]) * float(rng.uniform(0.5, 1.0))
        scale, margin = clear_of_ties(a, b, wanted)
        assert margin >= CLEAR
        assert wanted * (1 - 1e-6) <= scale <= wanted * 1.01
        for kernel in ("divided", "multiplied"):
            np.testing.assert_array_equal(
                sums_by(kernel, a, b, (scale, 128)), sums_by("ratios", a, b, (scale, 128)), kernel
            )
            different += (sums_by(kernel, a, b, (wanted, 128)) != sums_by("ratios", a, b, (wanted, 128))).any()
    assert different > 0  # with the wanted scales some sums depend on the order


def test_the_margin_of_a_sum_is_that_of_the_worst_pair_of_codes():
    a, b = (0.031, 120), (0.047, 131)
    scale, margin = clear_of_ties(a, b, 0.06)
    x, y = ((np.arange(256) - zero) * float(np.float32(step)) for step, zero in (a, b))
    halves = (x[:, None] + y) / scale - 0.5
    assert margin == pytest.approx(np.abs(halves - np.rint(halves)).min(), rel=1e-6)
