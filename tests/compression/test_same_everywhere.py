"""An integer file gives the same scores on a processor without VNNI: kernels one by one, then files of all kinds."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from other_processor import answers, emulated_answers
from shared_data import shared
from vidlet.artifact import ArtifactNetwork, artifact_graph
from vidlet.artifact.detector import detector_graph
from vidlet.compression import find_chain, shrink_graph
from vidlet.compression.box_graph import int8_boxes
from vidlet.compression.calibrate import zero_states
from vidlet.compression.deepeye import deepeye_quantize
from vidlet.compression.deepeye_graph import deepeye_graph
from vidlet.compression.exact import quantize_exactly
from vidlet.compression.storage import quantize_weight
from vidlet.models import build_extractor, build_head
from vidlet.models.detector import build_detector
from vidlet.models.tiny_yolo import TinyYolo
from vidlet.recipe import Extractor, Head, Sampling
from vidlet.video import read_clip

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow  # an emulator starts Python and the runtime in about ten seconds on an idle machine

KERNELS = {  # outputs, inputs, side, groups, zero point of the bytes
    "pointwise": (32, 32, 1, 1, 0), "odd": (33, 33, 1, 1, 100), "dense": (24, 32, 3, 1, 0),
    "picture": (16, 3, 3, 1, 128), "depthwise": (32, 32, 3, 32, 0), "few": (5, 5, 3, 5, 0),
    "twice": (32, 16, 3, 16, 0), "groups": (12, 12, 3, 2, 7),
}  # fmt: skip
PRODUCTS = {"row": (1, 64, 48), "uneven": (1, 63, 30), "rows": (7, 65, 33), "long": (1, 1280, 96)}


def far(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.9, 1.0, shape).astype(np.float32) * np.sign(
        np.random.default_rng(1).normal(size=shape)
    ).astype(np.float32)


def worst(weight: np.ndarray) -> np.ndarray:
    """Bytes that are 255 where the first output's weights are positive."""
    return np.where(weight > 0, 255, 0).astype(np.uint8)


def written(path, nodes, inputs, kind, stored, feeds) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, inputs)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(path.with_suffix(".npz"), **feeds)


