"""Tensor-train layers in an ONNX graph: any number of frames, the same numbers, a file of cores."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from vidlet.artifact.exporter import to_onnx_graph
from vidlet.tensor_train import TTGRU, TTLSTM, TTConv2d, TTConv3d, TTLinear


class Images(nn.Module):
    """Two convolutions and a linear layer on each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.first = TTConv2d((1, 3), (4, 8), 3, 4, padding=1)
        self.second = TTConv2d((4, 8), (8, 8), (3, 5), 4, stride=2, padding=(1, 2))
        self.linear = TTLinear((8, 8, 4, 4), (8, 4, 4, 4), 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, 3, 8, 8) -> (T, 512)."""
        x = self.second(self.first(x).relu()).relu()  # (T, 64, 4, 4)
        return self.linear(x.flatten(1))


class Clips(nn.Module):
    """A 3-D convolution over time and space and a linear layer on what is left of them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = TTConv3d((2, 2), (8, 8), 3, 4, padding=1)
        self.linear = TTLinear((8, 8), (4, 8), 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 4, 4, 6, 6) -> (N, 32)."""
        return self.linear(self.convolution(x).relu().mean((2, 3, 4)))


@pytest.mark.parametrize(("kind", "shape"), [(Images, (3, 8, 8)), (Clips, (4, 4, 6, 6))], ids=["images", "clips"])
def test_layers_export_as_cores_for_any_number_of_frames(kind, shape):
    torch.manual_seed(0)
    network = kind().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))  # equal constants would be stored once
        network(torch.randn(2, *shape))  # fills the caches: what is exported must be cores nevertheless
    model = to_onnx_graph(network, {"x": torch.randn(5, *shape)}, ["y"], {"x": {0: "T"}})
    data = model.SerializeToString()
    parameters = sum(p.numel() for p in network.parameters())
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert parameters <= stored < parameters + 200  # shapes of reshapes, nothing rebuilt
    session = onnxruntime.InferenceSession(data)
    for frames in (1, 2, 7):
        x = torch.randn(frames, *shape)
        with torch.no_grad():
            want = network(x).numpy()
        # the layers add in another order: float32's 1.2e-7 of the largest value, over some hundred additions
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], want, rtol=0, atol=1e-5 * abs(want).max())


class Stream(nn.Module):
    """A recurrent layer on frames of one clip, state in and out."""

    def __init__(self, layer: TTLSTM | TTGRU) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (T, D), states (1, H) -> the last output and both states (1, H)."""
        if isinstance(self.layer, TTLSTM):
            out, (h, c) = self.layer(x[None], (h[None], c[None]))
            return out[:, -1], h[0], c[0]
        out, h = self.layer(x[None], h[None])
        return out[:, -1], h[0], 1.0 * c


@pytest.mark.parametrize(("kind", "ranks"), [(TTLSTM, (4, 4)), (TTGRU, (None, 4))], ids=["LSTM, both", "GRU, h2h"])
def test_a_recurrence_exports_for_any_number_of_frames_and_streams(kind, ranks):
    torch.manual_seed(0)
    network = Stream(kind((4, 6, 5), (4, 4, 2), *ranks)).eval()
    state = {"state.h": torch.randn(1, 32), "state.c": torch.randn(1, 32)}
    names = ["y", "next_state.h", "next_state.c"]
    model = to_onnx_graph(network, {"x": torch.randn(5, 120), **state}, names, {"x": {0: "T"}})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    frames = torch.randn(6, 120)
    with torch.no_grad():
        want = network(frames, *state.values())
    feeds = {name: value.numpy() for name, value in state.items()}
    whole = session.run(names, {"x": frames.numpy(), **feeds})
    for frame in frames.numpy():
        stepped = session.run(names, {"x": frame[None], **feeds})
        feeds = {"state.h": stepped[1], "state.c": stepped[2]}
    for a, b, c in zip(want, whole, stepped, strict=True):
        np.testing.assert_allclose(b, a.numpy(), atol=1e-5)
        np.testing.assert_allclose(c, b, atol=1e-5)
