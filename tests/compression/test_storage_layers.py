"""Weights in 4 bits, in codebooks and without their zeros: what is promised, and that a runtime expands it at load."""

import collections

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from artifacts import session
from vidlet.compression.blocks import (
    block_shape,
    codebook_of,
    kernel_scales,
    nearest_entries,
    pack_nibbles,
    quantize_blocks,
    quantize_kernel,
    store_codebook,
    store_codes_int4,
    store_weights_int4,
    unpack_nibbles,
)
from vidlet.compression.storage import store_sparse, store_weights_half, store_weights_int8
from vidlet.runtime.safety import check_safe


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def expanded(model: onnx.ModelProto, name: str) -> np.ndarray:
    """The values that a runtime makes of a stored tensor."""
    if name in constants(model):
        return constants(model)[name]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:], probe.graph.input[:]
    probe.graph.output.append(helper.make_tensor_value_info(name, 0, None))
    probe.graph.output[0].type.tensor_type.elem_type = _TYPES[name.endswith(".q")]
    makers = {made: node for node in model.graph.node for made in node.output}
    needed, todo = [], [name]
    while todo:
        node = makers.get(todo.pop())
        if node is not None and node not in needed:
            needed.append(node)
            todo += node.input
    del probe.graph.node[:]
    probe.graph.node.extend(node for node in model.graph.node if node in needed)
    return session(probe).run([name], {})[0]


_TYPES = {False: TensorProto.FLOAT, True: TensorProto.INT8}


def model_of(weights: dict[str, tuple[np.ndarray, str]]) -> onnx.ModelProto:
    """x (N, in) times each weight: {name: (array, "MatMul" (in, out) | "Gemm" (out, in))}."""
    nodes, inputs, outputs = [], [], []
    for name, (array, operator) in weights.items():
        size = array.shape[0] if operator == "MatMul" else array.shape[1]
        attributes = {} if operator == "MatMul" else {"transB": 1}
        nodes.append(helper.make_node(operator, [f"x.{name}", name], [f"y.{name}"], **attributes))
        inputs.append(helper.make_tensor_value_info(f"x.{name}", TensorProto.FLOAT, ["N", size]))
        made = array.shape[1] if operator == "MatMul" else array.shape[0]
        outputs.append(helper.make_tensor_value_info(f"y.{name}", TensorProto.FLOAT, ["N", made]))
    stored = [numpy_helper.from_array(array, name) for name, (array, _) in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def weights(seed: int = 0, zeros: float = 0.0) -> dict[str, tuple[np.ndarray, str]]:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        array = rng.normal(size=shape).astype(np.float32) * np.exp(rng.normal(size=(shape[0], 1))).astype(np.float32)
        array[rng.random(shape) < zeros] = 0
        return array

    return {
        "right": (some(96, 70), "MatMul"),
        "left": (some(33, 101), "Gemm"),  # an odd number of weights, and 101 is prime
        "large": (some(120, 128), "Gemm"),
    }


def is_folded(model: onnx.ModelProto, path: str) -> None:
    """Nothing of the storage is left in what the runtime runs, and what reads files lets the file pass."""
    check_safe(model.SerializeToString(), "model")
    session(model, path)
    optimized = onnx.load(path).graph
    kinds = collections.Counter(node.op_type for node in optimized.node)
    assert set(kinds) <= {"MatMul", "Gemm", "Transpose", "Reshape"}, kinds
    assert not any(name.startswith("stored.") for node in optimized.node for name in node.input)


def test_two_codes_share_a_byte_the_first_in_its_low_half():
    packed = pack_nibbles(np.array([1, -1, -8, 7, 0, 0, 5]))
    np.testing.assert_array_equal(packed, [[0xF1], [0x78], [0x00], [0x05]])
    np.testing.assert_array_equal(unpack_nibbles(packed, 7), [1, -1, -8, 7, 0, 0, 5])


def test_blocks_run_along_the_inputs():
    assert block_shape((33, 64), 0, 32) == ((1, 33, 2, 32), 3)  # (outputs, inputs)
    assert block_shape((64, 33), 1, 32) == ((2, 32, 33), 1)  # (inputs, outputs)
    assert block_shape((1, 72, 40), 1, 32) == ((1, 72, 2, 20), 3)  # a GRU's, 40 inputs
    assert block_shape((16, 24, 1, 1), 0, 32) == ((1, 16, 1, 24), 3)
    assert block_shape((4, 101), 0, 32) == ((1, 4, 101, 1), 3)  # a prime number of inputs


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1e-12, 1e-6, 1e-3, 1.0, 1e3]), st.sampled_from([(8, 64), (3, 40, 1, 1)])
)
def test_a_weight_in_4_bits_errs_by_half_its_blocks_scale_at_most(seed, size, shape):
    rng = np.random.default_rng(seed)
    weight = (rng.standard_t(3, shape) * size).astype(np.float32)
    codes, scales = quantize_blocks(weight)
    assert scales.dtype == np.float16
    assert codes.min() >= -8
    assert codes.max() <= 7
    step = np.abs(scales.astype(np.float64))
    error = np.abs(weight.reshape(codes.shape) - codes * scales.astype(np.float64))
    assert (error <= step / 2 * (1 + 1e-5)).all()
    products, channel = quantize_kernel(weight)
    multiples, same = kernel_scales(weight)
    np.testing.assert_array_equal(channel, same)
    assert products.dtype == np.int8
    assert np.abs(multiples).max() <= 15
    assert np.abs(products.reshape(multiples.shape) // multiples).max() <= 8
    assert (products.reshape(multiples.shape) % multiples == 0).all()
    step = np.abs(multiples) * channel.reshape(-1, 1).astype(np.float64)
    error = np.abs(weight - products * channel.astype(np.float64)).reshape(multiples.shape)
    assert (error <= step / 2 * (1 + 1e-5)).all()


def of_codes(codes: np.ndarray) -> onnx.ModelProto:
    """A model whose weight is int8 codes, cast."""
    model = model_of({"w": (codes.astype(np.float32), "Gemm")})
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(codes, "codes"))
    model.graph.node.insert(0, helper.make_node("Cast", ["codes"], ["w"], to=TensorProto.FLOAT))
    return model


