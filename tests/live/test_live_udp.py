"""MPEG-TS over UDP from a process of its own: sizes and codecs that change midway, a sender that stops and returns."""

import itertools
import socket
import subprocess
import sys
import time

import av
import pytest
from test_live_rtsp import wait_for

import artifacts
from vidlet.errors import DataError
from vidlet.video import LiveSource, is_live, iter_frames, live

# Each part, "codec width height level seconds", is a plain gray at 25 frames/s; prints when its first frame is sent.
SENDER = """
import sys, time, av, numpy as np
for part in sys.argv[2:]:
    codec, width, height, level, seconds = part.split()
    with av.open(sys.argv[1] + "?pkt_size=1316", "w", format="mpegts") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = int(width), int(height), "yuv420p"
        stream.codec_context.gop_size = 5
        stream.options = {"tune": "zerolatency", "preset": "ultrafast"} if codec == "libx264" else {}
        picture = np.full((stream.height, stream.width, 3), int(level), np.uint8)
        began = time.monotonic()
        print(began, flush=True)
        for number in range(int(25 * float(seconds))):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            time.sleep(max(0.0, began + number / 25 - time.monotonic()))
        container.mux(stream.encode(None))
"""
DARK, GRAY, LIGHT = "libx264 128 96 40", "libx264 192 144 120", "mpeg2video 160 112 220"


@pytest.fixture
def address():
    """Of a port that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return f"udp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def send(address):
    """Start a process that sends these parts; all are ended with the test."""
    started = []

    def start(*parts):
        command = [sys.executable, "-c", SENDER, address, *parts]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_stream_goes_on_at_its_new_size_and_with_its_new_codec_and_a_slow_reader_is_not_late(
    address, send, monkeypatch
):
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(live, "UNREADABLE_S", 0.5)
    sender, said, seen = send(f"{DARK} 2.5", f"{GRAY} 1.5", f"{LIGHT} 8"), [], {}
    with LiveSource(address, wait=True, tell=said.append) as source:
        deadline = time.monotonic() + 30
        while len(seen) < 3:
            assert time.monotonic() < deadline, (seen, said)
            if (frame := source.read(1.0)) is not None:
                rgb = frame.rgb()
                seen.setdefault((rgb.shape, round(rgb.mean() / 20)), time.monotonic())
            time.sleep(0.2)
        dropped = source.dropped
    assert list(seen) == [((96, 128, 3), 2), ((144, 192, 3), 6), ((112, 160, 3), 11)]
    sent_s = [float(sender.stdout.readline()) for _ in range(3)]
    assert list(seen.values())[1] - sent_s[1] < 1.5 and dropped >= 8  # 0.2 s are the reader's
    assert "can no longer be decoded" in said[0] and "is back after" in said[1] and len(said) == 2


def test_without_waiting_another_codec_is_the_end_and_told_in_a_sentence(address, send, monkeypatch):
    monkeypatch.setattr(live, "UNREADABLE_S", 0.5)
    send(f"{DARK} 1.5", f"{LIGHT} 8")
    with LiveSource(address) as source, pytest.raises(DataError, match=r"broke off \(.* changes its codec"):
        for frame in source:
            assert frame.rgb().shape == (96, 128, 3)


def test_where_nothing_is_sent_the_error_says_so(address, monkeypatch):
    monkeypatch.setattr(live, "OPEN_TIMEOUT_S", 0.3)
    with pytest.raises(DataError, match=rf"^{address}: cannot be opened \(nothing came within 0.3 s; is it being sent"):
        LiveSource(address)


def test_a_file_goes_on_at_its_new_size(tmp_path):
    words = [sys.executable, "-c", SENDER.replace('+ "?pkt_size=1316"', "+ part[8:11]"), f"{tmp_path}/"]
    subprocess.run([*words, f"{DARK} 0.4", f"{GRAY} 0.4"], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "clip.ts").write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("128", "192")))
    frames = list(iter_frames(tmp_path / "clip.ts"))
    assert [frame.rgb().shape for frame in frames] == [(96, 128, 3)] * 10 + [(144, 192, 3)] * 10
    assert all(before.time_s < after.time_s for before, after in itertools.pairwise(frames))


@pytest.mark.slow  # vidlet itself waits 10 s before it says that nothing comes
def test_the_command_waits_for_a_sender_that_stopped_and_answers_when_another_sends(address, send, tmp_path):
    sampling = {"rule": "rate", "hz": 8, "median_s": 0.5}
    model = artifacts.save(artifacts.classifier(), tmp_path / "model.onnx", sampling=sampling)
    send(f"{DARK} 4")
    command = [sys.executable, "-m", "vidlet.cli", "predict", str(model), address, "--json", "--threshold", "0.1"]
    command += ["--save", str(tmp_path / "view.mp4")]
    with (tmp_path / "err").open("w") as errors, (tmp_path / "out").open("w") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=errors)
        try:
            wait_for(tmp_path / "out", '"label"', process)
            wait_for(tmp_path / "err", "went away (nothing came for 10 s)", process)
            send(f"{GRAY} 12")
            wait_for(tmp_path / "err", "is back after", process)
            time.sleep(3)
        finally:
            process.terminate()
            process.wait(20)
    said = (tmp_path / "err").read_text()
    assert process.returncode == 130 and said.count("went away") == 1 and "frames answered" in said
    with av.open(str(tmp_path / "view.mp4")) as view:
        pictures = [frame.to_ndarray(format="gray") for frame in view.decode(video=0)]
    levels = [picture[: picture.shape[0] // 4, -picture.shape[1] // 4 :].mean() for picture in pictures]
    assert min(levels) < 60 and max(levels) > 100  # both senders' frames are in the view


@pytest.mark.parametrize("source", ["7", "/dev/video7"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            av.error.FileNotFoundError(2, "No such file or directory"),
            "there is no /dev/video7; cameras here: ",
        ),
        (av.error.PermissionError(13, "Permission denied"), "permission denied on /dev/video7; sudo usermod -aG video"),
        (av.error.OSError(16, "Device or resource busy"), "another program uses /dev/video7; end it first"),
        (av.error.OSError(25, "Inappropriate ioctl for device"), "Inappropriate ioctl for device"),
    ],
)
def test_a_camera_that_cannot_be_opened_is_told_with_what_to_do(source, error, said, monkeypatch):
    def refuse(name, format, **_):
        assert (name, format) == ("/dev/video7", "v4l2")
        raise error

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(live.av, "open", refuse)
    assert is_live(source)
    with pytest.raises(DataError, match=rf"^{source}: cannot be opened \({said}"):
        LiveSource(source)
