"""Float TFLite networks against LiteRT, operator by operator, and as an extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from vidlet.artifact.tflite_file import FileGraph, FileOperator, FileTensor, open_interpreter, tflite_bytes
from vidlet.errors import ModelError, WeightsError
from vidlet.models.extractors import build_extractor
from vidlet.models.tflite_network import float_network, is_float
from vidlet.recipe import Extractor
from vidlet.runtime import open_session
from vidlet.tasks.brought import extractor_overrides

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert computes what is compared with")
SAME, VALID = 0, 1  # codes of Padding
RELU, RELU6 = 1, 3  # codes of ActivationFunctionType
DRAW = np.random.default_rng(3)


class Net:
    """A file in the making: a picture (1, 9, 7, 3) and what follows."""

    def __init__(self) -> None:
        self.graph = FileGraph()
        self.last = self.graph.add(FileTensor("picture", (1, 9, 7, 3), "float32"))
        self.graph.inputs["picture"] = self.last

    def stored(self, values: Any, dtype: str = "float32") -> int:
        values = np.asarray(values, dtype)
        return self.graph.add(FileTensor(f"stored{len(self.graph.tensors)}", values.shape, dtype, values))

    def drawn(self, *shape: int) -> int:
        return self.stored(DRAW.normal(0, 0.5, shape))

    def op(
        self, kind: str, shape: tuple[int, ...], *more: int, options: str = "", first: bool = True, **fields: Any
    ) -> int:
        inputs = (self.last, *more) if first else more
        self.last = self.graph.add(FileTensor(f"{kind.lower()}{len(self.graph.tensors)}", shape, "float32"))
        self.graph.operators.append(FileOperator(kind, inputs, (self.last,), options, fields))
        return self.last

    def conv(self, outputs: int = 4, stride: int = 1, padding: int = SAME, code: int = 0, kernel: int = 3) -> int:
        _, height, width, channels = self.graph.tensors[self.last].shape
        less = 0 if padding == SAME else kernel - 1
        shape = (1, -(-(height - less) // stride), -(-(width - less) // stride), outputs)
        return self.op(
            "CONV_2D", shape, self.drawn(outputs, kernel, kernel, channels), self.drawn(outputs),
            options="Conv2DOptions",
            strideH=stride, strideW=stride, padding=padding, fusedActivationFunction=code,
        )  # fmt: skip

    def content(self) -> bytes:
        self.graph.outputs["end"] = self.last
        return tflite_bytes(self.graph, "a test", {})


def depthwise(net: Net) -> None:
    net.conv(4)
    net.op(
        "DEPTHWISE_CONV_2D", (1, 5, 4, 8), net.drawn(1, 5, 5, 8), net.drawn(8), options="DepthwiseConv2DOptions",
        strideH=2, strideW=2, padding=SAME, depthMultiplier=2, fusedActivationFunction=RELU6,
    )  # fmt: skip


def dilated(net: Net) -> None:
    net.op(
        "CONV_2D", (1, 9, 7, 2), net.drawn(2, 3, 3, 3), net.drawn(2), options="Conv2DOptions",
        strideH=1, strideW=1, padding=SAME, dilationHFactor=2, dilationWFactor=2,
    )  # fmt: skip


def half_weights(net: Net) -> None:
    weight = net.stored(DRAW.normal(0, 0.5, (4, 3, 3, 3)), "float16")
    source = net.last
    real = net.op("DEQUANTIZE", (4, 3, 3, 3), weight, first=False)
    net.last = source
    net.op("CONV_2D", (1, 5, 4, 4), real, net.drawn(4), options="Conv2DOptions", strideH=2, strideW=2, padding=SAME)


def pool(kind: str) -> Any:
    def make(net: Net) -> None:
        net.conv(4)
        net.op(
            kind,
            (1, 5, 4, 4),
            options="Pool2DOptions",
            strideH=2,
            strideW=2,
            filterHeight=3,
            filterWidth=2,
            padding=SAME,
        )

    return make


def binary(kind: str, options: str, *shape: int) -> Any:
    def make(net: Net) -> None:
        net.conv(4)
        other = net.stored(DRAW.uniform(0.5, 2, shape))
        net.op(kind, (1, 9, 7, 4), other, options=options, **({"fusedActivationFunction": RELU} if options else {}))

    return make


def residual(net: Net) -> None:
    first = net.conv(4)
    net.conv(4)
    net.op("ADD", (1, 9, 7, 4), first, options="AddOptions")


def one(kind: str, options: str = "", **fields: Any) -> Any:
    def make(net: Net) -> None:
        net.conv(4)
        net.op(kind, (1, 9, 7, 4), options=options, **fields)

    return make


def prelu(net: Net) -> None:
    net.conv(4)
    net.op("PRELU", (1, 9, 7, 4), net.drawn(1, 1, 4))


def pad(net: Net) -> None:
    net.conv(4)
    net.op("PAD", (1, 12, 8, 6), net.stored([[0, 0], [1, 2], [0, 1], [2, 0]], "int32"))


def concatenation(net: Net) -> None:
    first = net.conv(4)
    net.conv(2)
    net.op("CONCATENATION", (1, 9, 7, 6), first, options="ConcatenationOptions", axis=3)


def resize(kind: str, options: str, **fields: Any) -> Any:
    def make(net: Net) -> None:
        net.conv(4)
        net.op(kind, (1, 18, 21, 4), net.stored([18, 21], "int32"), options=options, **fields)

    return make


def mean(axes: list[int], keep: bool, *shape: int) -> Any:
    def make(net: Net) -> None:
        net.conv(4)
        net.op("MEAN", shape, net.stored(axes, "int32"), options="ReducerOptions", keepDims=keep)

    return make


def classifier(net: Net) -> None:
    net.conv(4, 2, VALID, RELU)
    net.op("RESHAPE", (1, 48), net.stored([1, 48], "int32"))
    net.op("FULLY_CONNECTED", (1, 5), net.drawn(5, 48), net.drawn(5), options="FullyConnectedOptions")
    net.op("SOFTMAX", (1, 5), options="SoftmaxOptions", beta=1.0)


def connected_map(net: Net) -> None:
    net.conv(4)
    net.op("FULLY_CONNECTED", (1, 5), net.drawn(5, 252), net.drawn(5), options="FullyConnectedOptions")


def mixed_dimensions(net: Net) -> None:
    first = net.conv(4)
    net.op("RESHAPE", (63, 4), net.stored([63, 4], "int32"))
    net.op("RESHAPE", (9, 7, 4), net.stored([9, 7, 4], "int32"))
    net.op("ADD", (1, 9, 7, 4), first, options="AddOptions")


NETWORKS: dict[str, Any] = {
    "same": lambda net: net.conv(4, 2),
    "valid": lambda net: net.conv(4, 1, VALID),
    "fused relu": lambda net: net.conv(4, code=RELU),
    "depthwise": depthwise,
    "dilated": dilated,
    "half": half_weights,
    "residual": residual,
    "max pool": pool("MAX_POOL_2D"),
    "average pool": pool("AVERAGE_POOL_2D"),
    "add channels": binary("ADD", "AddOptions", 4),
    "sub map": binary("SUB", "SubOptions", 1, 9, 7, 4),
    "mul one": binary("MUL", "MulOptions", 1),
    "div": binary("DIV", "DivOptions", 1, 1, 1, 4),
    "maximum": binary("MAXIMUM", "", 4),
    "minimum": binary("MINIMUM", "", 1, 1, 4),
    "relu": one("RELU"),
    "relu6": one("RELU6"),
    "relu -1 to 1": one("RELU_N1_TO_1"),
    "logistic": one("LOGISTIC"),
    "tanh": one("TANH"),
    "hard swish": one("HARD_SWISH"),
    "elu": one("ELU"),
    "leaky": one("LEAKY_RELU", "LeakyReluOptions", alpha=0.3),
    "abs": one("ABS"),
    "neg": one("NEG"),
    "exp": one("EXP"),
    "softmax of channels": one("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "prelu": prelu,
    "pad": pad,
    "concatenation": concatenation,
    "bilinear": resize("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    "bilinear, half pixels": resize("RESIZE_BILINEAR", "ResizeBilinearOptions", halfPixelCenters=True),
    "bilinear, corners": resize("RESIZE_BILINEAR", "ResizeBilinearOptions", alignCorners=True),
    "nearest": resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    "nearest, half pixels": resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", halfPixelCenters=True),
    "nearest, corners": resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", alignCorners=True),
    "mean": mean([1, 2], False, 1, 4),
    "mean kept": mean([1, 2], True, 1, 1, 1, 4),
    "mean of rows": mean([2], False, 1, 9, 4),
    "classifier": classifier,
    "connected map": connected_map,
    "mixed dimensions": mixed_dimensions,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_says_what_litert_says(tmp_path: Path, name: str) -> None:
    net = Net()
    NETWORKS[name](net)
    content, path = net.content(), tmp_path / "net.tflite"
    path.write_bytes(content)
    picture = DRAW.normal(0, 1, (1, 9, 7, 3)).astype(np.float32)
    theirs = open_interpreter(content)
    theirs.allocate_tensors()
    theirs.set_tensor(theirs.get_input_details()[0]["index"], picture)
    theirs.invoke()
    wanted = theirs.get_tensor(theirs.get_output_details()[0]["index"])
    model = float_network(path)
    onnx.checker.check_model(model)
    found = open_session(model, "net", threads=1).run(None, {"picture": picture.transpose(0, 3, 1, 2)})[0]
    if wanted.ndim == 4:
        found = found.transpose(0, 2, 3, 1)
    assert wanted.std() > 1e-3  # a network of which nothing is left would be equal to anything
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_lies_before_an_unknown_operator_can_be_taken(tmp_path: Path) -> None:
    net = Net()
    net.conv(4, 2, code=RELU6)
    name = net.graph.tensors[net.last].name
    net.op("SIGN", (1, 5, 4, 4))
    path = tmp_path / "net.tflite"
    path.write_bytes(net.content())
    assert is_float(path)
    words = extractor_overrides(f"{path}:{name}")
    assert words["extractor.input_size"] == [9, 7] and words["extractor.options.pixels"] == "signed"
    config = Extractor("onnx", 1.0, (9, 7), name, 2, str(path), {"pixels": "bytes"})
    extractor = build_extractor(config)
    frames = torch.randint(0, 6, (2, 9, 7, 3), dtype=torch.uint8)
    pictures = [frame.numpy().astype(np.float32).transpose(2, 0, 1)[None] for frame in frames]
    session = open_session(float_network(path), "net", threads=1)
    maps = np.concatenate([session.run([name], {"picture": picture})[0] for picture in pictures])
    with torch.no_grad():
        found = extractor(frames)
    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps), 2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_an_operator_that_is_not_read_is_named(tmp_path: Path) -> None:
    net = Net()
    net.op("SIGN", (1, 9, 7, 3))
    path = tmp_path / "net.tflite"
    path.write_bytes(net.content())
    with pytest.raises(ModelError, match=r"none of its operators is read \(operator 0, SIGN, is not read"):
        float_network(path)
    with pytest.raises(WeightsError, match=r"net\.tflite: none of its operators is read"):
        build_extractor(Extractor("onnx", 1.0, (9, 7), "", 0, str(path), {}))


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    net = Net()
    classifier(net)
    content, path = net.content(), tmp_path / "net.tflite"
    for end in range(20, len(content), len(content) // 40):
        path.write_bytes(content[:end])
        try:
            float_network(path)
        except (WeightsError, ModelError) as error:
            assert "\n" not in str(error)
