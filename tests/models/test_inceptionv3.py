"""Inception-v3: the numbers and names of the published network, its cuts, its state dicts, its graph."""

import numpy as np
import pytest
import torch
from torch import nn

from vidlet.artifact import extractor_graph
from vidlet.compression.calibrate import calibrate
from vidlet.compression.int8 import quantize_graph, quantized_tensors
from vidlet.errors import RecipeError, WeightsError
from vidlet.models import build_extractor, build_head, fuse_batch_norm
from vidlet.models.inceptionv3 import CUTS, ConvRelu, InceptionV3, torchvision_key
from vidlet.recipe import Extractor, load_recipe


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(backbone: InceptionV3) -> InceptionV3:
    """With normalizations that do something, in eval mode."""
    torch.manual_seed(1)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.uniform_(layer.weight, 0.7, 1.4)
            nn.init.uniform_(layer.running_var, 0.7, 1.4)
    return backbone.eval()


def torchvision_state() -> dict[str, torch.Tensor]:
    """A state dict with torchvision's names, its classifiers included."""
    torch.manual_seed(0)
    state = {torchvision_key(key): value for key, value in InceptionV3(classes=7).state_dict().items()}
    return {**state, "AuxLogits.fc.weight": torch.zeros(7, 768)}


def test_parameters_and_layers_are_those_of_the_published_network():
    with torch.device("meta"):
        whole = InceptionV3(classes=1000)
    assert count(whole) == 23_834_568  # torchvision's inception_v3 without its auxiliary classifier
    assert sum(isinstance(layer, ConvRelu) for layer in whole.modules()) == 94
    assert whole.map_size(299, 299) == (8, 8)
    channels = {"Mixed_5b": 256, "Mixed_5d": 288, "Mixed_6a": 768, "Mixed_6e": 768, "Mixed_7a": 1280, "Mixed_7c": 2048}
    with torch.device("meta"):
        assert {cut: InceptionV3(cut).out_channels for cut in channels} == channels


def test_names_are_torchvisions():
    with torch.device("meta"):
        names = {torchvision_key(key) for key in InceptionV3(classes=5).state_dict()}
    for name in (
        "Conv2d_1a_3x3.conv.weight", "Conv2d_4a_3x3.bn.running_mean", "Mixed_5b.branch5x5_2.conv.weight",
        "Mixed_5d.branch_pool.bn.bias", "Mixed_6a.branch3x3dbl_3.conv.weight", "Mixed_6c.branch7x7dbl_5.bn.weight",
        "Mixed_7a.branch7x7x3_4.conv.weight", "Mixed_7b.branch3x3dbl_3b.conv.weight", "fc.bias",
    ):  # fmt: skip
        assert name in names
    assert len(names) == 94 * 6 + 2


def test_the_size_of_every_map_is_foretold_and_a_cut_is_the_beginning_of_the_whole():
    whole = shaken(InceptionV3())
    x = torch.randn(1, 3, 107, 94)
    with torch.no_grad():
        expected = x
        for name in whole.parts:
            expected = whole.get_submodule(name)(expected)
            if name not in ("maxpool1", "Mixed_5b", "Mixed_6b", "Mixed_7c"):
                continue
            cut = InceptionV3(name).eval()
            cut.load_state_dict({k: v for k, v in whole.state_dict().items() if k in cut.state_dict()})
            assert tuple(expected.shape[1:]) == (cut.out_channels, *cut.map_size(107, 94))
            torch.testing.assert_close(cut(x), expected)


def test_folded_normalization_computes_the_same_function():
    model = shaken(InceptionV3("Mixed_6a"))
    x = torch.randn(1, 3, 75, 75)
    with torch.no_grad():
        fused = fuse_batch_norm(model)
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fused.modules())
        torch.testing.assert_close(fused(x), model(x), atol=1e-4, rtol=1e-3)


def test_a_state_dict_of_torchvision_fills_a_cut_and_another_networks_is_refused(tmp_path):
    state = torchvision_state()
    torch.save(state, tmp_path / "inception.pth")
    config = Extractor("inceptionv3", 1.0, (75, 75), "Mixed_5b", 0, str(tmp_path / "inception.pth"))
    extractor = build_extractor(config)
    torch.testing.assert_close(extractor.backbone.Mixed_5b.branch1x1.norm.bias, state["Mixed_5b.branch1x1.bn.bias"])
    white = torch.full((1, 75, 75, 3), 255, dtype=torch.uint8)
    assert torch.equal(extractor.normalize(white), torch.ones(1, 3, 75, 75))  # -1 to 1
    torch.save({**state, "features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: features\.0\.weight is not known: not an Inception-v3"):
        build_extractor(Extractor("inceptionv3", 1.0, (75, 75), "Mixed_5b", 0, str(tmp_path / "other.pth")))
    state["Mixed_5b.branch1x1.conv.weight"] = torch.zeros(64, 3, 1, 1)
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(WeightsError, match=r"has shape \(64, 3, 1, 1\), Inception-v3 has \(64, 192, 1, 1\)"):
        build_extractor(Extractor("inceptionv3", 1.0, (75, 75), "Mixed_5b", 0, str(tmp_path / "shape.pth")))


def test_the_graph_equals_torch_and_its_convolutions_become_integer():
    onnxruntime = pytest.importorskip("onnxruntime")
    extractor = build_extractor(Extractor("inceptionv3", 1.0, (75, 75), "Mixed_5b", 2, "none"))
    graph = extractor_graph(extractor)
    frames = np.random.default_rng(0).integers(0, 256, (2, 75, 75, 3), dtype=np.uint8)
    found = {}
    quantized = quantize_graph(graph, calibrate(graph, [{"frames": frames}], quantized_tensors(graph), 100))
    for name, model in (("float", graph), ("int8", quantized)):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found[name] = session.run(None, {"frames": frames})[0]
    with torch.no_grad():
        expected = extractor(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(found["float"], expected, atol=1e-4, rtol=1e-3)
    assert np.linalg.norm(found["int8"] - expected) < 0.1 * np.linalg.norm(expected)
    codes = [t for t in quantized.graph.initializer if t.data_type == 3 and len(t.dims) == 4]
    assert len(codes) == sum(isinstance(layer, ConvRelu) for layer in extractor.backbone.modules())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cut": "head"}, "extractor.cut of inceptionv3 must be one of Conv2d_1a_3x3, .* got 'head'"),
        ({"input_size": (64, 299)}, "input_size of inceptionv3 must be at least 75"),
        ({"width": 0.5}, "inceptionv3 has no extractor.width, got 0.5"),
        ({"weights": "imagenet"}, "the table has none of Inception-v3; give a state dict of torchvision"),
    ],
)
def test_an_impossible_extractor_is_an_error_that_says_what_would_do(change, words):
    config = {"name": "inceptionv3", "cut": "Mixed_5b", "weights": "none", "input_size": (75, 75)}
    with pytest.raises((RecipeError, WeightsError), match=words):
        build_extractor(Extractor(**{**config, **change}))


@pytest.mark.parametrize("classifier", ["gru", "lstm", "single"])
def test_the_recipes_stand_on_2048_features_a_frame(classifier):
    plan = load_recipe(f"inceptionv3-{classifier}")
    assert plan.extractor.cut == CUTS[-1]
    assert plan.extractor.input_size == (299, 299)
    with torch.device("meta"):
        head = build_head(plan.head, (InceptionV3(plan.extractor.cut).out_channels,), 101)
    assert head.zero_state(1, torch.zeros(1)).keys() == head.state_shapes.keys()
    assert plan.sampling.frames == 25
