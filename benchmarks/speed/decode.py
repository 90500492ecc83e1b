"""How fast clips become frames: ours, OpenCV and a full decode, side by side.

    python benchmarks/speed/decode.py --clips ../shared/data/egogestar [--json]

Each clip gives 25 frames, evenly spread, at 224x224, in one thread. "full" decodes and converts every frame (what a
reader without sampling does). The contestants take turns clip by clip, so that a busy machine disturbs all alike; the
table has the median milliseconds a clip, sampled frames a second, and the median of the ratios to ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidlet.recipe import Sampling
from vidlet.video import iter_frames, probe, read_clip, resize, uniform_indices, write_video

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

FRAMES, SIZE = 25, (224, 224)


def ours(path: Path) -> int:
    """Sample and resize with vidlet."""
    return len(read_clip(path, Sampling("uniform", frames=FRAMES), SIZE).frames)


def opencv(path: Path) -> int:
    """Grab every frame, retrieve and resize the wanted ones (bilinear without antialiasing, its default)."""
    video = cv2.VideoCapture(str(path))
    wanted = set(uniform_indices(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), FRAMES).tolist())
    found, number = 0, 0
    while video.grab():
        if number in wanted:
            cv2.resize(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB), SIZE[::-1])
            found += 1
        number += 1
    return found


def full(path: Path) -> int:
    """Decode and convert every frame, resize the wanted ones."""
    pictures = [frame.rgb() for frame in iter_frames(path)]
    return len([resize(pictures[i], SIZE) for i in uniform_indices(len(pictures), FRAMES)])


CONTESTANTS: dict[str, Callable[[Path], int]] = {"vidlet": ours, "opencv": opencv, "full decode": full}


def compare(paths: list[Path], repeats: int) -> dict[str, dict[str, float]]:
    """Time every contestant on every clip, in turns: median ms, frames a second, and median ratio to ours."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for path in paths:
        for contestant in CONTESTANTS.values():  # the file is in the page cache for all of them
            contestant(path)
        for turn in range(repeats):
            order = list(CONTESTANTS)[turn % 3 :] + list(CONTESTANTS)[: turn % 3]
            for name in order:
                began = time.perf_counter()
                CONTESTANTS[name](path)
                seconds[name].append(time.perf_counter() - began)
    mine = np.array(seconds["vidlet"])
    return {
        name: {
            "clip_ms": round(1e3 * statistics.median(found), 2),
            "frames_per_s": round(FRAMES / statistics.median(found), 1),
            "ratio_to_vidlet": round(float(np.median(np.array(found) / mine)), 3),
        }
        for name, found in seconds.items()
    }


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
    parser.add_argument("--clips", type=Path, help="a folder of video files; a spread of --count of them is read")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results = {}
    if options.clips:
        files = sorted(f for f in options.clips.rglob("*") if f.suffix in {".mp4", ".avi", ".mkv", ".mov", ".webm"})
        chosen = [files[i] for i in uniform_indices(len(files), min(options.count, len(files)))]
        results[options.clips.name] = compare(chosen, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        path = render_720p(Path(folder) / "rendered.mp4")
        info = probe(path)
        results[f"rendered {info.width}x{info.height}, {info.frames} frames"] = compare([path], options.repeats)
    save(options, "decode", rows_of(results), ("video", "recipe.py"))
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        print(f"\n{title}\n{'':14}{'ms a clip':>10}{'frames/s':>10}{'ratio':>8}")
        for name, row in rows.items():
            print(f"{name:14}{row['clip_ms']:10.1f}{row['frames_per_s']:10.0f}{row['ratio_to_vidlet']:8.2f}")


if __name__ == "__main__":
    main()
