"""Runs model files as another processor would: under an emulator of one without VNNI, where one is installed.

    python tests/other_processor.py FOLDER

For each FOLDER/NAME.onnx with FOLDER/NAME.npz (inputs by name), writes FOLDER/NAME.answers.npz: outputs by name. Only
NumPy and ONNX Runtime are imported, for an emulator is slow.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

EMULATORS = ("qemu-x86_64-static", "qemu-x86_64")
PROCESSOR = "Haswell"  # AVX2 without VNNI


def answers(model: Path, exact_sums: bool = False) -> dict[str, np.ndarray]:
    """Outputs by name; ``exact_sums`` asks the runtime for sums that cannot saturate, whatever the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if exact_sums:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(np.load(model.with_suffix(".npz")))), strict=True))


def emulated_answers(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The answers of all models of a folder under the emulator; skips the test where there is none."""
    import pytest

    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip(f"no emulator of x86-64 processors on this machine (one of {', '.join(EMULATORS)})")
    words = [emulator, "-cpu", PROCESSOR, sys.executable, __file__, str(folder)]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {model.stem: dict(np.load(folder / f"{model.stem}.answers.npz")) for model in sorted(folder.glob("*.onnx"))}


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
        np.savez(path.parent / f"{path.stem}.answers.npz", **answers(path))
