"""darknet's files: written and read again, both heads, and every wrong file refused by the layer's name."""

import struct

import numpy as np
import pytest
import torch

import vidlet
from boxes_case import OVERRIDES, write_squares
from shared_data import shared
from vidlet.errors import ExportError, WeightsError
from vidlet.models import MobileNetV2
from vidlet.models.darknet import (
    Header,
    load_darknet,
    load_weights_,
    parse_cfg,
    read_cfg,
    read_weights,
    write_cfg,
    write_darknet,
    write_weights,
)
from vidlet.models.detector import (
    Detector,
    DetectorPlan,
    MobileDetector,
    build_detector,
    detector_state,
    load_detector,
)
from vidlet.models.tiny_yolo import VOC_ANCHORS, TinyYolo
from vidlet.recipe import Extractor
from vidlet.runs import DETECTOR
from vidlet.training.checkpoint import save_tensors


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = TinyYolo(4, width=0.1).eval()
    for block in network.blocks:
        block.norm.running_mean.normal_()
        block.norm.running_var.uniform_(0.5, 2)
        torch.nn.init.normal_(block.norm.weight)
        torch.nn.init.normal_(block.norm.bias)
    torch.nn.init.normal_(network.predict.bias)
    return network


@pytest.mark.parametrize(
    ("header", "size"), [(Header(0, 2, 5, 2**33), 20), (Header(0, 1, 0, 77), 16), (Header(1, 0, 0, 5), 20)]
)
def test_a_network_survives_both_heads(network, tmp_path, header, size):
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    write_cfg(network, np.array(VOC_ANCHORS), (416, 320), cfg)
    count = sum(v.numel() for k, v in network.state_dict().items() if "tracked" not in k)
    assert write_weights(network, weights, header=header) == size + 4 * count == weights.stat().st_size
    again, found, head = load_darknet(cfg, weights)
    assert head == header and found.input_size == (416, 320) and found.classes == 4
    np.testing.assert_allclose(found.anchors, VOC_ANCHORS)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x))


def test_the_values_stand_in_darknets_order(network, tmp_path):
    path = tmp_path / "a.weights"
    write_weights(network, path)
    values = read_weights(path)[1]
    block, n = network.conv1, network.channels[0]
    parts = [block.norm.bias, block.norm.weight, block.norm.running_mean, block.norm.running_var, block.conv.weight]
    expected = torch.cat([part.detach().reshape(-1) for part in parts]).numpy()
    np.testing.assert_array_equal(values[: 4 * n + n * 27], expected)
    inputs = network.predict.in_channels
    assert values[-inputs * network.out_channels - 1] == network.predict.bias[-1]  # bias, then weights


def test_the_full_network_is_the_size_of_darknets_file(tmp_path):
    network = TinyYolo(20)
    assert write_weights(network, tmp_path / "voc.weights") == 20 + 63_471_540


