"""Requests to the web: by addresses as people write them; a file whose server gives no parts of it is copied."""

from __future__ import annotations

import base64
import functools
import http.client
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ..errors import DataError
from ..progress import megabytes, working
from .address import TIMEOUT_S

MOST_COPIED = 2**31  # bytes
HANDLERS = (  # of an opener that knows http and https alone
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
)
_COPIES: list[Any] = []  # folders of copies, which go when this process ends


@functools.lru_cache(maxsize=8)
def fetched(source: str) -> Path | None:
    """A copy of a file whose server gives no parts of files, for as long as this process lives; else None.

    Of an MP4 whose table of contents is at its end nothing can be read from such a server (``python -m http.server``).

    Raises:
        DataError: it is larger than is copied.
    """
    opener = urllib.request.OpenerDirector()
    for kind in HANDLERS:
        opener.add_handler(kind())
    try:
        with opener.open(web_request(source, {"Range": "bytes=0-0"}), timeout=TIMEOUT_S) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            if answer.status != 200 or not size:
                return None
            if size > MOST_COPIED:
                raise DataError(f"{source}: its server gives no parts of files, and {megabytes(size)} are not copied")
            folder = tempfile.TemporaryDirectory(prefix="vidlet")
            _COPIES.append(folder)
            path = Path(folder.name) / "video"
            with working(f"copy {megabytes(size)} of a server that gives no parts of files"), path.open("wb") as file:
                shutil.copyfileobj(answer, file)
    except (OSError, http.client.HTTPException, ValueError):
        return None  # who opened it said why it cannot be read
    return path if path.stat().st_size == size else None


def web_request(address: str, headers: dict[str, str], body: bytes | None = None) -> urllib.request.Request:
    """A request to an address as people write it: user and password in it, letters that are not ASCII."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2].encode("idna").decode() if "[" not in parts.netloc else parts.netloc
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    plain = urlunsplit((parts.scheme, host.rpartition("@")[2], path or "/", query, ""))
    request = urllib.request.Request(plain, body, headers, method="GET" if body is None else "POST")
    if parts.username is not None or parts.password is not None:
        login = ":".join(unquote(part or "") for part in (parts.username, parts.password))
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request
