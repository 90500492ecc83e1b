"""Recurrent layers in 8 bits: stored and computed in float, in integer products, or by a runtime's own operator.

    python benchmarks/speed/recurrent_int8.py [--rounds 100] [--frames 16] [--json]

GRU 96 -> 128 and 1280 -> 1280, frame by frame (T = 1) and a clip at once, one thread's processor time, random weights.
Compared are

    float         ONNX's GRU in float32 (8-bit storage is folded into it at load: the same kernel, the same time)
    scan float    the same cell as a Scan of matrix products, in float32
    scan int8     ... with MatMulInteger: h as u8 by a fixed scale (|h| <= 1), x by a fixed range
    dynamic int8  ... with DynamicQuantizeLinear of x and h: a scale for each call, so a clip differs from its frames
    step int8     "scan int8" without the Scan: T must be 1
    LSTM          ONNX's LSTM in float32, and com.microsoft's DynamicQuantizeLSTM

``error`` is the largest difference of the last h from float, ``streaming`` that between a clip at once and its frames.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

SIZES = ((96, 128), (256, 256), (1280, 1280))
X_RANGE = (6 / 255, 0)  # features behind a ReLU6


class Graph:
    """Nodes and constants, and the model made of them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def keep(self, name: str, value: np.ndarray | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, kind: str, *inputs: str, to: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [to], **attributes))
        return to

    def model(self, inputs: list, outputs: list) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, list(self.constants.values()))
        domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=10)


def value(name: str, *shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def weights(inputs: int, hidden: int, gates: int) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(0)
    bound = hidden**-0.5
    shapes = ((gates * hidden, inputs), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,))
    return tuple(draw.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes)


