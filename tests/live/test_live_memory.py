"""Memory of what runs for weeks: frames and connections are gone when they are over, not when garbage is collected."""

import gc
import time

import numpy as np
import pytest
from test_live_events import sender  # noqa: F401  # a fixture

from vidlet.video import LiveSource, iter_frames, live, write_video


def alive(kind):
    return sum(type(thing).__name__ == kind for thing in gc.get_objects())


@pytest.fixture
def no_collections():
    """Python collects no garbage by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_frame_that_was_looked_at_is_freed_at_once(tmp_path, no_collections):
    write_video(tmp_path / "clip.mp4", [np.full((48, 64, 3), 4 * number, np.uint8) for number in range(60)], 25)
    before, found = alive("VideoFrame"), []
    for number, frame in enumerate(iter_frames(tmp_path / "clip.mp4")):
        frame.rgb()
        if number in (20, 50):
            found.append(alive("VideoFrame") - before)
    assert 1 <= found[0] <= found[1] <= 8
    del frame
    assert alive("VideoFrame") == before  # the first one too, whose display matrix was looked at


def test_connections_that_are_over_leave_nothing(sender, monkeypatch, no_collections):  # noqa: F811
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.02)
    kinds = ("InputContainer", "VideoCodecContext", "VideoFrame")
    before = [alive(kind) for kind in kinds]
    deadline = time.monotonic() + 30
    with LiveSource(f"tcp://127.0.0.1:{sender.port}", wait=True) as source:
        while source.lost < 6:
            assert time.monotonic() < deadline
            frame = source.read(0.05)
            if frame is not None:
                frame.rgb()
        left = [alive(kind) - count for kind, count in zip(kinds, before, strict=True)]
        assert left[0] <= 2 and left[1] <= 2
        assert left[2] <= 4  # under way, the newest, the one read last, ours
