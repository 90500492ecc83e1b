"""A real RTSP server on this machine, killed and started again: waited for, named, and the answers go on."""

import importlib.util
import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import artifacts
from vidlet.cli import main
from vidlet.video import LiveSource, live, write_video

pytestmark = [
    pytest.mark.slow,  # connections, in real time
    pytest.mark.skipif(
        importlib.util.find_spec("aio_rtsp_toolkit") is None, reason="no RTSP server: pip install aio-rtsp-toolkit"
    ),
]
SERVER = """
import asyncio, sys, aio_rtsp_toolkit.server as server
asyncio.run(server.serve(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2])))
"""
RED, BLUE = (250, 0, 0), (0, 0, 250)


class RtspServer:
    """A process that loops the files of a folder; ``kill`` and ``start`` at one port."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"rtsp://127.0.0.1:{self.port}/clip.mp4?play_count=0"

    def start(self):
        command = [sys.executable, "-c", SERVER, str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        pytest.fail("the RTSP server did not start")

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path):
    """Two seconds of red and two of blue, 25 frames/s, again and again."""
    frames = [np.full((96, 128, 3), color, np.uint8) for color in [RED] * 50 + [BLUE] * 50]
    (tmp_path / "served").mkdir()
    write_video(tmp_path / "served" / "clip.mp4", frames, 25)
    server = RtspServer(tmp_path / "served")
    server.start()
    yield server
    server.kill()


def red_of(frame):
    return float(frame.rgb()[..., 0].mean()) > 128


def test_frames_come_at_the_rate_of_the_stream_and_again_after_the_server_was_killed(server, monkeypatch):
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.2)
    said = []
    with LiveSource(server.address, wait=True, tell=said.append) as source:
        frames = [source.read(10) for _ in range(100)]
        times = [frame.time_s for frame in frames]
        assert 1.5 < times[-1] - times[24] < 6  # 75 frames, 3 s
        assert {red_of(frame) for frame in frames[::10]} == {True, False}
        for kill in (1, 2):
            server.kill()
            deadline = time.monotonic() + 30
            while source.lost < kill:
                source.read(0.05)
                assert time.monotonic() < deadline
            server.start()
            while len(said) < 2 * kill:
                source.read(0.05)
                assert time.monotonic() < deadline
            after = [source.read(10) for _ in range(30)]
            assert all(frame is not None for frame in after) and after[0].time_s > times[-1]
    assert ["went away" in line for line in said] == [True, False, True, False]
    assert all(line.startswith(server.address) for line in said)


def test_without_a_server_the_command_says_so_in_a_sentence(server, tmp_path, capfd):
    server.kill()
    model = artifacts.save(artifacts.classifier(), tmp_path / "model.onnx")
    assert main(["predict", str(model), server.address]) == 2
    error = capfd.readouterr().err
    assert "cannot be opened (Connection refused)" in error and "Traceback" not in error


def test_a_clip_of_an_event_that_the_server_broke_off_is_kept_and_the_next_event_has_its_own(server, tmp_path):
    sampling = {"rule": "rate", "hz": 8, "median_s": 0.5}
    model = artifacts.save(artifacts.classifier(), tmp_path / "model.onnx", sampling=sampling)
    words = ["predict", str(model), server.address, "--json", "--on", "red", "--save", str(tmp_path / "kept")]
    with (tmp_path / "err").open("w") as errors, (tmp_path / "out").open("w") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "vidlet.cli", *words, "--around", "0.5"], stdout=lines, stderr=errors
        )
        try:
            wait_for(tmp_path / "err", "red begins", process)
            server.kill()
            wait_for(tmp_path / "err", "went away", process)
            server.start()
            wait_for(tmp_path / "err", "is back after", process)
            wait_for(tmp_path / "out", '"clip"', process, 2)
        finally:
            process.terminate()
            process.wait(20)
    found = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    clips = [line for line in found if "clip" in line]
    files = {str(path) for path in (tmp_path / "kept").iterdir()}
    assert process.returncode == 130 and len(clips) >= 2 and files == {line["clip"] for line in clips}
    assert all(line["frames"] >= 4 for line in clips[:2])


def wait_for(path, text, process, times=1):
    deadline = time.monotonic() + 40
    while path.read_text().count(text) < times:
        assert time.monotonic() < deadline and process.poll() is None, path.read_text()
        time.sleep(0.05)
