"""Events by HTTP against servers that hang, drip, redirect and answer nonsense: each ends in time and is told."""

import contextlib
import json
import socket
import threading
import time

import pytest

from vidlet.errors import RecipeError
from vidlet.live import webhook
from vidlet.live.actions import run_command
from vidlet.live.webhook import Outbox, Refused, check_address, place_of, post


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(webhook, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(webhook, "LAST_WAIT_S", 1.0)


class Server:
    """A server of raw sockets; each answer is a function of (connection, what it was sent)."""

    def __init__(self, *answers):
        self.answers, self.got, self.number = answers, [], 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/hook?token=secret"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            answer = self.answers[min(self.number, len(self.answers) - 1)]
            self.number += 1
            threading.Thread(target=self.answer, args=(connection, answer), daemon=True).start()

    def answer(self, connection, answer):
        with connection:
            text = b""
            while b"\r\n\r\n" not in text or not text.endswith(b"}"):
                part = connection.recv(65536)
                if not part:
                    break
                text += part
            self.got.append(text)
            with contextlib.suppress(OSError):
                answer(connection)


def says(text):
    return lambda connection: connection.sendall(text)


def drips(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


GOOD = says(b"HTTP/1.1 204 No Content\r\n\r\n")
BUSY = says(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
ENDLESS = [
    ("drips", drips),
    ("silent", lambda connection: time.sleep(30)),
    ("drips one line", lambda connection: [connection.sendall(b"H") or time.sleep(0.05) for _ in range(600)]),
]
WRONG = [
    ("garbage", says(b"\x00\xff" * 100 + b"\r\n\r\n")),
    ("closes", says(b"")),
    ("a bad status", says(b"HTTP/1.1 OK 200\r\n\r\n")),
    ("a status of its own", says(b"HTTP/1.1 99999 OK\r\n\r\n")),
    ("a long line", says(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")),
    ("many headers", says(b"HTTP/1.1 200 OK\r\n" + b"H: a\r\n" * 500 + b"\r\n")),
    ("busy", BUSY),
]


@pytest.mark.parametrize(("name", "answer"), ENDLESS, ids=[name for name, _ in ENDLESS])
def test_a_request_ends_in_time_whatever_the_server_does(name, answer):
    before = time.monotonic()
    with pytest.raises(OSError, match=r"within 0\.4 s|timed out"):
        post(Server(answer).address, b"{}", limit_s=0.4)
    assert time.monotonic() - before < 3


@pytest.mark.parametrize(("name", "answer"), WRONG, ids=[name for name, _ in WRONG])
def test_a_wrong_answer_is_a_failure_that_is_tried_again(name, answer):
    with pytest.raises(OSError):
        post(Server(answer).address, b"{}", limit_s=5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_not_delivered(status):
    other = Server(GOOD)
    answer = f"HTTP/1.1 {status} R\r\nLocation: {other.address}\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(Refused, match=f"answered {status}, a redirect"):
        post(Server(says(answer.encode())).address, b"{}")
    assert other.got == []


def test_a_login_goes_into_a_header_and_is_never_said():
    server = Server(GOOD)
    post(server.address.replace("://", "://user:p%40ss@"), b"{}")
    assert b"Authorization: Basic dXNlcjpwQHNz" in server.got[0] and b"/hook?token=secret HTTP" in server.got[0]
    assert place_of("https://user:p@host.example:8443/secret?x=1") == "https://host.example:8443"


@pytest.mark.parametrize(
    "address",
    [
        "ftp://a/",
        "http://",
        "http:///x",
        "http://a b/",
        "http://h:99999/",
        "http://h:abc/",
        "http://h/\r\nX: y",
        "file:///x",
    ],
)
def test_what_is_no_address_is_refused_before_anything_begins(address):
    with pytest.raises(RecipeError, match="--webhook"):
        check_address(address)


def test_an_event_waits_for_a_server_that_comes_back():
    said, server = [], Server(BUSY, says(b"garbage"), GOOD)
    outbox = Outbox(server.address, "cam", said.append)
    outbox.put({"label": "a", "time_s": 1.0, "source": "rtsp://***@cam", "score": float("nan")})
    outbox.close(5)
    assert [json.loads(text.partition(b"\r\n\r\n")[2]) for text in server.got] == [
        {"label": "a", "time_s": 1.0, "source": "rtsp://***@cam", "score": None}
    ] * 3
    assert outbox.lost == 0
    assert len(said) == 1 and "tried again" in said[0] and "secret" not in said[0]
    assert list(outbox.folder.glob("*.json")) == []


def test_what_is_refused_is_given_up_said_and_counted():
    said, server = [], Server(says(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), GOOD)
    outbox = Outbox(server.address, "cam", said.append)
    outbox.put({"label": "a\x1b[2J", "time_s": 1.0})
    outbox.put({"label": "b", "time_s": 2.0})
    outbox.close(5)
    assert len(server.got) == 2 and outbox.lost == 1
    assert said == [f"--webhook {place_of(server.address)}: a\\x1b[2J at 1.00 s was given up (answered 404)"]


def test_events_outlive_the_process_and_are_sent_by_the_next():
    said = []
    first = Outbox("http://127.0.0.1:9/hook", "cam", said.append)
    first.put({"label": "a", "time_s": 1.0})
    first.put({"label": "b", "time_s": 2.0})
    first.close(0.1)
    assert "2 events are not delivered, kept in" in said[-1]
    second = Outbox("http://127.0.0.1:9/hook", "cam", said.append)
    assert [json.loads(body)["label"] for _, body in second._waiting] == ["a", "b"]
    other = Outbox("http://127.0.0.1:9/hook", "cam", said.append)  # beside it: a queue of its own
    assert other.folder != second.folder and not other._waiting
    second.close(0.05)
    other.close(0.05)


def test_the_queue_is_bounded(monkeypatch):
    monkeypatch.setattr(webhook, "MOST_WAITING", 3)
    said = []
    outbox = Outbox("http://127.0.0.1:9/", "cam", said.append)
    for number in range(8):
        outbox.put({"label": "a", "time_s": number})
    assert len(list(outbox.folder.glob("*.json"))) == 3
    outbox.close(0.05)
    assert outbox.lost == 5 and sum("given up" in line for line in said) == 5


def test_a_sender_that_fails_goes_on(monkeypatch):
    server, said, real = Server(GOOD), [], webhook.post
    failures = iter([MemoryError("no more")])

    def fails_once(*args):
        for error in failures:
            raise error
        real(*args)

    monkeypatch.setattr(webhook, "post", fails_once)
    outbox = Outbox(server.address, "cam", said.append)
    outbox.put({"label": "a", "time_s": 0.0})
    outbox.close(5)
    assert len(server.got) == 1 and outbox.lost == 1 and "MemoryError" in said[0]


def test_a_command_that_hangs_is_ended_with_what_it_has_started(tmp_path):
    mark = tmp_path / "alive"
    before = time.monotonic()
    failure = run_command(f'(trap "" TERM; sleep 3; touch "{mark}") & sleep 100', {}, limit_s=0.3)
    assert failure == "--command did not end within 0.3 s, it was ended"
    assert time.monotonic() - before < 10
    time.sleep(max(0.0, before + 4.0 - time.monotonic()))
    assert not mark.exists()


@pytest.mark.parametrize("label", ["a\0b", "\ud800", "x" * 300_000])
def test_a_label_that_no_environment_takes_is_a_line(label):
    failure = run_command("true", {"label": label})
    assert failure is None or "could not be run" in failure
