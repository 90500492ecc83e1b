"""Write src/vidlet/runtime/reference.onnx: the small network by which two machines are compared.

Six inverted residuals as MobileNetV2 has them at 14 x 14 (96 channels, expansion 6). Their weights are made when the
file is loaded: it has a few kB.

    python benchmarks/speed/make_reference.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS, CHANNELS, WIDE, SIDE = 6, 96, 576, 14


def main() -> None:
    """Write the file."""
    nodes, constants = [], {}

    def weight(*shape: int) -> str:
        name = "x".join(map(str, shape))
        if name not in constants:
            constants[name] = numpy_helper.from_array(np.array(shape, np.int64), f"shape.{name}")
            value = numpy_helper.from_array(np.array([1 / np.prod(shape[1:])], np.float32))
            nodes.append(helper.make_node("ConstantOfShape", [f"shape.{name}"], [f"weight.{name}"], value=value))
        return f"weight.{name}"

    def conv(source: str, target: str, outputs: int, inputs: int, kernel: int, groups: int = 1) -> None:
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [source, weight(outputs, inputs // groups, kernel, kernel)], [target],
                                      group=groups, pads=pads))  # fmt: skip

    x = "input"
    for i in range(BLOCKS):
        conv(x, f"expand{i}", WIDE, CHANNELS, 1)
        nodes.append(helper.make_node("Relu", [f"expand{i}"], [f"a{i}"]))
        conv(f"a{i}", f"depthwise{i}", WIDE, WIDE, 3, WIDE)
        nodes.append(helper.make_node("Relu", [f"depthwise{i}"], [f"b{i}"]))
        conv(f"b{i}", f"project{i}", CHANNELS, WIDE, 1)
        nodes.append(helper.make_node("Add", [x, f"project{i}"], [f"x{i}"]))
        x = f"x{i}"
    shape = (1, CHANNELS, SIDE, SIDE)
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        list(constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    path = Path(__file__).parents[2] / "src" / "vidlet" / "runtime" / "reference.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