def write_kernels(folder, rounding) -> dict[str, np.ndarray]:
    """A file for every kernel; returns what each is to answer, summed in whole numbers."""
    expected = {}
    for name, (outputs, inputs, side, groups, zero) in KERNELS.items():
        weight = far(outputs, inputs // groups, side, side)
        codes, _ = rounding(weight)
        first = np.concatenate([worst(codes[g * (outputs // groups)]) for g in range(groups)])  # (I, k, k)
        x = first[None]
        whole = (x.astype(np.int64) - zero).reshape(groups, -1)
        flat = codes.reshape(groups, outputs // groups, -1).astype(np.int64)
        sums = np.einsum("gk,gok->go", whole, flat).reshape(-1)
        unit = np.float32(2.0 ** np.ceil(np.log2(np.abs(sums).max() / 127)))
        stored = {
            "one": np.float32(1), "zero": np.uint8(zero), "w": codes, "scales": np.ones(outputs, np.float32),
            "zeros": np.zeros(outputs, np.int8), "unit": unit, "middle": np.uint8(128),
        }  # fmt: skip
        node = helper.make_node(
            "QLinearConv", ["x", "one", "zero", "w", "scales", "zeros", "unit", "middle"], ["y"],
            kernel_shape=[side, side], group=groups,
        )  # fmt: skip
        written(folder / f"{name}.onnx", [node], [1, inputs, side, side], TensorProto.UINT8, stored, {"x": x})
        expected[name] = np.clip(np.rint(sums / unit) + 128, 0, 255).reshape(1, -1, 1, 1)
    for name, (rows, inputs, outputs) in PRODUCTS.items():
        codes, _ = rounding(far(inputs, outputs), 1)
        x = np.repeat(worst(codes[:, :1]).T, rows, axis=0)
        node = helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])
        stored = {"w": codes, "zero": np.uint8(128)}
        written(folder / f"{name}.onnx", [node], [rows, inputs], TensorProto.INT32, stored, {"x": x})
        expected[name] = (x.astype(np.int64) - 128) @ codes.astype(np.int64)
    return expected


def test_every_kernel_sums_exactly_without_vnni_and_plain_codes_are_cut_off(tmp_path):
    wrong = {}
    for rounding in (quantize_exactly, quantize_weight):
        folder = tmp_path / rounding.__name__
        folder.mkdir()
        expected = write_kernels(folder, rounding)
        found = emulated_answers(folder)
        wrong[rounding] = [name for name, sums in expected.items() if (found[name]["y"] != sums).any()]
    assert wrong[quantize_exactly] == []
    assert {"pointwise", "dense", "row", "rows", "long"} <= set(wrong[quantize_weight])  # the emulator shows the fault


def clips(size: tuple[int, int], frames: int = 6) -> list[np.ndarray]:
    folder = shared("data", "egogestar", "videos")
    paths = [sorted(label.glob("*.mp4"))[0] for label in sorted(folder.iterdir()) if label.is_dir()][:4]
    return [read_clip(path, Sampling(rule="uniform", frames=frames), size).frames for path in paths]


def classifier(extractor: Extractor, head: Head) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """An artifact whose head is untrained, but sure of itself, and clips of its size."""
    torch.manual_seed(0)
    built = build_extractor(extractor)
    network = build_head(head, built.feature_shape, 6).eval()
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.normal_(0, 8.0 / last.in_features**0.5)
    return artifact_graph(ArtifactNetwork(built, network), built.input_size), clips(built.input_size)


def mobilenet(cut: str, grid: int) -> Extractor:
    weights = shared("weights", "coral_tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite")
    return Extractor(weights=str(weights), cut=cut, grid=grid, input_size=(160, 160))


def write_classifiers(folder) -> None:
    kinds = {
        "grid-gru": (mobilenet("block12", 4), Head("grid-gru", {}), ["int8", "int4", "head4+int8", "int8:0.0001"]),
        "gru": (mobilenet("block12", 0), Head("gru", {"hidden": 512}), ["int8"]),
        "lstm": (mobilenet("block12", 0), Head("lstm", {"hidden": 512}), ["int8+compact"]),
        "mean": (mobilenet("head", 0), Head("mean", {}), ["int8"]),
        "volumes": (
            Extractor("pixels", input_size=(28, 62), cut="gray-sobel", grid=0, weights="none"),
            Head("clip-network", {"network": "viva-1", "frames": 6}),
            ["int8"],
        ),
    }
    for name, (extractor, head, chains) in kinds.items():
        graph, found = classifier(extractor, head)
        for chain in chains:
            path = folder / f"{name} {chain.replace(':', ' ')}.onnx"
            small = shrink_graph(find_chain(chain), graph, found)
            onnx.save(small, path)
            np.savez(path.with_suffix(".npz"), frames=found[0], **zero_states(small))


def write_detectors(folder) -> None:
    torch.manual_seed(0)
    for name, cut in (("tiny-yolov2", {}), ("mobilenetv2", {"cut": "block6", "grid": 0})):
        extractor = Extractor(name, width=0.25, input_size=(128, 128), weights="none", **cut)
        found = build_detector(extractor, ["a", "b"], np.array([[0.2, 0.3]]))
        pictures = np.concatenate(clips((128, 128), 2))
        onnx.save(int8_boxes(detector_graph(found.eval()), list(pictures)), folder / f"{name}.onnx")
        np.savez(folder / f"{name}.npz", frames=pictures[:2])
    pictures = np.concatenate(clips((96, 96), 2))
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    network = deepeye_quantize(TinyYolo(2, width=0.25).eval(), [batch], 1 / 255).eval()
    onnx.save(deepeye_graph(network, (96, 96)), folder / "deepeye.onnx")
    np.savez(folder / "deepeye.npz", frames=pictures[:2])


@pytest.mark.parametrize("write", [write_classifiers, write_detectors])
def test_whole_files_answer_alike_with_exact_sums_and_without_vnni(write, tmp_path):
    write(tmp_path)
    emulated = emulated_answers(tmp_path)
    assert emulated
    for name, found in emulated.items():
        here, exact = answers(tmp_path / f"{name}.onnx"), answers(tmp_path / f"{name}.onnx", exact_sums=True)
        for output, values in here.items():
            np.testing.assert_allclose(exact[output], values, atol=1e-3, rtol=1e-3, err_msg=f"{name}: {output}, exact")
            np.testing.assert_allclose(
                found[output], values, atol=1e-3, rtol=1e-3, err_msg=f"{name}: {output}, no VNNI"
            )
        if "scores" in here:
            assert here["scores"].std() > 0.02, f"{name}: scores say nothing"
