"""Optical flow: a picture that moves, a stream that equals the clip, what is stored, what is missing."""

import sys

import numpy as np
import pytest

from vidlet.errors import DataError, DependencyError
from vidlet.video.flow import flow_channels, optical_flow, stored_flow

pytest.importorskip("cv2")


def moving(frames: int, x: int, y: int) -> np.ndarray:
    """A smooth pattern uint8 (T, 64, 64, 3) that moves by (x, y) pixels a frame."""
    rows, columns = np.mgrid[0:64, 0:64]
    clip = [
        127 + 60 * np.sin((columns - x * t) / 4) + 60 * np.cos((rows - y * t) / 5 + (columns - x * t) / 9)
        for t in range(frames)
    ]
    return np.stack(clip)[..., None].repeat(3, -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, -1), (1, 1)])
def test_a_picture_that_moves_has_its_motion_as_flow(x, y):
    flow = optical_flow(moving(4, x, y))
    assert flow.shape == (4, 64, 64, 2)
    assert flow.dtype == np.float32
    inside = flow[1:, 12:-12, 12:-12]
    assert np.abs(np.median(inside, axis=(0, 1, 2)) - (x, y)).max() < 0.15
    assert not flow[0].any()


def test_frame_by_frame_gives_the_flow_of_the_clip():
    clip = moving(5, 1, 1)
    whole = optical_flow(clip)
    parts, before = [], None
    for frame in clip:
        parts.append(optical_flow(frame[None], before))
        before = frame
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_flow_is_computed_once_and_kept_to_half_precision(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path))
    clip = moving(3, 2, 1)
    first = stored_flow(clip)
    whole = optical_flow(clip)
    np.testing.assert_allclose(first, whole, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr("vidlet.video.flow.optical_flow", lambda frames: pytest.fail("computed again"))
    np.testing.assert_array_equal(stored_flow(clip), first)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_the_third_channel_is_the_length():
    flow = np.array([3.0, -4.0], np.float32).reshape(1, 1, 1, 2)
    assert flow_channels(flow).flatten().tolist() == [3, -4, 5]


def test_other_arrays_are_refused():
    with pytest.raises(DataError, match=r"uint8 \(T, H, W, 3\) with T >= 1, got float32 \(4, 8, 8, 3\)"):
        optical_flow(np.zeros((4, 8, 8, 3), np.float32))


def test_without_opencv_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DependencyError, match=r"pip install '.\[train\]'"):
        optical_flow(moving(2, 1, 0))
