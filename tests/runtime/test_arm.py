"""The ARM build of the runtime, under qemu's emulation, gives the scores of this machine.

Nothing here is about speed. VIDLET_ARM_ROOT names a folder that ``python benchmarks/speed/arm_root.py`` has made.
"""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vidlet
from real_files import made  # noqa: F401  # a fixture: MobileNetV2, cut, float32 and int8
from vidlet.runtime import load
from vidlet.video import iter_frames

ROOT = os.path.realpath(os.environ["VIDLET_ARM_ROOT"]) if "VIDLET_ARM_ROOT" in os.environ else ""
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.slow,  # emulated: about 20 times slower
    pytest.mark.skipif(not QEMU, reason="no emulator of ARM: apt-get install qemu-user-static"),
    pytest.mark.skipif(not ROOT, reason="no ARM Python: VIDLET_ARM_ROOT, a folder by benchmarks/speed/arm_root.py"),
    pytest.mark.skipif(platform.machine() == "aarch64", reason="this is ARM: every test is a test of it"),
]
FLOAT32 = 1e-5
INT8 = 1e-3  # the integers are the same; 4.5e-8 was seen
CLASSIFY = """
import json, platform, sys
import numpy as np
from vidlet.runtime import load
from vidlet.video import iter_frames
assert platform.machine() == "aarch64"
models, frames, clip, pictures = json.loads(sys.argv[1])
np.save(pictures, np.stack([frame.rgb() for frame in iter_frames(clip)]))
scores = {name: list(load(path, threads=1).classify(frames).scores.values()) for name, path in models.items()}
print(json.dumps(scores))
"""


def on_arm(*words):
    """Standard output of the emulated Python."""
    about = {"PYTHONPATH": str(Path(vidlet.__file__).parents[1]), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"}
    command = [QEMU, "-L", ROOT, f"{ROOT}/usr/bin/python3", *map(str, words)]
    done = subprocess.run(command, env=about, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files(tiny_run, made, tmp_path_factory):  # noqa: F811
    """Models by name, the first eight frames of a clip as PNG files, the clip."""
    models = {"tiny float32": tiny_run.model, "tiny int8": tiny_run.folder / "model.int8.onnx"}
    models |= {f"mobilenet {kind}": path for kind, path in made("cut").items()}
    clip = sorted(tiny_run.clips.rglob("*.mp4"))[0]
    frames = tmp_path_factory.mktemp("arm") / "frames"
    frames.mkdir()
    for number, frame in enumerate(iter_frames(clip)):
        if number < 8:
            Image.fromarray(frame.rgb()).save(frames / f"{number:03}.png")
    return models, frames, clip


def test_the_same_frames_give_the_same_scores_and_a_clip_the_same_pixels(files, tmp_path):
    models, frames, clip = files
    request = [{name: str(path) for name, path in models.items()}, str(frames), str(clip), str(tmp_path / "arm.npy")]
    found = json.loads(on_arm("-c", CLASSIFY, json.dumps(request)))
    for name, path in models.items():
        scores = list(load(path, threads=1).classify(frames).scores.values())
        print(f"{name}: spread {np.abs(np.array(found[name]) - scores).max():.1e} of scores {np.round(scores, 3)}")
        assert np.ptp(scores) > 0.02  # they tell something
        np.testing.assert_allclose(found[name], scores, rtol=0, atol=FLOAT32 if "float32" in name else INT8)
    ours, theirs = np.stack([frame.rgb() for frame in iter_frames(clip)]), np.load(tmp_path / "arm.npy")
    off = np.abs(ours.astype(int) - theirs)
    print(f"pixels of a decoded clip: at most {off.max()} levels apart")
    assert off.max() == 0


def test_the_command_says_the_same_on_arm(files, run):
    models, frames, _ = files
    words = ["predict", models["tiny float32"], frames, "--json"]
    status, out, _ = run(*words)
    here, there = json.loads(out), json.loads(on_arm("-m", "vidlet.cli", *words))
    assert status == 0 and there["label"] == here["label"] and there["source"] == here["source"]
    np.testing.assert_allclose(list(there["scores"].values()), list(here["scores"].values()), rtol=0, atol=FLOAT32)
