"""Events by HTTP: each is delivered once, late rather than never, and what is given up is said.

An event waits in a folder until its server has answered with 2xx; one thread sends them in their order. A server that
cannot be reached, drips, or fails with 5xx is tried again, with pauses that double; what it refuses (another answer,
a redirect too) is given up at once. A process that ends leaves the rest in the folder, and the next one sends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..files import Lock, cache_folder, write_bytes
from ..video.fetch import web_request
from ..wording import as_json, redact, shown
from ..workers import supervised

REQUEST_S = 10.0  # for a whole request: name, connection, answer
MOST_WAITING = 1000  # events that wait; beyond them the oldest is given up
MOST_TRIES = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LAST_WAIT_S = 10.0  # for what is not yet delivered when the source has ended
AGAIN = (408, 425, 429)  # answers below 500 after which it is tried again


class Refused(Exception):
    """The server has answered and will not take this event."""


def check_address(address: str) -> None:
    """Raise a RecipeError unless an address can be sent to."""
    try:
        parts = urllib.parse.urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or any(letter.isspace() or not letter.isprintable() for letter in address):
        raise RecipeError(f"--webhook {shown(address)}: expected an address as in http://192.168.0.2:8080/hook")


def place_of(address: str) -> str:
    """Scheme and host of an address, which is what may be said of it: paths and queries of webhooks are secrets."""
    parts = urllib.parse.urlsplit(address)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def post(address: str, body: bytes, name: str = "", limit_s: float = REQUEST_S) -> None:
    """POST a JSON object and be done within ``limit_s``, whatever the server does. Redirects are not followed.

    Raises:
        Refused: it has answered, and it is no use to try again.
        OSError: it could not be reached, answered too slowly, with nonsense, or that it cannot now.
    """
    connections: list[http.client.HTTPConnection] = []
    late = threading.Event()

    def end() -> None:
        late.set()
        for connection in connections:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        with _opener(connections, limit_s).open(_request(address, body, name), timeout=limit_s) as answer:
            status = int(answer.status)
        if late.is_set():  # headers that break off look whole
            raise OSError("late")
    except (OSError, http.client.HTTPException, ValueError) as error:
        status = getattr(error, "code", 0) if isinstance(error, urllib.request.HTTPError) else 0
        if not status:
            why = f"no whole answer within {limit_s:g} s" if late.is_set() else _reason(error)
            raise OSError(why) from None
    finally:
        timer.cancel()
    if not 200 <= status < 300:
        failure = f"answered {status}" + (", a redirect, which is not followed" if 300 <= status < 400 else "")
        raise OSError(failure) if status >= 500 or status in AGAIN else Refused(failure)


def _request(address: str, body: bytes, name: str) -> urllib.request.Request:
    headers = {"Content-Type": "application/json", "User-Agent": "vidlet", **({"X-Vidlet-Event": name} if name else {})}
    return web_request(address, headers, body)


def _opener(connections: list[http.client.HTTPConnection], limit_s: float) -> urllib.request.OpenerDirector:
    """An opener that follows no redirect and notes its connections, so that they can be ended from outside."""

    def noted(kind: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        def make(*args: Any, **options: Any) -> http.client.HTTPConnection:
            connections.append(kind(*args, **{**options, "timeout": limit_s}))
            return connections[-1]

        return make

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(noted(http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(noted(http.client.HTTPSConnection), request)

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    opener = urllib.request.OpenerDirector()
    handlers = (urllib.request.ProxyHandler, Http, Https, Stay, urllib.request.HTTPDefaultErrorHandler)
    for handler in (*handlers, urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None) or error
    return redact(f"{getattr(inner, 'strerror', None) or inner or type(inner).__name__}")[:200]


class Outbox:
    """Hand it what happened; it delivers one after the other, in a thread of its own.

    Args:
        source: part of the folder's name: two cameras with one address have a queue each.
        say: told in one line what was given up, and what is left at the end.
    """

    def __init__(self, address: str, source: str, say: Callable[[str], None]) -> None:
        check_address(address)
        self.address, self.place, self._say = address, place_of(address), say
        self.lost = 0  # events that were given up
        self._lock, self.folder = _own_folder(f"{address}\n{source}")
        self._waiting: deque[tuple[str, bytes]] = deque(self._left_over())
        self._changed = threading.Condition()
        self._closing = False  # no event comes any more
        self._over = threading.Event()  # nobody waits any more
        self._number = 0
        self._thread = threading.Thread(target=supervised, args=(self._work, self._failed), name="webhook", daemon=True)
        self._thread.start()

    def put(self, about: dict[str, Any]) -> None:
        """One more event. Never waits."""
        body = as_json(about).encode()
        self._number += 1
        name = f"{time.time_ns():020d}-{os.getpid()}-{self._number}.json"
        self._keep(name, body)
        with self._changed:
            self._waiting.append((name, body))
            oldest = self._waiting.popleft() if len(self._waiting) > MOST_WAITING else None
            self._changed.notify()
        if oldest:
            self._give_up(*oldest, f"{MOST_WAITING} events wait already")

    def close(self, wait_s: float = LAST_WAIT_S) -> None:
        """Wait a little until all is delivered; what is not stays for the next time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            self._changed.wait_for(lambda: not self._waiting, wait_s)
            left = len(self._waiting)
        self._over.set()
        if left:
            kept = f"kept in {self.folder} for the next time" if self.folder else "lost"
            self._say(f"--webhook {self.place}: {left} events are not delivered, {kept}")
            self.lost += 0 if self.folder else left
        if self._lock:
            self._lock.release()

    def _work(self) -> None:
        tries, pause_s = 0, FIRST_PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                name, body = self._waiting[0]
            failure, final = "", False
            try:
                post(self.address, body, name.removesuffix(".json"))
            except Refused as error:
                failure, final = str(error), True
            except OSError as error:
                failure = str(error)
            tries += 1
            if failure and not final and tries < MOST_TRIES:
                if tries == 1:
                    self._say(f"--webhook {self.place} failed ({shown(failure)}); it is tried again")
                if self._over.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if failure:
                self._give_up(name, body, failure)
            self._forget(name)
            with self._changed:
                if self._waiting and self._waiting[0][0] == name:
                    self._waiting.popleft()
                self._changed.notify_all()
            tries, pause_s = 0, FIRST_PAUSE_S

    def _failed(self, error: Exception) -> None:
        self.lost += 1
        self._say(f"--webhook {self.place}: sending failed ({shown(f'{type(error).__name__}: {error}')}); it goes on")

    def _give_up(self, name: str, body: bytes, why: str) -> None:
        self.lost += 1
        about = json.loads(body)
        what = shown(f"{about.get('label', '')} at {about.get('time_s', 0.0):.2f} s") if about else "an event"
        self._say(f"--webhook {self.place}: {what} was given up ({shown(why)})")
        self._forget(name)

    def _keep(self, name: str, body: bytes) -> None:
        if self.folder is None:
            return
        try:
            write_bytes(self.folder / name, body)
        except OSError as error:
            self._say(f"{self.folder}: an event waits in memory alone ({error.strerror or error})")

    def _forget(self, name: str) -> None:
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def _left_over(self) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        if self.folder is None:
            return found
        for path in sorted(self.folder.glob("*.json"))[-MOST_WAITING:]:
            with contextlib.suppress(OSError, ValueError):
                body = path.read_bytes()
                if isinstance(json.loads(body), dict) and len(body) < 2**20:
                    found.append((path.name, body))
        return found


def _own_folder(name: str) -> tuple[Lock | None, Path | None]:
    """A folder for the events of an address that no other process uses; (None, None) where none can be made."""
    root = cache_folder("events", hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16])
    for number in range(1, 9):
        folder = root / str(number)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder)
            if lock.acquire():
                return lock, folder
    return None, None
