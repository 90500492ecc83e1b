"""The interpreter computes what PyTorch and ONNX Runtime do, whichever exporter and operator set wrote the file."""

import functools

import numpy as np
import onnx
import pytest
import torch
from networks import NETWORKS, SIDE, All, export, network
from onnx import helper, numpy_helper

from shared_data import shared
from vidlet.errors import ModelError
from vidlet.models.onnx_file import OnnxBackbone
from vidlet.onnx_graph import Graph
from vidlet.onnx_graph.interpreter import GraphNetwork
from vidlet.runtime import open_session

SETS = (9, 10, 11, 12, 13, 15, 17, 18, 20, 23)
EXPORTED_OTHERWISE = ("pyramid, set 10: ",)  # a file that says something else than the network: linear by corners
n = helper.make_node


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def assert_same(model: onnx.ModelProto, until: str, expected: torch.Tensor, what: str = "") -> None:
    """Three pictures at once give what ONNX Runtime computes of each, and what the network gave that was exported."""
    session = open_session(model, threads=1)
    answers = [session.run([until], {"x": picture[None].numpy()})[0] for picture in pictures()]
    read = GraphNetwork(model, "x", until).eval()
    with torch.no_grad():
        found = read(pictures())
    close = {"rtol": 0, "atol": 1e-5 * max(1.0, float(expected.abs().max()))}
    torch.testing.assert_close(found, torch.from_numpy(np.concatenate(answers)), **close, msg=lambda text: what + text)
    if what not in EXPORTED_OTHERWISE:
        torch.testing.assert_close(found, expected, **close, msg=lambda text: what + text)


@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_the_older_exporter_are_read_at_every_set(name):
    module = network(name)
    with torch.no_grad():
        expected = module(pictures())
    read = 0
    for i, opset in enumerate(SETS):
        try:
            model = export(module, opset, False, ["y"], free=bool(i % 2))
        except torch.onnx.errors.OnnxExporterError:
            continue  # of an exporter that cannot say this network in so old a set
        assert_same(model, "y", expected, f"{name}, set {opset}: ")
        read += 1
    assert read >= len(SETS) - 5


@functools.cache
def side_by_side(names: tuple[str, ...], opset: int, free: bool) -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
    """Networks as one file of the newer exporter, and what each gives; each is the part from ``x`` to its name."""
    module = All(names).eval()
    with torch.no_grad():
        expected = dict(zip(names, module(pictures()), strict=True))
    model = export(module, opset, True, list(names), free)
    assert [found.version for found in model.opset_import if not found.domain] == [opset]
    return model, expected


FEW = ("relu6", "excitation", "pyramid", "attention")


@pytest.mark.parametrize("name", FEW)
def test_files_of_the_newer_exporter_are_read(name):
    model, expected = side_by_side(FEW, 18, False)
    assert_same(model, name, expected[name])


EVERY = tuple(NETWORKS)
NEWEST = ("relu6", "residual", "excitation", "flattened")  # what PyTorch 2.13 can say in the newest set
CASES = [
    (names, opset, free, name)
    for names, opset, free in ((EVERY, 18, True), (EVERY, 20, False), (EVERY, 23, True), (NEWEST, 26, False))
    for name in names
]


@pytest.mark.slow
@pytest.mark.parametrize(("names", "opset", "free", "name"), CASES, ids=[f"{case[1]}-{case[3]}" for case in CASES])
def test_files_of_the_newer_exporter_are_read_at_every_set(names, opset, free, name):
    model, expected = side_by_side(names, opset, free)
    assert_same(model, name, expected[name])


