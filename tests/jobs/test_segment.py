"""`vidlet segment`: a video of three scenes is cut where they meet."""

import json

import numpy as np
import pytest

from vidlet.cli import main
from vidlet.video import write_video

FAST = ["--set", "extractor.weights=none", "--set", "extractor.input_size=[64, 64]", "--set", "extractor.cut=block2"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three still scenes with noise, 4, 3 and 5 seconds at 8 frames a second."""
    draw, path = np.random.default_rng(0), tmp_path_factory.mktemp("scenes") / "scenes.mp4"
    frames = []
    for seconds in (4, 3, 5):
        scene = draw.integers(0, 200, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
        frames += [(scene + draw.integers(0, 20, scene.shape)).astype(np.uint8) for _ in range(8 * seconds)]
    write_video(path, frames, 8)
    return path


def test_scenes_are_told_apart_without_labels(scenes, capsys, tmp_path):
    out = tmp_path / "found.json"
    assert main(["segment", str(scenes), "--hz", "4", "--json", "--out", str(out), *FAST]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert found["frames"] == 48
    starts = [piece["start_s"] for piece in found["segments"]]
    assert starts == pytest.approx([0, 4, 7], abs=0.26)
    assert found["segments"][-1]["end_s"] == pytest.approx(12, abs=0.26)
    ends = [piece["end_s"] for piece in found["segments"]]
    assert ends[:-1] == starts[1:]


def test_a_high_strength_leaves_one_segment_and_nonsense_is_refused(scenes, capsys):
    assert main(["segment", str(scenes), "--hz", "4", "--strength", "1e9", *FAST]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["segment", str(scenes), "--hz", "0", *FAST])
    assert "'0' is not a number from 0.001" in capsys.readouterr().err
