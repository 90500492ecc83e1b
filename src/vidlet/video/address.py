"""What a source's name means: a path, a camera, a file at an address, or a stream that never ends.

What exists as a path is a path, whatever it looks like. What an address gives is a file where its length or its
duration is known (a video on a web server, the playlist of a finished recording), else a stream.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av

CAMERA_PATHS = ("/dev/video", "/dev/v4l/")
WEB = ("http://", "https://")
PLAYLISTS = ("hls", "dash")
# Nothing that comes from the web names a file of this machine.
WEB_OPTIONS = {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto,data"}
TIMEOUT_S = 10.0


def is_live(source: str) -> bool:
    """Whether a source never ends: a camera's number or device, or a stream's address."""
    if source.startswith(CAMERA_PATHS):
        return True
    if os.path.lexists(source):
        return False
    if source.isdecimal():
        return True
    return "://" in source and not source.lower().startswith("file://") and not is_web_file(source)


def is_web_file(source: str) -> bool:
    """Whether an address is that of a file: http or https, of known length or duration. It is opened to see that."""
    if not source.startswith(WEB):
        return False
    try:
        return _has_end(source)
    except (av.FFmpegError, OSError, ValueError):  # whoever opens it says why it cannot be
        return False


def as_place(source: str | os.PathLike[str]) -> Path | str:
    """A path, also of a file:// address; other addresses as they are."""
    text = os.fspath(source)
    if os.path.lexists(text):
        return Path(text)
    if text.lower().startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return text if text.startswith(WEB) else Path(text)


def container_name(place: Path | str) -> str:
    """The name by which FFmpeg opens a place; a path is never taken for a protocol ("10:15:00.mp4")."""
    return place if isinstance(place, str) else f"file:{place}"


@functools.lru_cache(maxsize=64)
def _has_end(source: str) -> bool:
    with av.open(source, options=WEB_OPTIONS, timeout=(TIMEOUT_S, TIMEOUT_S)) as container:
        if container.duration is not None and container.duration > 0:
            return True
        return container.format.name not in PLAYLISTS and container.size > 0