def made(nodes, shape=(1, 3, 4, 4), opset=20, **stored) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``, written by hand."""
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, shape)], [value("y", 1, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def assert_rows(model: onnx.ModelProto, shape: tuple[int, ...] = (3, 4, 4)) -> None:
    """Two rows at once give what ONNX Runtime computes of each."""
    rows = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    session = open_session(model)
    expected = np.stack([session.run(["y"], {"x": row[None]})[0] for row in rows])
    with torch.no_grad():
        found = GraphNetwork(model, "x", "y")(torch.from_numpy(rows)).numpy()
    assert found.size == expected.size
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


BY_HAND = {
    "a Clip without an upper bound": ([n("Clip", ["x", "low"], ["y"])], {"low": np.float32(0.1)}),
    "a Clip without a lower bound": ([n("Clip", ["x", "", "high"], ["y"])], {"high": np.float32(0.1)}),
    "a sum over the picture itself": ([n("ReduceSum", ["x", "axes"], ["y"])], {"axes": ints(0, 1)}),
    "a mean of everything": ([n("ReduceMean", ["x"], ["y"], keepdims=0)], {}),
    "a transpose that moves the picture": ([n("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])], {}),
    "a convolution where the picture was moved": (
        [n("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]), n("Conv", ["t", "w"], ["y"], auto_pad="SAME_LOWER")],
        {"w": np.ones((2, 1, 2, 2), np.float32)},
    ),
    "values of other ranks": (
        [n("ReduceMean", ["x", "axes"], ["m"], keepdims=0), n("Add", ["x", "m"], ["y"])],
        {"axes": ints(1, 2)},
    ),
    "a constant of a higher rank": (
        [n("Mul", ["x", "c"], ["y"])],
        {"c": np.arange(6, dtype=np.float32).reshape(2, 1, 3, 1, 1)},
    ),
    "a gather of several places": ([n("Gather", ["x", "at"], ["y"], axis=1)], {"at": np.array([[2, 0], [1, -1]])}),
    "a pad of the pictures": ([n("Pad", ["x", "sizes"], ["y"])], {"sizes": ints(1, 0, 0, 0, 0, 0, 2, 1)}),
    "a pad that mirrors": (
        [n("Pad", ["x", "sizes"], ["y"], mode="reflect")],
        {"sizes": ints(0, 0, 1, 2, 0, 0, 3, 1)},
    ),
    "a slice from behind": (
        [n("Slice", ["x", "a", "b", "axes", "step"], ["y"])],
        {"a": ints(-3), "b": ints(2**31), "axes": ints(-1), "step": ints(2)},
    ),
    "constants that are computed": (
        [n("Constant", [], ["two"], value_float=2.0), n("Exp", ["two"], ["e"]), n("Mul", ["x", "e"], ["y"])],
        {},
    ),
    "an average that is as large as the map": ([n("AveragePool", ["x"], ["y"], kernel_shape=[4, 4])], {}),
    "an average over uneven paddings": (
        [n("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 1, 1, 0])],
        {},
    ),
    "enlarging by a fraction": (
        [
            n("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric"),
        ],
        {"s": np.array([1, 1, 1.5, 1.75], np.float32)},
    ),
    "a softmax of more than one axis": ([n("Softmax", ["x"], ["y"], axis=1)], {}, 11),
    "blocks to channels": ([n("SpaceToDepth", ["x"], ["y"], blocksize=2)], {}),
    "a split of the picture itself": (
        [n("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]), n("Split", ["t", "parts"], ["a", "b"]),
         n("Concat", ["b", "a"], ["y"], axis=0)],
        {"parts": ints(1, 2)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_graphs_written_by_hand_are_what_the_runtime_computes(name):
    nodes, stored, *opset = BY_HAND[name]
    assert_rows(made(nodes, opset=opset[0] if opset else 20, **stored))


def test_the_part_between_two_inner_tensors_is_that_part():
    model = export(network("residual"), 17, False, ["y"])
    first = next(node.output[0] for node in Graph(model).nodes if node.op_type == "MaxPool")
    whole, before, behind = (GraphNetwork(model, *ends) for ends in (("x", "y"), ("x", first), (first, "y")))
    with torch.no_grad():
        torch.testing.assert_close(behind(before(pictures())), whole(pictures()))
        kept = whole.trace(pictures(), ("y", first))
    assert set(kept) == {"y", first}
    assert len(before.weights) + len(behind.weights) == len(whole.weights)
    with pytest.raises(ModelError, match="y depends on x, not on nowhere alone"):
        GraphNetwork(model, "nowhere", "y")


def test_kernels_and_matrices_learn_and_other_numbers_do_not():
    model = export(network("relu6"), 18, False, ["y"])
    read = GraphNetwork(model, "x", "y")
    assert sorted(p.ndim for p in read.parameters()) == [1, 1, 1, 2, 4, 4]
    optimizer = torch.optim.Adam(read.parameters(), 1e-2)
    target, losses = torch.zeros(3, 5), []
    for _ in range(12):
        loss = (read(pictures()) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    again = GraphNetwork(model, "x", "y")
    again.load_state_dict(read.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(pictures()), read(pictures()))


def test_what_cannot_be_read_is_one_line_that_names_it():
    sums = made([n("CumSum", ["x", "axis"], ["y"], name="running")], axis=np.int64(1))
    words = r"^operator CumSum \(node running, set 20\) is not read; read are Abs, Add, .*$"
    with pytest.raises(ModelError, match=words):
        GraphNetwork(sums, "x", "y")
    foreign = made([helper.make_node("Relu", ["x"], ["y"], domain="com.example")])
    foreign.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(ModelError, match=r"operator com\.example\.Relu \(node y, set 3\) is not read"):
        GraphNetwork(foreign, "x", "y")
    weights = made([n("Relu", ["x"], ["w"]), n("Conv", ["x", "w"], ["y"])])
    with pytest.raises(ModelError, match=r"Conv \(y\): its weights are computed; expected stored ones"):
        GraphNetwork(weights, "x", "y")
    bounds = made([n("ReduceMax", ["x"], ["m"], keepdims=0), n("Clip", ["x", "m"], ["y"])])
    with pytest.raises(ModelError, match=r"Clip \(y\): its min is computed; expected a stored one"):
        GraphNetwork(bounds, "x", "y")
    with pytest.raises(ModelError, match="takes 2 pictures at once; expected one, or a free number"):
        GraphNetwork(made([n("Relu", ["x"], ["y"])], shape=(2, 3, 4, 4)), "x", "y")
    with pytest.raises(ModelError, match="the graph has no tensor 'z'"):
        GraphNetwork(made([n("Relu", ["x"], ["y"])]), "x", "z")
    free = made([n("Relu", ["x"], ["y"])], shape=("N", 3, "H", "W"))
    with pytest.raises(ModelError, match="expected pictures of a fixed size"):
        GraphNetwork(free, "x", "y")
    assert GraphNetwork(free, "x", "y", size=(4, 6)).shapes["y"] == (1, 3, 4, 6)


@pytest.mark.parametrize(
    ("file", "tensor", "size"),
    [
        (("yolox", "yolox_nano.onnx"), "input.367", 416),
        (("fastestdet", "FastestDet.onnx"), "", 352),
        (("nanodet", "nanodet_m.onnx"), "810", 416),
    ],
)
def test_networks_that_people_bring_are_read_at_an_inner_cut(file, tensor, size):
    backbone = OnnxBackbone(shared("weights", *file), tensor, (size, size))  # it holds itself to ONNX Runtime
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, size, size))
    assert maps.shape == (2, backbone.out_channels, *backbone.map)