def test_searched_scales_err_less_than_the_smallest_ones():
    weight = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    codes, scales = quantize_blocks(weight)
    error = ((weight.reshape(codes.shape) - codes * scales.astype(np.float32)) ** 2).mean()
    blocks = weight.reshape(200, 2, 32)
    plain = np.abs(blocks).max(2, keepdims=True) / 7
    assert error < 0.9 * ((blocks - np.rint(blocks / plain) * plain) ** 2).mean()


@pytest.mark.parametrize("store", [store_weights_int4, store_codebook, lambda model: store_codebook(model, 16)])
def test_what_is_stored_in_few_bits_is_expanded_once_at_load(store, tmp_path):
    model = model_of(weights())
    stored = store(model)
    is_folded(stored, str(tmp_path / "optimized.onnx"))
    assert len(stored.SerializeToString()) < 0.35 * len(model.SerializeToString())
    feeds = {
        value.name: np.eye(value.type.tensor_type.shape.dim[1].dim_value, dtype=np.float32)
        for value in stored.graph.input
    }
    for name, found in zip(weights(), session(stored).run(None, feeds), strict=True):
        array, operator = weights()[name]
        np.testing.assert_array_equal(
            found, expanded(stored, name) if operator == "MatMul" else expanded(stored, name).T
        )
        assert np.sqrt(((expanded(stored, name) - array) ** 2).mean()) < 0.18 * array.std()


