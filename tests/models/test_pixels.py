"""The extractor without weights: each pixel as a few channels, by hand, in torch and in the exported graph."""

import numpy as np
import onnxruntime
import pytest
import torch

from vidlet.artifact import extractor_graph
from vidlet.errors import RecipeError
from vidlet.models import build_extractor
from vidlet.models.extractor import CHANNELS, sobel_magnitude
from vidlet.recipe import Extractor


def pixels(cut: str, size: tuple[int, int] = (28, 62)):
    return build_extractor(Extractor("pixels", input_size=size, cut=cut, grid=0, weights="none"))


def noise(frames: int, height: int, width: int) -> torch.Tensor:
    drawn = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)
    return torch.from_numpy(drawn)


@pytest.mark.parametrize("cut", CHANNELS)
@pytest.mark.parametrize("size", [(28, 62), (120, 160)])
def test_the_maps_have_the_shape_that_is_announced_and_stay_within_two(cut, size):
    extractor = pixels(cut, size)
    maps = extractor(noise(3, *size))
    assert extractor.feature_shape == (CHANNELS[cut], *size)
    assert maps.shape == (3, CHANNELS[cut], *size)
    assert maps.abs().max() <= 4 / 2**0.5  # of a corner; of a straight edge 2
    assert not list(extractor.parameters())


def test_black_is_minus_one_and_white_is_one():
    frames = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    frames[1] = 255
    for cut in CHANNELS:
        maps = pixels(cut, (4, 5))(frames)
        torch.testing.assert_close(maps[:, 0], torch.tensor([-1.0, 1.0])[:, None, None].expand(2, 4, 5))
        if cut.endswith("-sobel"):
            assert maps[:, -1].abs().max() == 0  # a flat ground has no edge, at the border neither


def test_gray_weighs_the_colors_by_their_brightness():
    frame = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 1, 1, 3)
    assert pixels("gray", (1, 1))(frame).item() == pytest.approx(2 * 0.299 - 1)


def test_a_vertical_step_has_its_height_as_magnitude_on_both_its_sides():
    step = torch.tensor([0.0, 0, 0, 1, 1, 1]).expand(1, 1, 4, 6)
    expected = torch.tensor([0.0, 0, 1, 1, 0, 0]).expand(1, 1, 4, 6)
    torch.testing.assert_close(sobel_magnitude(step), expected)
    torch.testing.assert_close(sobel_magnitude(step.mT), expected.mT)


def test_the_magnitude_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(1).random((9, 13)).astype(np.float32)
    slopes = [cv2.Sobel(picture, cv2.CV_32F, *axes, borderType=cv2.BORDER_REPLICATE) for axes in ((1, 0), (0, 1))]
    found = sobel_magnitude(torch.from_numpy(picture)[None, None])[0, 0]
    np.testing.assert_allclose(found, np.hypot(*slopes) / 4, atol=1e-6)


@pytest.mark.parametrize("cut", CHANNELS)
def test_the_exported_graph_gives_the_same_maps_for_any_number_of_frames(cut):
    extractor = pixels(cut)
    session = onnxruntime.InferenceSession(extractor_graph(extractor).SerializeToString())
    for count in (1, 7):
        frames = noise(count, 28, 62)
        found = session.run(None, {"frames": frames.numpy()})[0]
        np.testing.assert_allclose(found, extractor(frames), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cut": "grey"}, "cut of pixels must be one of rgb, gray, gray-sobel, intensity-depth-sobel, got 'grey'"),
        ({"grid": 4}, "grid must be 0 where maps stay whole, got 4"),
        ({"weights": "imagenet"}, "weights of pixels must be 'none'"),
        ({"width": 0.5}, "pixels has no extractor.width, got 0.5: leave it out"),
    ],
)
def test_what_pixels_cannot_be_is_named(change, said):
    values = {"name": "pixels", "input_size": (28, 62), "cut": "rgb", "grid": 0, "weights": "none"}
    with pytest.raises(RecipeError, match=said):
        build_extractor(Extractor(**{**values, **change}))
