"""Sources by address: a file is a file wherever it lies, and a stream has its own time, however it arrives."""

import functools
import http.server
import socket
import threading
import time

import av
import numpy as np
import pytest
from test_video_render import gop, number_of, picture, render

from vidlet.errors import DataError
from vidlet.runtime.sources import sampled_frames
from vidlet.tasks.predictions import find_sources
from vidlet.video import LiveSource, is_live, iter_frames, probe, write_video
from vidlet.video.container import VideoReader


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_):
        pass


@pytest.fixture
def burst(site):
    """The address of a stream that gives four seconds at once when it is connected to, and ends."""
    folder, _ = site
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall((folder / "burst.ts").read_bytes())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    render(folder / "a.mp4", 100, options=gop(25) | {"movflags": "faststart"})
    render(folder / "burst.ts", 100, options=gop(25, 0))
    with av.open(str(folder / "vod.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_list_size": "0"}) as out:
        stream = out.add_stream("libx264", rate=25, options=gop(25, 0))
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for number in range(100):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["a.mp4", "vod.m3u8"])
def test_a_file_on_the_web_gives_every_frame_at_its_time(site, name):
    _, address = site
    source = f"{address}/{name}"
    assert not is_live(source)
    assert find_sources(source) == [source]
    assert probe(source).fps == 25.0
    frames = list(iter_frames(source))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(100))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(100) / 25, atol=1e-3)
    assert [number_of(rgb) for _, rgb in sampled_frames(source, 5.0, (48, 96))] == list(range(0, 100, 5))


def test_a_part_of_a_file_on_the_web(site):
    _, address = site
    numbers = [number_of(frame.rgb()) for frame in iter_frames(f"{address}/a.mp4", 2.0, 2.4)]
    assert numbers == list(range(50, 60))


def test_a_file_address_is_a_path(site, tmp_path):
    folder, _ = site
    source = f"file://{folder}/a.mp4"
    assert not is_live(source)
    assert len(list(iter_frames(source))) == 100
    assert find_sources(source) == [folder / "a.mp4"]


def test_a_burst_on_connecting_is_not_taken_for_time(burst):
    assert is_live(burst)
    seen = []
    with LiveSource(burst) as live:
        while (frame := live.read(10.0)) is not None:
            seen.append((number_of(frame.rgb()), frame.time_s))
    numbers, times = zip(*seen, strict=True)
    assert numbers[-1] > 90  # four seconds came at once, and the newest frame won
    assert times[-1] > 3.5
    np.testing.assert_allclose(np.diff(times), np.diff(numbers) / 25, atol=0.01)


def test_what_is_not_there_is_one_line(site):
    _, address = site
    with pytest.raises(DataError, match=r"absent\.mp4: no frame could be decoded"):
        list(iter_frames(f"{address}/absent.mp4"))


@pytest.mark.parametrize("name", ["10:15:00.mp4", "pipe:1.mp4", "a b%20c.mp4", "concat:x.mp4"])
def test_a_name_is_never_taken_for_a_protocol(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(name, iter([picture(k) for k in range(5)]), 25.0)
    assert len(list(iter_frames(name))) == 5
    assert len(list(iter_frames(f"./{name}"))) == 5


def test_a_name_that_is_not_text_is_read(tmp_path):
    path = tmp_path / "ge\udcf6ffnet.mp4"  # a byte of Latin-1, as old archives leave it
    render(tmp_path / "a.mp4", 5).rename(path)
    assert VideoReader(path).info.frames == 5


class Sliding(Quiet):
    """Serves the last three segments of a recording that goes on: a playlist that slides as time goes."""

    def do_GET(self):
        if self.path != "/live.m3u8":
            super().do_GET()
            return
        now = 3 + int(time.monotonic() - self.server.began)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{now - 3}"]
        lines += [f"#EXTINF:1.0,\nvod{number}.ts" for number in range(now - 3, min(now, 10))]
        body = "\n".join([*lines, "#EXT-X-ENDLIST"] if now >= 10 else lines).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.slow
def test_a_playlist_that_slides_is_a_stream_of_every_frame_at_its_time(tmp_path):
    options = {"hls_time": "1", "hls_list_size": "0"}
    with av.open(str(tmp_path / "vod.m3u8"), "w", format="hls", options=options) as out:
        stream = out.add_stream("libx264", rate=25, options=gop(25, 0))
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for number in range(250):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Sliding, directory=str(tmp_path)))
    server.began = time.monotonic()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/live.m3u8"
    try:
        assert is_live(address)
        seen = [(time_s, number_of(frame)) for time_s, frame in sampled_frames(address, 5, (48, 96))]
    finally:
        server.shutdown()
        server.server_close()
    first_s, first = seen[0]
    assert len(seen) > 30 and seen[-1][1] > 200  # past many segments that were not listed at the beginning
    for time_s, number in seen:
        assert time_s - first_s == pytest.approx((number - first) / 25, abs=0.05)


def test_a_file_with_its_table_at_the_end_on_a_server_that_gives_no_parts_is_copied(site, capfd):
    folder, address = site
    render(folder / "end.mp4", 100, options=gop(25))
    source = address.replace("//", "//user:secret@") + "/end.mp4"
    numbers = [number_of(frame.rgb()) for frame in iter_frames(source, 2.0, 2.4)]
    assert numbers == list(range(50, 60))
    assert str(probe(source).path) == source
    assert "secret" not in capfd.readouterr().err
    with pytest.raises(DataError, match="404 Not Found"):
        probe(f"{address}/nothing.mp4")