def test_4_bits_in_a_file_are_the_codes_and_scales_of_the_blocks():
    stored = store_weights_int4(model_of(weights()))
    for name, axis in (("right", 1), ("large", 0)):
        array = weights()[name][0]
        codes, scales = quantize_blocks(array, axis)
        expected = (codes * scales.astype(np.float32)).reshape(array.shape)
        np.testing.assert_array_equal(expanded(stored, name), expected)
        values = constants(stored)
        assert values[f"{name}.int4"].nbytes == -(-array.size // 2)
        assert values[f"{name}.scale"].nbytes == 2 * array.size // 32
    assert "left.q" in constants(stored)  # blocks of one would be larger than 8 bits
    assert not any(name.endswith(".int4") for name in constants(store_weights_int4(stored)) if name.startswith("left"))


def test_codes_stored_in_4_bits_are_the_same_codes():
    rng = np.random.default_rng(1)
    kernel = (rng.normal(size=(64, 96, 1, 1)) * np.exp(rng.normal(size=(64, 1, 1, 1)))).astype(np.float32)
    products, _ = quantize_kernel(kernel)
    model = of_codes(products.reshape(64, 96))
    stored = store_codes_int4(model)
    assert "codes.int4" in constants(stored)
    x = np.eye(96, dtype=np.float32)
    np.testing.assert_array_equal(session(stored).run(None, {"x.w": x})[0], products.reshape(64, 96).T)
    assert len(stored.SerializeToString()) < 0.7 * len(model.SerializeToString())
    others = of_codes(rng.integers(-127, 128, (64, 96)).astype(np.int8))
    assert store_codes_int4(others).SerializeToString() == others.SerializeToString()


def test_a_codebook_has_the_groups_means_and_a_weight_gets_the_nearest_entry():
    values = np.array([-2.0, -1.9, -1.8, 0.0, 0.0, 1.0, 1.1, 4.0], np.float32)
    table = codebook_of(values, 16)
    np.testing.assert_allclose(table[nearest_entries(values, table)], values, rtol=1e-3)
    few = codebook_of(np.repeat(np.array([-1.9, 0.0, 1.0, 4.0], np.float32), 9), 16)
    np.testing.assert_allclose(few[nearest_entries(np.array([-1.9, 0, 1, 4]), few)], [-1.9, 0, 1, 4], rtol=1e-3)
    rng = np.random.default_rng(0)
    many = rng.standard_t(3, 5000).astype(np.float32)
    for entries in (16, 256):
        table = codebook_of(many, entries)
        assert len(table) <= entries
        chosen = table[nearest_entries(many, table)].astype(np.float64)
        slow = np.abs(many[:, None] - table[None].astype(np.float64)).min(1)
        np.testing.assert_allclose(np.abs(many - chosen), slow)


def test_a_codebook_of_means_errs_less_than_as_many_even_steps():
    values = np.random.default_rng(0).standard_t(4, 20000).astype(np.float32)
    table = codebook_of(values, 16)
    even = np.linspace(values.min(), values.max(), 16)
    error = [((values - t[nearest_entries(values, t)]) ** 2).mean() for t in (table, even)]
    assert error[0] < 0.3 * error[1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.75, 0.97, 0.9995, 1.0]), st.sampled_from(["f4", "f2", "i1"])
)
def test_without_its_zeros_a_tensor_is_exactly_the_same_and_never_larger(seed, zeros, kind):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (37, 91)).astype(kind)
    codes[rng.random(codes.shape) < zeros] = 0
    if kind == "f4":
        codes[codes == 0] = -0.0  # what masks leave of negative weights
    model = model_of({"w": (codes.astype(np.float32), "Gemm")})
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(codes, "codes"))
    model.graph.node.insert(0, helper.make_node("Cast", ["codes"], ["w"], to=TensorProto.FLOAT))
    stored = store_sparse(model)
    shared = sum(tensor.ByteSize() for tensor in stored.graph.initializer if tensor.name.startswith("stored."))
    assert len(stored.SerializeToString()) <= len(model.SerializeToString()) + shared + 50
    found = session(stored).run(None, {"x.w": np.eye(91, dtype=np.float32)})[0]
    np.testing.assert_array_equal(found.T, codes.astype(np.float32))
    assert any(name.startswith("codes.") for name in constants(stored)) == (zeros >= 0.3)


def test_three_quarters_of_zeros_leave_three_eighths_of_the_bytes():
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 128, (256, 1024)).astype(np.int8)
    codes.reshape(-1)[rng.permutation(codes.size)[: codes.size * 3 // 4]] = 0
    dense, stored = of_codes(codes), store_sparse(of_codes(codes))
    values = constants(stored)
    assert values["codes.mask"].nbytes == codes.size // 8
    assert values["codes.nonzero"].nbytes == codes.size // 4 + 1
    share = len(stored.SerializeToString()) / len(dense.SerializeToString())
    assert share == pytest.approx(0.25 + 0.125, abs=0.01)


def test_few_values_are_stored_with_their_gaps():
    codes = np.zeros((100, 1000), np.int8)
    codes.reshape(-1)[[3, 700, 701, 99_000]] = [5, -6, 7, -8]
    stored = store_sparse(of_codes(codes))
    values = constants(stored)
    assert "codes.mask" not in values
    assert values["codes.gaps"].nbytes < 400
    np.testing.assert_array_equal(session(stored).run(None, {"x.w": np.eye(1000, dtype=np.float32)})[0].T, codes)


@pytest.mark.parametrize("first", [store_weights_int8, store_weights_half, store_weights_int4])
def test_zeros_are_left_out_behind_every_rounding_and_expanded_at_load(first, tmp_path):
    rounded = first(model_of(weights(zeros=0.75)))
    both = store_sparse(rounded)
    is_folded(both, str(tmp_path / "optimized.onnx"))
    assert len(both.SerializeToString()) < {True: 0.75, False: 0.6}[first is store_weights_int4] * len(
        rounded.SerializeToString()
    )
    for name in weights():
        np.testing.assert_array_equal(expanded(both, name), expanded(rounded, name))
        assert (expanded(both, name)[weights(zeros=0.75)[name][0] == 0] == 0).all()