def codes(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transposed int8 codes (in, out) and float32 scales (out,)."""
    scales = np.abs(weight).max(1) / 127
    return np.rint(weight / scales[:, None]).astype(np.int8).T, scales.astype(np.float32)


def rounded(weight: np.ndarray) -> np.ndarray:
    whole, scales = codes(weight)
    return (whole.T * scales[:, None]).astype(np.float32)


def native(inputs: int, hidden: int, kind: str = "GRU") -> onnx.ModelProto:
    """ONNX's operator with weights that were stored in 8 bits."""
    gates = {"GRU": 3, "LSTM": 4}[kind]
    w, r, bw, br = weights(inputs, hidden, gates)
    graph = Graph()
    graph.keep("w", rounded(w)[None])
    graph.keep("r", rounded(r)[None])
    graph.keep("b", np.concatenate([bw, br])[None])
    states = ["h0"] if kind == "GRU" else ["h0", "c0"]
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    made = ["", *(name[0] for name in states)]
    graph.nodes.append(helper.make_node(kind, ["x", "w", "r", "b", "", *states], made, hidden_size=hidden, **options))
    return graph.model(
        [value("x", "T", 1, inputs), *(value(name, 1, 1, hidden) for name in states)],
        [value(name[0], 1, 1, hidden) for name in states],
    )


def dynamic_lstm(inputs: int, hidden: int) -> onnx.ModelProto:
    """com.microsoft's LSTM of int8 weights."""
    w, r, bw, br = weights(inputs, hidden, 4)
    graph = Graph()
    for name, weight in (("w", w), ("r", r)):
        whole, scales = codes(weight)
        graph.keep(name, whole[None])
        graph.keep(f"{name}.scale", scales[None])
        graph.keep(f"{name}.zero", np.zeros((1, len(scales)), np.int8))
    graph.keep("b", np.concatenate([bw, br])[None])
    graph.nodes.append(
        helper.make_node(
            "DynamicQuantizeLSTM",
            ["x", "w", "r", "b", "", "h0", "c0", "", "w.scale", "w.zero", "r.scale", "r.zero"], ["", "h", "c"],
            domain="com.microsoft", hidden_size=hidden,
        )
    )  # fmt: skip
    states = [value(name, 1, 1, hidden) for name in ("h0", "c0")]
    outputs = [value(name, 1, 1, hidden) for name in ("h", "c")]
    return graph.model([value("x", "T", 1, inputs), *states], outputs)


def product(graph: Graph, source: str, name: str, weight: np.ndarray, how: str, step: tuple[float, int]) -> str:
    """source (N, I) times weight (O, I) transposed -> (N, O), the way that ``how`` says."""
    whole, scales = codes(weight)
    if how == "float":
        return graph.add("MatMul", source, graph.keep(f"{name}.w", rounded(weight).T), to=f"{name}.y")
    graph.keep(f"{name}.w", whole)
    graph.keep(f"{name}.w0", np.int8(0))
    if how == "dynamic":
        graph.nodes.append(helper.make_node("DynamicQuantizeLinear", [source], [f"{name}.q", f"{name}.s", f"{name}.z"]))
        graph.add("MatMulInteger", f"{name}.q", f"{name}.w", f"{name}.z", f"{name}.w0", to=f"{name}.sum")
        graph.add("Mul", f"{name}.s", graph.keep(f"{name}.scale", scales), to=f"{name}.scales")
    else:
        graph.add(
            "QuantizeLinear", source, graph.keep(f"{name}.s", np.float32(step[0])),
            graph.keep(f"{name}.z", np.uint8(step[1])), to=f"{name}.q",
        )  # fmt: skip
        graph.add("MatMulInteger", f"{name}.q", f"{name}.w", f"{name}.z", f"{name}.w0", to=f"{name}.sum")
        graph.keep(f"{name}.scales", (scales * np.float32(step[0])).astype(np.float32))
    graph.nodes.append(helper.make_node("Cast", [f"{name}.sum"], [f"{name}.cast"], to=TensorProto.FLOAT))
    return graph.add("Mul", f"{name}.cast", f"{name}.scales", to=f"{name}.y")


def cell(graph: Graph, gates_x: str, h: str, r: np.ndarray, br: np.ndarray, how: str, hidden: int) -> str:
    """One step of ONNX's GRU (linear_before_reset): gates_x (N, 3H), h (N, H) -> (N, H)."""
    graph.add("Add", product(graph, h, "r", r, how, (1 / 127, 128)), graph.keep("r.b", br), to="gates_h")
    graph.keep("sizes", np.array([2 * hidden, hidden], np.int64))
    graph.keep("halves", np.array([hidden, hidden], np.int64))
    graph.keep("one", np.float32(1))
    graph.nodes.append(helper.make_node("Split", [gates_x, "sizes"], ["x.zr", "x.n"], axis=1))
    graph.nodes.append(helper.make_node("Split", ["gates_h", "sizes"], ["h.zr", "h.n"], axis=1))
    graph.add("Sigmoid", graph.add("Add", "x.zr", "h.zr", to="zr.in"), to="zr")
    graph.nodes.append(helper.make_node("Split", ["zr", "halves"], ["z", "rr"], axis=1))
    graph.add("Tanh", graph.add("Add", "x.n", graph.add("Mul", "rr", "h.n", to="rh"), to="n.in"), to="n")
    graph.add("Mul", "z", graph.add("Sub", h, "n", to="h-n"), to="z(h-n)")
    return graph.add("Add", "n", "z(h-n)", to="h.next")


def lowered(inputs: int, hidden: int, how: str, scan: bool = True) -> onnx.ModelProto:
    """The GRU as matrix products; the input's part for all frames at once, the recurrent part frame by frame."""
    w, r, bw, br = weights(inputs, hidden, 3)
    graph = Graph()
    graph.keep("flat", np.array([-1, inputs], np.int64))
    graph.keep("split", np.array([-1, 1, 3 * hidden], np.int64))
    graph.keep("row", np.array([1, hidden], np.int64))
    graph.keep("whole", np.array([1, 1, hidden], np.int64))
    graph.add("Reshape", "x", "flat", to="x.rows")
    graph.add("Add", product(graph, "x.rows", "w", w, how, X_RANGE), graph.keep("w.b", bw), to="gates")
    graph.add("Reshape", "h0", "row", to="h.first")
    if scan:
        body = Graph()
        last = cell(body, "gates_x", "h.before", r, br, how, hidden)
        inner = helper.make_graph(
            body.nodes, "body", [value("h.before", 1, hidden), value("gates_x", 1, 3 * hidden)],
            [value(last, 1, hidden)], list(body.constants.values()),
        )  # fmt: skip
        graph.add("Reshape", "gates", "split", to="gates.frames")
        graph.nodes.append(
            helper.make_node("Scan", ["h.first", "gates.frames"], ["last"], num_scan_inputs=1, body=inner)
        )
    else:
        graph.add("Identity", cell(graph, "gates", "h.first", r, br, how, hidden), to="last")
    graph.add("Reshape", "last", "whole", to="h")
    return graph.model([value("x", "T", 1, inputs), value("h0", 1, 1, hidden)], [value("h", 1, 1, hidden)])


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(made: onnxruntime.InferenceSession, x: np.ndarray, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in made.get_outputs()]
    return dict(zip(names, made.run(names, {"x": x, **state}), strict=True))


def stream(made: onnxruntime.InferenceSession, x: np.ndarray, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Frame by frame."""
    for frame in x:
        after = run(made, frame[None], state)
        state = {f"{name}0": values for name, values in after.items()}
    return after


def compare(inputs: int, hidden: int, frames: int, rounds: int) -> dict[str, dict[str, float]]:
    models = {
        "GRU float": native(inputs, hidden),
        "GRU scan float": lowered(inputs, hidden, "float"),
        "GRU scan int8": lowered(inputs, hidden, "static"),
        "GRU dynamic int8": lowered(inputs, hidden, "dynamic"),
        "GRU step int8": lowered(inputs, hidden, "static", scan=False),
        "LSTM float": native(inputs, hidden, "LSTM"),
        "LSTM DynamicQuantize": dynamic_lstm(inputs, hidden),
    }
    sessions = {name: session(model) for name, model in models.items()}
    x = np.random.default_rng(1).uniform(0, 2, (frames, 1, inputs)).astype(np.float32)
    zeros = {
        name: {i.name: np.zeros((1, 1, hidden), np.float32) for i in made.get_inputs() if i.name != "x"}
        for name, made in sessions.items()
    }
    found: dict[str, dict[str, float]] = {}
    for name, made in sessions.items():
        streamed = stream(made, x, zeros[name])["h"]
        wanted = stream(sessions[f"{name[:4].strip()} float"], x, zeros[f"{name[:4].strip()} float"])["h"]
        found[name] = {"error": float(np.abs(streamed - wanted).max()), "bytes": len(models[name].SerializeToString())}
        if "step" not in name:
            found[name]["streaming"] = float(np.abs(run(made, x, zeros[name])["h"] - streamed).max())
    for length, key in ((1, "frame_ms"), (frames, "clip_ms")):
        names = [name for name in sessions if length == 1 or "step" not in name]
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                begin = time.thread_time()
                run(sessions[name], x[:length], zeros[name])
                times[name].append(1000 * (time.thread_time() - begin))
        for name in names:
            found[name][key], found[name][f"{key}_least"] = statistics.median(times[name]), min(times[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    options = parser.parse_args()
    results = {f"{i} -> {h}": compare(i, h, options.frames, options.rounds) for i, h in SIZES}
    save(options, "recurrent_int8", rows_of(results), ("compression",))
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        for name, figures in rows.items():
            print(f"{title:13} {name:21}", "  ".join(f"{key} {figure:.4g}" for key, figure in figures.items()))


if __name__ == "__main__":
    main()
