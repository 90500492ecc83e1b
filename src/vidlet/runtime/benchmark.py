"""How fast and how large a model file is on this machine, measured in a process of its own.

A fresh process has nobody else's memory: what it peaks at is what ``load`` and the calls cost, the interpreter,
NumPy and the runtime included. ``reference_ms`` tells how many times slower one machine is than another, by
``reference.onnx``: six inverted residuals of MobileNetV2 at 14 x 14 in float32 (benchmarks/speed/make_reference.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, VidletError
from .energy import energy_of
from .session import open_session

MAX_CLIP_FRAMES = 256
WARM_UP = 3


def benchmark(
    path: str | Path,
    seconds: float = 5.0,
    threads: int = 1,
    provider: str = "cpu",
    clip_frames: int | None = None,
) -> dict[str, Any]:
    """Measure a model file on random input.

    Args:
        seconds: how long to measure, half for single frames, half for clips.
        threads: of one operator.
        clip_frames: length of a clip; None: that of a training clip.

    Returns:
        ``frame_ms`` and ``clip_ms`` {"p50", "p95", "least"}: one frame with the state handed on; a clip from zeros, in
        the small pieces in which ``classify`` gives it. ``fps``: frames a second one by one; ``clip_frames``,
        ``load_ms``, ``peak_rss_bytes``, ``bytes``, ``threads``, ``provider``; ``energy``, joules a frame where the
        machine has a sensor, else the ``reason`` (energy.py).

    Raises:
        ModelError: the file is not a model, or cannot be run.
    """
    job = {"path": str(path), "seconds": seconds, "threads": threads, "provider": provider, "clip_frames": clip_frames}
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()"]
    child = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
    except ValueError as error:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise ModelError(f"{path}: measuring it failed ({last})") from error
    if "error" in answer:
        raise _error_named(answer["kind"])(answer["error"])
    return answer


def reference_ms(seconds: float = 1.0) -> float:
    """Median milliseconds of the reference network on one thread of this machine."""
    data = (resources.files("vidlet") / "runtime" / "reference.onnx").read_bytes()
    session = open_session(data, "reference.onnx", threads=1)
    feeds = {name: np.full(shape, 0.5, np.float32) for name, shape in session.inputs.items()}
    for _ in range(3):
        session.run(None, feeds)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def _error_named(kind: str) -> type[VidletError]:
    return next((error for error in VidletError.__subclasses__() if error.__name__ == kind), ModelError)


def _main() -> None:
    """What the fresh process does: a job from standard input, one JSON object to standard output."""
    try:
        answer = _measure(**json.load(sys.stdin))
    except VidletError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(answer))


def _measure(path: str, seconds: float, threads: int, provider: str, clip_frames: int | None) -> dict[str, Any]:
    from .model import load

    started = time.perf_counter()
    model = load(path, threads, provider)
    load_ms = 1e3 * (time.perf_counter() - started)
    if clip_frames is None:
        clip_frames = max(1, min(MAX_CLIP_FRAMES, round(model.rate_hz * model.median_s)))
    rng = np.random.default_rng(0)
    clip = {name: _random(rng, name, (clip_frames, *shape)) for name, shape in model.inputs.items()}
    frames, pieces = (
        [{name: array[t : t + step] for name, array in clip.items()} for t in range(0, clip_frames, step)]
        for step in (1, model.clip_chunk)
    )
    state = model.zero_state()

    def one_frame(turn: int) -> None:
        nonlocal state
        state = model.run(frames[turn % clip_frames], state).state

    def one_clip(turn: int) -> None:
        history = None
        for piece in pieces:
            history = model.run(piece, history).state

    alone = threads == 1 and provider == "cpu"
    frame_ms = _times_ms(one_frame, seconds / 2, alone)
    clip_ms = _times_ms(one_clip, seconds / 2, alone)
    peak = peak_rss_bytes()
    energy = energy_of(one_frame, min(2.0, seconds / 2))
    return {
        "frame_ms": frame_ms,
        "clip_ms": clip_ms,
        "fps": 1e3 / frame_ms["p50"],
        "clip_frames": clip_frames,
        "load_ms": load_ms,
        "peak_rss_bytes": peak,
        "bytes": model.bytes,
        "threads": threads,
        "provider": provider,
        "energy": energy,
    }


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32) if name == "flow" else rng.integers(0, 256, shape, np.uint8)


def _times_ms(call: Callable[[int], None], seconds: float, alone: bool = False) -> dict[str, float]:
    """Median, 95th percentile and least of a call's time, for so many seconds (after 3 calls, at least 5).

    Args:
        alone: a call is one thread's work, and the least is its processor time, which nothing that runs beside
            lengthens: a call of some milliseconds is hardly ever left alone on a busy machine, a shorter one often is.
    """
    for turn in range(WARM_UP):
        call(turn)
    times: list[float] = []
    own: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        started, worked = time.perf_counter(), time.thread_time()
        call(len(times))
        times.append(1e3 * (time.perf_counter() - started))
        own.append(1e3 * (time.thread_time() - worked))
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    return {"p50": p50, "p95": p95, "least": min(own if alone else times)}


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident so far; 0 where the system does not tell.

    Linux: VmHWM, because ``ru_maxrss`` of a new process begins with what its parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _windows_peak()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _windows_peak() -> int:
    """PeakWorkingSetSize of GetProcessMemoryInfo."""
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = (("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("sizes", ctypes.c_size_t * 8))

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    done = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.sizes[0]) if done else 0
