"""What a bare installation must do: decode, answer, and call a model 100,000 times in flat memory. See .ci/wheel.

It runs alone, in an environment that holds vidlet and what it needs, and nothing else: `python tests/package/bare.py`.
small.int8.onnx beside it is a file that an earlier vidlet made (`vidlet train` on 32 drawn clips, recipe tiny-grid-gru
on 32 x 32 pixels): what was shipped once must go on working.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import vidlet
from vidlet.datasets import read_table, render_motion

MODEL = Path(__file__).with_name("small.int8.onnx")
CALLS = 100_000
LENGTHS = range(1, 17)  # frames of a call; short ones more often, so that all calls together take a minute
GROWTH_BYTES = 4_000_000  # between a tenth of the calls and their end


def main() -> None:
    for absent in ("torch", "onnx", "pyarrow", "pytest"):
        assert importlib.util.find_spec(absent) is None, f"{absent} is here: this is no bare environment"
    with tempfile.TemporaryDirectory() as folder:
        render_motion(Path(folder, "clips"), clips=8, seed=0)
        clip = read_table(Path(folder, "clips")).clips[0].path
        found = vidlet.load(MODEL).classify(clip)
        assert abs(sum(found.scores.values()) - 1) < 1e-3
        said = _command("predict", str(MODEL), str(clip), "--json")
        assert said["label"] == found.label
        _command("data", str(Path(folder, "clips")), "--json")
    print(f"decoded {clip.name}, {found.label} {found.score:.3f}; memory {_calls():+,} bytes over {CALLS:,} calls")


def _command(*words: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "vidlet", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _calls() -> int:
    """By how many bytes the process grew from a tenth of the calls to their end, T being another in every call."""
    model = vidlet.load(MODEL)
    height, width = model.input_size
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 256, (max(LENGTHS), height, width, 3), np.uint8)
    lengths = draw.geometric(1 / 3, CALLS).clip(min(LENGTHS), max(LENGTHS))
    assert set(lengths) == set(LENGTHS)
    state, begun = None, 0
    started = time.monotonic()
    for call, length in enumerate(lengths):
        if call == CALLS // 10:
            begun = _resident()
        scores, state = model(frames[:length], state)
    assert np.isfinite(scores).all()
    grown = _resident() - begun
    assert grown < GROWTH_BYTES, f"{grown:,} bytes more after {CALLS:,} calls"
    print(f"{(time.monotonic() - started) / CALLS * 1e3:.2f} ms a call")
    return grown


def _resident() -> int:
    """Resident bytes of this process now (Linux); its peak elsewhere, which can only overstate growth."""
    status = Path("/proc/self/statm")
    if status.is_file():
        import resource

        return int(status.read_text("ascii").split()[1]) * resource.getpagesize()
    from vidlet.runtime.benchmark import peak_rss_bytes

    return peak_rss_bytes()


if __name__ == "__main__":
    main()
