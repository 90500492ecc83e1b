"""How fast clips become frames: ours, OpenCV and a full decode, side by side.

    python benchmarks/speed/decode.py ../shared/data/egogestar ... [--long ../shared/data/samples/mmaction2_test.mp4]

Each clip gives 25 frames, evenly spread, or 8 a second, at 224x224, in one thread. "full" decodes and converts every
frame (what a reader without sampling does). ``--long`` makes MPEG-4, Motion JPEG and 30 s of H.264 of one clip. The
contestants take turns clip by clip, so that a busy machine disturbs all alike; times are of the processor: the median
milliseconds a clip, and the median of the ratios to ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vidlet.recipe import Sampling
from vidlet.video import iter_frames, probe, read_clip, resize, uniform_indices, write_video

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import Row, add_option, figure, save

SIZE = (224, 224)
SAMPLED = {"25 frames": Sampling("uniform", frames=25), "8 a second": Sampling("rate", hz=8.0)}
VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm"}


def ours(path: Path, sampling: Sampling) -> int:
    """Sample and resize with vidlet."""
    return len(read_clip(path, sampling, SIZE).frames)


def numbers(count: int, fps: float, sampling: Sampling) -> list[int]:
    """Which frames of so many are looked at."""
    if sampling.rule == "uniform":
        return uniform_indices(count, sampling.frames).tolist()
    return (np.arange(0, count / fps, 1 / sampling.hz) * fps + 1e-6).astype(int).tolist()


def opencv(path: Path, sampling: Sampling) -> int:
    """Grab every frame, retrieve and resize the wanted ones (bilinear without antialiasing, its default)."""
    video = cv2.VideoCapture(str(path))
    wanted = set(numbers(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS), sampling))
    found, number = 0, 0
    while video.grab():
        if number in wanted:
            cv2.resize(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB), SIZE[::-1])
            found += 1
        number += 1
    return found


def full(path: Path, sampling: Sampling) -> int:
    """Decode and convert every frame, resize the wanted ones."""
    frames = [(frame.time_s, frame.rgb()) for frame in iter_frames(path)]
    wanted = numbers(len(frames), (len(frames) - 1) / max(frames[-1][0], 1e-6), sampling)
    return len([resize(frames[min(i, len(frames) - 1)][1], SIZE) for i in wanted])


CONTESTANTS: dict[str, Callable[[Path, Sampling], int]] = {"vidlet": ours, "opencv": opencv, "full decode": full}


def compare(paths: list[Path], sampling: Sampling, repeats: int) -> dict[str, float]:
    """Time every contestant on every clip, in turns: median ms, and median ratio to ours."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for path in paths:
        for contestant in CONTESTANTS.values():  # the file is in the page cache for all of them
            contestant(path, sampling)
        for turn in range(repeats):
            order = list(CONTESTANTS)[turn % 3 :] + list(CONTESTANTS)[: turn % 3]
            for name in order:
                began = time.process_time()
                CONTESTANTS[name](path, sampling)
                seconds[name].append(time.process_time() - began)
    mine = np.array(seconds["vidlet"])
    found = {f"{name} (ms)": round(1e3 * statistics.median(each), 2) for name, each in seconds.items()}
    for name in ("opencv", "full decode"):
        found[f"{name} / vidlet"] = round(float(np.median(np.array(seconds[name]) / mine)), 3)
    return found


def others(path: Path, folder: Path) -> dict[str, Path]:
    """One clip in other codecs, and three times as long."""
    with av.open(str(path)) as container:
        fps = container.streams.video[0].average_rate
        frames = [frame.reformat(format="yuv420p") for frame in container.decode(video=0)]
    made = {}
    for name, codec, pixels, file, times in (
        ("MPEG-4", "mpeg4", "yuv420p", "mpeg4.avi", 1),
        ("Motion JPEG", "mjpeg", "yuvj420p", "jpegs.avi", 1),
        ("H.264", "libx264", "yuv420p", "long.mp4", 3),
    ):
        with av.open(str(folder / file), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixels
            stream.bit_rate = 1_000_000 if codec == "mpeg4" else 8_000_000 if codec == "mjpeg" else 0
            for number, frame in enumerate(times * frames):
                picture = frame.reformat(format=pixels)
                picture.pts, picture.time_base = number, 1 / fps
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        made[f"{name}, {float(times * len(frames) / fps):.0f} s, {frames[0].width}x{frames[0].height}"] = folder / file
    return made


def render_720p(path: Path, count: int = 250) -> Path:
    """A moving pattern with noise, 1280x720, 10 s."""
    noise = np.random.default_rng(0).integers(0, 40, (720, 1280, 3), dtype=np.uint8)
    y, x = np.mgrid[:720, :1280]

    def picture(k: int) -> Any:
        wave = (90 + 80 * np.sin((x + 7 * k) / 60) * np.cos((y - 3 * k) / 45)).astype(np.uint8)
        return np.roll(noise, 3 * k, axis=1) + wave[:, :, None]

    write_video(path, (picture(k) for k in range(count)), fps=25)
    return path


def main() -> None:
    """Print a table or, with --json, one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="*", help="folders of videos; a spread of --count of each is read")
    parser.add_argument("--long", type=Path, help="a clip that is written in other codecs, and three times as long")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, list[Path]] = {}
        for clips in options.clips:
            files = sorted(f for f in clips.rglob("*") if f.suffix in VIDEOS)
            chosen = [files[i] for i in uniform_indices(len(files), min(options.count, len(files)))]
            told = [probe(path) for path in chosen]
            seconds, size = statistics.median(info.duration_s for info in told), f"{told[0].width}x{told[0].height}"
            cases[f"{clips.name} ({told[0].codec}), {seconds:.1f} s, {size}"] = chosen
        if options.long:
            cases |= {name: [path] for name, path in others(options.long, Path(folder)).items()}
        cases["rendered (h264), 10 s, 1280x720"] = [render_720p(Path(folder) / "rendered.mp4")]
        results = {
            f"{title}: {name}": compare(paths, sampling, options.repeats)
            for title, paths in cases.items()
            for name, sampling in SAMPLED.items()
        }
    rows = [Row(title, {key: figure(value) for key, value in found.items()}) for title, found in results.items()]
    save(options, "decode", rows, ("video", "recipe.py"))
    if options.json:
        print(json.dumps(results))
        return
    for title, found in results.items():
        print(f"{title:60}", *(f"{key} {value:.2f}" for key, value in found.items()), sep="  ")


if __name__ == "__main__":
    main()
