"""A stream watched for a long time: a real RTSP server loops a clip, is killed and comes back; delay, losses, memory.

    pip install aio-rtsp-toolkit      # the server; pure Python, from PyPI, needed by nothing else
    python benchmarks/speed/live.py DATA|MODEL [CLIP] [--minutes 30] [--kills 3] [--down-s 5] [--samples FILE] [--json]

Of a set of clips the model is the int8 file of the default recipe, trained on it (benchmarks/runs.py).

Runs `vidlet predict rtsp://... --json` as anybody would, on one thread, in a process of its own, and looks at it from
outside. Delay is what vidlet tells: from a frame's arrival (decoded) to its answer. The model's own time is measured
before, alone: one frame into four staggered windows, as live sources are watched.

Targets: delay p95 at most two frame times of the stream (80 ms at 25 frames/s) beyond the model's own; memory flat;
every kill named and survived. Without CLIP a moving square, 640 x 480, 20 s at 25 frames/s, is made.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidlet.runtime import StaggeredWindows, load
from vidlet.video import probe, write_video

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save
from runs import RECIPE, stored

SERVER = """
import asyncio, sys, aio_rtsp_toolkit.server as server
asyncio.run(server.serve(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2])))
"""
EACH_S = 5.0  # memory is looked at so often
SETTLED_S = 20.0  # memory "at the begin": after start, connection and the first answers
STOP_S = 60.0


class RtspServer:
    """The server as a process: ``start``, ``kill`` (SIGKILL: it says goodbye to nobody), and ``start`` again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self) -> None:
        """Return when it accepts connections."""
        command = [sys.executable, "-c", SERVER, str(self.folder), str(self.port)]
        self.process: subprocess.Popen[bytes] | None = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the RTSP server did not start")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Watcher:
    """`vidlet predict` on the stream, looked at from outside."""

    def __init__(self, model: str, address: str) -> None:
        command = [sys.executable, "-m", "vidlet.cli", "predict", model, address, "--json", "--threads", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.said: list[tuple[float, str]] = []  # when and what, on standard error
        self._began = time.monotonic()
        for work in (self._read_lines, self._read_said):
            threading.Thread(target=work, daemon=True).start()

    def resident_bytes(self) -> int:
        """VmRSS of the process; 0 once it has ended."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text("ascii", "replace")
        except OSError:
            return 0
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return 1024 * int(found[1]) if found else 0

    def stop(self) -> None:
        """As Ctrl-C does; the figures come then."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        time.sleep(0.5)  # the readers

    def figures(self) -> dict[str, float]:
        """frames, dropped, p50_ms, p95_ms of the last line."""
        pattern = r"(\d+) frames answered, (\d+) dropped; delay p50 (\d+) ms, p95 (\d+) ms"
        for _, line in reversed(self.said):
            if found := re.search(pattern, line):
                return dict(zip(("frames", "dropped", "p50_ms", "p95_ms"), map(int, found.groups()), strict=True))
        raise SystemExit("vidlet predict ended without its figures:\n" + "\n".join(line for _, line in self.said[-5:]))

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines = [*self.lines, line][-1000:]

    def _read_said(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append((time.monotonic() - self._began, line.strip()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DATA|MODEL")
    parser.add_argument("clip", metavar="CLIP", nargs="?", help="an H.264 .mp4")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--kills", type=int, default=3, help="how often the server is killed, evenly spread")
    parser.add_argument("--down-s", type=float, default=5.0, help="how long it stays away")
    parser.add_argument("--samples", metavar="FILE", help="write resident memory over time as CSV")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    if importlib.util.find_spec("aio_rtsp_toolkit") is None:
        raise SystemExit("no RTSP server here: pip install aio-rtsp-toolkit")
    name = Path(args.model).name
    if Path(args.model).is_dir():
        args.model, name = str(stored(Path(args.model), RECIPE) / "model.int8.onnx"), f"{name}, {RECIPE}, int8"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and its children, ignore it
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        if args.clip:
            shutil.copy(args.clip, clip)
        else:
            write_video(clip, square(), 25)
        found = own_ms(args.model) | watch(args.model, clip, 60 * args.minutes, args.kills, args.down_s)
    if args.samples:
        rows = (f"{at:.1f},{size}\n" for at, size in found["memory"])
        Path(args.samples).write_text("time_s,resident_bytes\n" + "".join(rows), "utf-8")
    name += f", {args.minutes:g} minutes, killed {args.kills} times"
    save(args, "live", rows_of({name: found | resident(found)}), ("live", "runtime", "video"))
    if args.json:
        print(json.dumps(found))
        return
    tell(found)


def own_ms(path: str, frames: int = 150) -> dict[str, float]:
    """Milliseconds of the model alone, a frame into four windows, p50 and p95."""
    model = load(path, threads=1)
    windows = StaggeredWindows(model, max(4, round(model.median_s * model.rate_hz)), 4)
    rng, times = np.random.default_rng(0), []
    for _ in range(frames):
        frame = rng.integers(0, 256, (*model.input_size, 3), np.uint8)
        began = time.perf_counter()
        windows.push(frame)
        times.append(1e3 * (time.perf_counter() - began))
    p50, p95 = np.percentile(times[10:], [50, 95])
    return {"own_p50_ms": float(p50), "own_p95_ms": float(p95), "rate_hz": model.rate_hz}


def watch(model: str, clip: Path, seconds: float, kills: int, down_s: float) -> dict[str, Any]:
    """Let vidlet watch the looped clip for so many seconds; every kill and what memory was."""
    server = RtspServer(clip.parent)
    server.start()
    watcher = Watcher(model, f"rtsp://127.0.0.1:{server.port}/{clip.name}?play_count=0")
    began = time.monotonic()
    kill_at = [seconds * (number + 1) / (kills + 1) for number in range(kills)]
    start_at = [at + down_s for at in kill_at]
    memory: list[tuple[float, int]] = []
    try:
        while (now := time.monotonic() - began) < seconds and watcher.process.poll() is None:
            if kill_at and now >= kill_at[0]:
                kill_at.pop(0)
                server.kill()
            if start_at and now >= start_at[0]:
                start_at.pop(0)
                server.start()
            if not memory or now - memory[-1][0] >= EACH_S:
                memory.append((now, watcher.resident_bytes()))
            time.sleep(0.2)
        ended_early = watcher.process.poll() is not None
        watcher.stop()
    finally:
        server.kill()
        if watcher.process.poll() is None:
            watcher.process.kill()
    events = [(at, line.split(": ", 1)[-1]) for at, line in watcher.said if "went away" in line or "is back" in line]
    info = probe(clip)
    return {
        **watcher.figures(),
        "seconds": now,
        "ended_early": ended_early,
        "stream": f"{info.width} x {info.height}, {info.fps:g} frames/s, {info.codec}",
        "frame_ms": 1e3 / info.fps,
        "kills": kills,
        "losses": events,
        "lines": len(watcher.lines),
        "memory": memory,
    }


def resident(found: dict[str, Any]) -> dict[str, float]:
    """Memory once all has settled, in the middle, at the end and at most; what p95 is beyond the model's own time."""
    sizes = [size for at, size in found["memory"] if at >= SETTLED_S and size]
    sizes = sizes or [size for _, size in found["memory"]]
    places = {"begin": sizes[0], "middle": sizes[len(sizes) // 2], "end": sizes[-1], "most": max(sizes)}
    return {f"{name}_bytes": size for name, size in places.items()} | {
        "beyond_ms": found["p95_ms"] - found["own_p50_ms"]
    }


def tell(found: dict[str, Any]) -> None:
    """Figures for people."""
    known = resident(found)
    print(f"{found['seconds'] / 60:.1f} minutes of {found['stream']}; model at {found['rate_hz']:g} frames/s")
    print(f"model alone            p50 {found['own_p50_ms']:.1f} ms, p95 {found['own_p95_ms']:.1f} ms")
    print(f"delay                  p50 {found['p50_ms']} ms, p95 {found['p95_ms']} ms")
    verdict = "held" if known["beyond_ms"] <= 2 * found["frame_ms"] else "MISSED"
    print(
        f"p95 beyond the model   {known['beyond_ms']:.1f} ms; wanted at most {2 * found['frame_ms']:.0f} ms: {verdict}"
    )
    print(f"frames                 {found['frames']} answered, {found['dropped']} dropped; {found['lines']} lines")
    text = ", ".join(f"{place} {known[f'{place}_bytes'] / 1e6:.1f} MB" for place in ("begin", "middle", "end", "most"))
    print(f"resident memory        {text}")
    print(f"server killed          {found['kills']} times" + ("; VIDLET ENDED BEFORE ITS TIME" * found["ended_early"]))
    for at, line in found["losses"]:
        print(f"  {at:8.1f} s  {line}")


def square(seconds: int = 20, fps: int = 25) -> Iterator[NDArray[np.uint8]]:
    """A light square that goes round on a dark ground, uint8 (480, 640, 3)."""
    for number in range(seconds * fps):
        frame = np.full((480, 640, 3), 40, np.uint8)
        turn = 2 * np.pi * number / (4 * fps)
        row, column = int(180 + 120 * np.sin(turn)), int(260 + 200 * np.cos(turn))
        frame[row : row + 120, column : column + 120] = (220, 180, 60)
        yield frame


if __name__ == "__main__":
    main()
