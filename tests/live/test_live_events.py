"""Live events: a command and a webhook once an event, and a stream that goes away is waited for and named."""

import http.server
import itertools
import json
import socket
import threading
import time

import av
import numpy as np
import pytest

import artifacts
from vidlet.cli import main
from vidlet.errors import DataError, RecipeError
from vidlet.live.actions import MOST_AT_ONCE, EventActions, run_command
from vidlet.live.events import EventRule
from vidlet.live.session import LiveWanted, event_rule
from vidlet.live.webhook import post
from vidlet.runtime import Moment, load
from vidlet.video import LiveSource, live, write_video

RED, BLUE = (250, 0, 0), (0, 0, 250)


def plain(colors):
    return [np.broadcast_to(np.array(color, np.uint8), (48, 64, 3)) for color in colors]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier of clips of half a second, and a video: red, blue, red, a second each."""
    folder = tmp_path_factory.mktemp("events")
    sampling = {"rule": "rate", "hz": 8, "median_s": 0.5}
    model = artifacts.save(artifacts.classifier(), folder / "model.onnx", sampling=sampling)
    write_video(folder / "clip.mp4", plain([RED] * 20 + [BLUE] * 20 + [RED] * 20), 20)
    return model, folder / "clip.mp4"


def test_the_command_runs_once_an_event_and_finds_what_happened(files, tmp_path, capfd):
    model, clip = files
    log = tmp_path / "log"
    command = f'echo "$VIDLET_LABEL $VIDLET_SOURCE" >> "{log}"; echo said'
    words = [
        "predict",
        str(model),
        str(clip),
        "--live",
        "--json",
        "--on",
        "red",
        "--above",
        "0.8",
        "--command",
        command,
    ]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert log.read_text().splitlines() == [f"red {clip}"] * 2
    assert err.count("red begins") == 2 and err.count("red ends") == 2
    assert all(json.loads(line) for line in out.splitlines())  # what the command prints is not among the lines


def moments(scores):
    return [Moment(number / 8, {"a": score, "b": 1 - score}, "a", score) for number, score in enumerate(scores)]


def test_a_webhook_gets_one_object_an_event_and_a_failure_is_said(files, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path))
    got = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    model = load(files[0], threads=1)
    model.labels = ("a", "b")
    said = []
    actions = EventActions(model, EventRule("a", 0.8), "cam", webhook=address, say=said.append)
    for moment in moments([0.9] * 30 + [0.1] * 10):
        actions(moment)
    actions.close()
    server.shutdown()
    server.server_close()
    assert got == [{"source": "cam", "label": "a", "score": 0.9, "time_s": 0.0}]
    assert len(said) == 2 and len(actions.began) == 1
    with pytest.raises(OSError, match="refused"):
        post(address, b"{}")
    assert run_command("exit 3", {}) == "--command ended with status 3" and run_command("true", {}) is None


def test_commands_that_do_not_end_do_not_pile_up(files):
    model = load(files[0], threads=1)
    model.labels = ("a", "b")
    said = []
    actions = EventActions(model, EventRule("a", 0.8, min_s=0), "cam", command="sleep 2", say=said.append)
    before = time.monotonic()
    for moment in moments([0.9, 0.1] * (MOST_AT_ONCE + 2)):
        actions(moment)
    assert time.monotonic() - before < 1.5  # the view does not wait
    assert sum("have not finished" in line for line in said) == 2


def test_wrong_words_are_refused(files, capfd):
    model, clip = files
    with pytest.raises(RecipeError, match=r"--on green_: .* names red, green"):
        EventActions(load(model, threads=1), EventRule("green_"), "cam")
    with pytest.raises(RecipeError, match="http"):
        EventActions(load(model, threads=1), EventRule("red"), "cam", webhook="ftp://a")
    assert main(["predict", str(model), str(clip), "--live", "--command", "true"]) == 2
    assert "need --on LABEL" in capfd.readouterr().err
    assert main(["predict", str(model), str(clip), "--above", "0.5"]) == 2
    assert "--above SCORE needs --on LABEL" in capfd.readouterr().err
    assert main(["predict", str(model), str(clip), "--on", "red"]) == 2
    assert "--live" in capfd.readouterr().err


class Sender:
    """A server that sends each who connects a short MPEG-TS stream and hangs up; ``stop`` and ``start`` at one port."""

    def __init__(self, data: bytes) -> None:
        self.data, self.port, self.served = data, 0, 0
        self.start()

    def start(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", self.port))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, args=(self.socket,), daemon=True).start()

    def stop(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            self.served += 1
            with client:
                client.sendall(self.data)


@pytest.fixture
def sender(tmp_path):
    path = tmp_path / "clip.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for rgb in plain([RED] * 25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode(None))
    sender = Sender(path.read_bytes())
    yield sender
    sender.stop()


def test_a_stream_that_goes_away_is_named_waited_for_and_goes_on(sender, monkeypatch):
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.05)
    said = []
    with LiveSource(f"tcp://127.0.0.1:{sender.port}", wait=True, tell=said.append) as source:
        times = [source.read(20).time_s]
        sender.stop()
        deadline = time.monotonic() + 20
        while not any("went away" in line for line in said):
            assert time.monotonic() < deadline
            source.read(0.05)
        sender.start()
        before = sender.served
        while not (sender.served > before and (frame := source.read(1.0)) is not None):
            assert time.monotonic() < deadline
        times.append(frame.time_s)
        lost = source.lost
    assert times[1] > times[0] and lost >= 1
    assert said[0].startswith(f"tcp://127.0.0.1:{sender.port}: went away (")
    assert any("is back after" in line for line in said)


def test_time_never_steps_back_where_a_stream_ran_ahead_of_its_arrival_and_came_back(files, monkeypatch):
    """Three seconds arrive at once, twice: what comes after the break would be stamped before them by its arrival."""
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(live, "_open_device", lambda source: av.open(str(files[1])))
    monkeypatch.setattr(LiveSource, "_watch", lambda self, frames: None)
    with LiveSource("tcp://camera", wait=True) as source:
        times = [frame.time_s for frame in itertools.islice(source._device_frames(av.open(str(files[1]))), 120)]
    steps = np.diff(times)
    assert source.lost == 1 and np.allclose(steps, 0.05, atol=1e-3)


def test_without_waiting_the_end_of_a_stream_is_the_end(sender):
    with LiveSource(f"tcp://127.0.0.1:{sender.port}") as source:
        try:
            count = sum(1 for _ in source)
        except DataError as error:
            assert "broke off" in str(error)
        else:
            assert count >= 1 and source.ended


def test_the_password_of_a_camera_is_never_said(files, capfd):
    assert main(["predict", str(files[0]), "rtsp://admin:S3cret@127.0.0.1:1/x?token=S3cret", "--json"]) == 2
    out, err = capfd.readouterr()
    assert "S3cret" not in out + err and "rtsp://***@127.0.0.1:1/x?token=***" in err
    told = EventActions(load(files[0], threads=1), EventRule("red"), "rtsp://admin:S3cret@cam/x")
    assert told.source == "rtsp://***@cam/x"


def test_a_source_whose_thread_fails_is_an_error_and_no_end(files, monkeypatch):
    def broken(self):
        yield from ()
        raise RuntimeError("out of luck")

    monkeypatch.setattr(LiveSource, "_file_frames", broken)
    with LiveSource(files[1]) as source, pytest.raises(DataError, match="RuntimeError: out of luck"):
        source.read(5)


def test_what_was_asked_for_and_failed_counts_in_the_exit_status(files, capfd):
    model, clip = files
    assert main(["predict", str(model), str(clip), "--live", "--on", "red", "--command", "exit 3"]) == 2
    err = capfd.readouterr().err
    assert "--command ended with status 3" in err and "2 commands failed" in err.splitlines()[-1]


def test_with_a_threshold_of_the_file_a_label_counts_only_while_it_is_the_best(tmp_path):
    none = {"label": "green", "threshold": 0.3}
    model = load(artifacts.save(artifacts.classifier(), tmp_path / "none.onnx", none=none), threads=1)
    model.labels = ("a", "green", "b")

    def moment(number, a, green):
        scores = {"a": a, "green": green, "b": 1 - a - green}
        best = max(scores, key=scores.__getitem__)
        return Moment(number / 8, scores, best, scores[best])

    said = []
    actions = EventActions(model, EventRule("a", model.threshold), "cam", say=said.append)
    for number in range(30):
        actions(moment(number, 0.4, 0.5))  # above the threshold, and none of these is the best
    assert actions.began == []
    for number in range(30, 60):
        actions(moment(number, 0.4, 0.3))
    assert [event.start_s for event in actions.began] == [30 / 8]
    actions.close()


@pytest.mark.parametrize(
    ("changes", "asked", "above"),
    [({}, None, 0.8), ({"none": {"threshold": 0.3}}, None, 0.3), ({"none": {"threshold": 0.3}}, 0.9, 0.9)],
)
def test_on_takes_the_threshold_of_the_file_where_it_has_one(tmp_path, changes, asked, above):
    model = load(artifacts.save(artifacts.classifier(), tmp_path / "model.onnx", **changes), threads=1)
    assert event_rule(model, LiveWanted(on="red", above=asked)).above == above
