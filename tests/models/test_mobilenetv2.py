"""MobileNetV2 and the frame extractor: the paper's numbers, TensorFlow's padding, folding, cutting, pooling."""

import numpy as np
import pytest
import torch
from torch import nn

from vidlet.errors import RecipeError
from vidlet.models import FrameExtractor, MobileNetV2, build_extractor, fuse_batch_norm
from vidlet.models.extractor import GridPool
from vidlet.models.mobilenets import ConvNorm, round_channels, same_pads
from vidlet.recipe import Extractor


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module: nn.Module) -> nn.Module:
    """The module with normalizations that do something, in eval mode."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return module.eval()


def test_parameters_are_those_of_the_published_network():
    assert count(MobileNetV2(classes=1000)) == 3_504_872
    assert count(MobileNetV2()) == 2_223_872


def test_block12_ends_the_96_channel_stage_at_14_by_14_with_a_quarter_of_the_weights():
    model = MobileNetV2(cut="block12").eval()
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 96, 14, 14)
    assert count(model) == 542_528
    assert not any(name.startswith(("block13", "head")) for name, _ in model.named_parameters())


def test_a_cut_network_computes_the_beginning_of_the_whole_one():
    whole = shaken(MobileNetV2(0.35))
    cut = MobileNetV2(0.35, cut="block5").eval()
    cut.load_state_dict({name: value for name, value in whole.state_dict().items() if name in cut.state_dict()})
    x = torch.randn(2, 3, 64, 64)
    expected = x
    for part in whole.parts[:7]:
        expected = whole.get_submodule(part)(expected)
    torch.testing.assert_close(cut(x), expected)


def test_channels_are_rounded_to_eights_and_never_lose_more_than_a_tenth():
    assert [round_channels(32 * w) for w in (0.35, 0.5, 0.75, 1.0, 1.4)] == [16, 16, 24, 32, 48]
    assert MobileNetV2(0.35).out_channels == 1280
    assert MobileNetV2(1.4).out_channels == 1792


def test_same_padding_by_hand():
    assert same_pads(224, 3, 2) == (0, 1)
    assert same_pads(7, 3, 2) == (1, 1)
    assert same_pads(14, 3, 1) == (1, 1)
    layer = ConvNorm(1, 1, 3, 2, act=False, padding="same").eval()
    nn.init.ones_(layer.conv.weight)
    layer.norm = nn.Identity()
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    # windows start at 0 and 2, and hang over the lower and right edge
    assert layer(picture).flatten().tolist() == [45.0, 39.0, 66.0, 50.0]


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_size_of_the_map_is_foretold_for_any_picture(padding):
    model = MobileNetV2(0.35, "block13", padding).eval()
    for height, width in ((32, 33), (47, 65), (96, 50)):
        assert tuple(model(torch.zeros(1, 3, height, width)).shape[2:]) == model.map_size(height, width)


def test_folded_normalization_computes_the_same_function():
    model = shaken(MobileNetV2(0.35, padding="same"))
    x = torch.randn(2, 3, 64, 64)
    fused = fuse_batch_norm(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fused.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    torch.testing.assert_close(fused(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(7, 6), (8, 12), (4, 4), (28, 14)])
def test_the_grid_has_torchs_bins(height, width):
    maps = torch.randn(2, 5, height, width)
    torch.testing.assert_close(
        GridPool(height, width, 4)(maps), nn.functional.adaptive_avg_pool2d(maps, 4), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(("grid", "shape"), [(0, (96,)), (3, (96, 3, 3)), (4, (96, 4, 4))])
def test_an_extractor_gives_each_frame_its_features_whatever_stands_beside_it(grid, shape):
    config = Extractor(weights="none", input_size=(64, 64), grid=grid)
    extractor = build_extractor(config)
    assert extractor.feature_shape == shape
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = extractor(frames)
        alone = torch.cat([extractor(frame[None]) for frame in frames])
    assert features.shape == (3, *shape)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, alone, atol=1e-5, rtol=1e-4)


def test_normalization_is_the_one_stated():
    extractor = FrameExtractor(MobileNetV2(0.35, "block0"), (32, 32), zero_point=127.0, scale=0.5)
    frames = torch.full((1, 32, 32, 3), 129, dtype=torch.uint8)
    assert torch.equal(extractor.normalize(frames), torch.ones(1, 3, 32, 32))
    extractor = FrameExtractor(MobileNetV2(0.35, "block0"), (32, 32), zero_point=(1.0, 2.0, 3.0), scale=(1.0, 0.5, 2.0))
    assert extractor.normalize(frames)[0, :, 0, 0].tolist() == [128.0, 63.5, 252.0]


def test_frozen_normalization_keeps_its_statistics_while_gradients_flow():
    extractor = FrameExtractor(MobileNetV2(0.35, "block2"), (32, 32), freeze_norm=True).train()
    before = extractor.backbone.stem.norm.running_mean.clone()
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    extractor.features(extractor.normalize(frames)).square().mean().backward()
    assert extractor.training
    assert torch.equal(extractor.backbone.stem.norm.running_mean, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in extractor.backbone.stem.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "resnet"}, "extractor.name must be one of mobilenetv2, .*got 'resnet'"),
        ({"cut": "block17"}, "extractor.cut must be one of .* got 'block17'"),
        ({"width": 9.0}, "extractor.width must be between"),
        ({"grid": 5}, "extractor.grid must be 0 to 4"),
        ({"input_size": (16, 64)}, "extractor.input_size must be at least 32 x 32"),
    ],
)
def test_an_impossible_extractor_is_an_error_that_names_the_key(change, words):
    with pytest.raises(RecipeError, match=words):
        build_extractor(Extractor(**{"weights": "none", "input_size": (64, 64), **change}))


def test_the_same_seed_gives_the_same_extractor():
    def weights() -> np.ndarray:
        torch.manual_seed(3)
        return build_extractor(Extractor(weights="none", width=0.35)).backbone.stem.conv.weight.detach().numpy()

    np.testing.assert_array_equal(weights(), weights())
