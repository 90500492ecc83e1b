"""The interpreter computes what PyTorch and ONNX Runtime do, whichever exporter and operator set wrote the file."""

import functools

import onnx
import pytest
import torch
from networks import NETWORKS, SIDE, All, export, network
from onnx import helper

from vidlet.onnx_graph.interpreter import GraphNetwork

SETS = (9, 10, 11, 12, 13, 15, 17, 18, 20, 23)
n = helper.make_node


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def assert_same(model: onnx.ModelProto, until: str, expected: torch.Tensor, what: str = "") -> None:
    """Three pictures at once, and one."""
    read = GraphNetwork(model, "x", until).eval()
    with torch.no_grad():
        found, single = read(pictures()), read(pictures()[:1])
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale, msg=lambda text: f"{what}: {text}")
    torch.testing.assert_close(single, expected[:1], rtol=0, atol=1e-5 * scale)


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
        assert_same(model, "y", expected, f"set {opset}")
        read += 1
    assert read >= len(SETS) - 5


@functools.cache
def all_networks(opset: int, free: bool) -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
    module = All().eval()
    with torch.no_grad():
        expected = dict(zip(NETWORKS, module(pictures()), strict=True))
    return export(module, opset, True, list(NETWORKS), free), expected


@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_the_newer_exporter_are_read(name):
    model, expected = all_networks(18, False)
    assert_same(model, name, expected[name])


NEWEST = min(onnx.defs.onnx_opset_version(), 26)  # 26 is the last that PyTorch 2.13 writes


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("opset", "free"), [(18, True), (20, False), (23, True), (NEWEST, False)])
def test_files_of_the_newer_exporter_are_read_at_every_set(name, opset, free):
    model, expected = all_networks(opset, free)
    assert_same(model, name, expected[name])