def test_a_truncated_file_names_the_layer_in_which_it_ends(network, tmp_path):
    path = tmp_path / "a.weights"
    write_weights(network, path)
    whole = path.read_bytes()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for cut, why in (
        (10, "less than the head"),
        (18, "less than the head"),
        (20 + 4 * 8 + 40, "ends in layer conv1"),
        (len(whole) - 8, "ends in layer predict"),
        (len(whole) - 3, "no whole number of float32"),
    ):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=why):
            load_weights_(network, path)
    path.write_bytes(whole + bytes(12))
    with pytest.raises(WeightsError, match="3 values are left behind the last layer, predict"):
        load_weights_(network, path)
    path.write_bytes(struct.pack("<3i", 2**30, 0, 0) + whole[12:])
    with pytest.raises(WeightsError, match=r"not a \.weights file"):
        load_weights_(network, path)
    damaged = bytearray(whole)
    damaged[20:24] = struct.pack("<f", float("nan"))
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match="layer conv1: bias is not finite"):
        load_weights_(network, path)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_cfg_that_says_otherwise_names_line_and_layer(network, tmp_path):
    path = tmp_path / "a.cfg"
    write_cfg(network, np.array(VOC_ANCHORS), (416, 416), path)
    text = path.read_text()
    for old, new, why in (
        (
            "activation=leaky",
            "activation=mish",
            r"line 6: layer conv1 should have activation=leaky, has activation=mish",
        ),
        ("[maxpool]", "[dropout]", r"layer pool1 should be \[maxpool\], is \[dropout\]"),
        (
            "stride=1\n\n[convolutional]\nbatch",
            "stride=2\n\n[convolutional]\nbatch",
            "layer pool6 should have stride=1",
        ),
        ("classes=4", "classes=5", "5 anchors of 5 classes need 50"),
        ("num=5", "num=x", r"\[region\] needs a number num"),
        ("anchors=1.08,", "anchors=", "anchors must be 10 numbers"),
        ("[net]", "[nets]", "begins with"),
        ("height=416", "height", "line 2: 'height' is neither"),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(WeightsError, match=why):
            read_cfg(path)
    path.write_text(text[: text.index("[region]")])
    with pytest.raises(WeightsError, match="ends before layer region"):
        read_cfg(path)
    path.write_text(text + "[yolo]\n")
    with pytest.raises(WeightsError, match=r"\[yolo\] behind the last layer"):
        read_cfg(path)


@pytest.fixture
def files(network, tmp_path):
    """darknet's three files of a network of four classes."""
    return write_darknet(network, np.array(VOC_ANCHORS), "abcd", (96, 64), tmp_path / "net-1.1")


def build(weights, labels="abcd", anchors=5, size=(64, 64)):
    relative = np.linspace(0.1, 0.8, 2 * anchors).reshape(anchors, 2)
    return build_detector(Extractor("tiny-yolov2", 0.5, size, weights=str(weights)), tuple(labels), relative)


def test_a_detector_that_starts_from_darknets_files_is_the_network_in_them(network, files):
    assert [path.name for path in files] == ["net-1.1.cfg", "net-1.1.weights", "net-1.1.names"]
    detector = build(files[1])
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(detector.maps(frames), network(frames.permute(0, 3, 1, 2) / 255))
    np.testing.assert_allclose(detector.anchors, VOC_ANCHORS, rtol=1e-6)
    assert detector.plan.channels == network.channels and detector.provenance["file"] == "net-1.1.weights"


@pytest.mark.parametrize(("labels", "anchors"), [("abce", 5), ("dcba", 5), ("abc", 5), ("abcd", 3)])
def test_of_other_classes_or_anchors_all_but_the_last_layer_is_taken(network, files, labels, anchors):
    detector = build(files[1], labels, anchors)
    for name, value in network.state_dict().items():
        taken = detector.network.state_dict()[name]
        assert (taken.shape == value.shape and torch.equal(taken, value)) == (not name.startswith("predict.")), name
    wanted = np.linspace(0.1, 0.8, 2 * anchors).reshape(anchors, 2) * 2  # a map of 2 x 2 cells
    np.testing.assert_allclose(detector.anchors, wanted, rtol=1e-6)


def test_weights_without_what_describes_them_are_one_clear_line(files):
    files[0].unlink()
    with pytest.raises(WeightsError, match=r"net-1.1.weights: its layers are described by net-1.1.cfg, which must lie"):
        build(files[1])


def test_a_run_is_written_for_darknet_and_starts_the_next_one(network, tmp_path):
    plan = DetectorPlan("tiny-yolov2", tuple("abcd"), (64, 64), channels=network.channels)
    save_tensors(detector_state(Detector(network, np.array(VOC_ANCHORS), (64, 64), plan=plan)), tmp_path / DETECTOR)
    found = vidlet.export(tmp_path, tmp_path / "made" / "x.weights", format="darknet")
    assert found["out"] == str(tmp_path / "made" / "x")
    assert found["files"] == {p.name: p.stat().st_size for p in (tmp_path / "made").iterdir()}
    assert (tmp_path / "made" / "x.names").read_text() == "a\nb\nc\nd\n"
    for name, value in build(tmp_path / "made" / "x.weights").network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=0)


def test_a_training_starts_from_darknets_file(tmp_path):
    """The first layer hardly moves in an epoch at a rate of 1e-6."""
    data = write_squares(tmp_path / "squares")
    start = TinyYolo(2, 2, width=0.1)
    _, weights, _ = write_darknet(start, np.array([[0.5, 0.5], [1, 1]]), ("red", "green"), (64, 64), tmp_path / "start")
    told = OVERRIDES | {"extractor.weights": str(weights), "training.lr": 1e-6, "training.epochs": 1, "compress": []}
    vidlet.train(data, "tiny-yolov2", tmp_path / "run", told)
    learned = load_detector(tmp_path / "run" / DETECTOR)
    torch.testing.assert_close(learned.network.conv1.conv.weight, start.conv1.conv.weight, atol=1e-3, rtol=0)
    assert vidlet.load(tmp_path / "run" / "model.onnx").metadata["provenance"]["file"] == "start.weights"


def test_what_darknet_has_no_layers_for_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"not the run folder of a detector: it has no detector.pt"):
        vidlet.export(tmp_path, tmp_path / "x", format="darknet")
    network = MobileDetector(MobileNetV2(0.35, "block12"), 2, 3)
    plan = DetectorPlan("mobilenetv2", ("a", "b"), (64, 64), 0.35)
    save_tensors(detector_state(Detector(network, np.ones((3, 2)), (64, 64), plan=plan)), tmp_path / DETECTOR)
    with pytest.raises(ExportError, match="darknet has no mobilenetv2; a tiny-yolov2 is written"):
        vidlet.export(tmp_path, tmp_path / "x", format="darknet")


@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_real_files_of_another_network_are_read_and_refused_by_layer(name):
    folder = shared("weights", "yolo_fastest")
    header, values = read_weights(folder / f"{name}.weights")
    assert (header.major, header.minor, header.revision) == (0, 2, 5) and header.seen > 10**7
    assert 20 + 4 * len(values) == (folder / f"{name}.weights").stat().st_size
    assert len(parse_cfg(folder / f"{name}.cfg")) > 100
    with pytest.raises(WeightsError, match=r"line \d+: layer conv1 should have stride=1, has stride=2"):
        load_darknet(folder / f"{name}.cfg", folder / f"{name}.weights")
    with pytest.raises(WeightsError, match=r"layer conv[12]: its variance is negative|ends in layer conv"):
        load_weights_(TinyYolo(80), folder / f"{name}.weights")
    with pytest.raises(WeightsError, match=r"layer conv\d.*of another network"):
        load_weights_(TinyYolo(3, width=0.1), folder / f"{name}.weights")
    with pytest.raises(WeightsError, match=rf"{name}.cfg: line \d+: layer conv1 should have stride=1, has stride=2"):
        build(folder / f"{name}.weights")
