"""Opening a video file: which stream is the video, how long and fast it says that it is, and why it cannot be read."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

from ..cloud import here
from ..errors import DataError
from .address import TIMEOUT_S, WEB_OPTIONS, container_name
from .ending import GOES_ON, boxes, broken_end, transport_packet
from .frames import DEFAULT_FPS

FOLLOWS = (b"\x55" * 4096, b"\xb3" * 4096)  # bytes that a decoder takes for more of a picture
TELLING = ("flv", "mxf", "rm")  # formats read through once whose header tells a length: a shorter file broke off
NOT_VIDEO = frozenset({"tty", "rawvideo", "lavfi", "image2"})  # "demuxers" that take texts, noise and single images
OTHERS = {
    b"version https://git-lfs": "it is a pointer of Git LFS; `git lfs pull` gets the file itself",
    b"/annex/objects/": "it is a pointer of git-annex; `git annex get` gets the file itself",
    b"<!doctype html": "it is an HTML page",
    b"<html": "it is an HTML page",
    b"{": "it is a JSON text",
    b"pk\3\4": "it is a ZIP archive",
    b"\x1f\x8b": "it is a gzip archive",
}
JPEG_SERIES = (".mjpeg", ".mjpg")  # of cameras: one JPEG behind the other

# Tags that are not UTF-8 are no reason to refuse a video; from version 19 on PyAV has no word for it and never refuses.
_FORGIVING: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: Path | str) -> Any:
    """Open a regular file, or a file on the web by its address, for reading with PyAV.

    A file may name others (playlists): of a local one only local ones are followed, of one on the web none of them.
    DataError: absent, not a file, not a video.
    """
    if isinstance(path, str):
        options, timeout = WEB_OPTIONS, (TIMEOUT_S, TIMEOUT_S)
    else:
        check_file(path)
        options, timeout = {"protocol_whitelist": "file,crypto,data"}, None

    def opened(kind: str | None = None) -> Any:
        return av.open(container_name(path), format=kind, options=options, timeout=timeout, **_FORGIVING)

    try:
        container = opened()
        if container.format.name == "jpeg_pipe" and str(path).lower().endswith(JPEG_SERIES):
            container.close()  # what one JPEG is, many in one file are, too, says FFmpeg
            container = opened("mjpeg")
        return container
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(path, Path) and _is_transport(path):  # of few packets FFmpeg does not believe it
            with contextlib.suppress(av.FFmpegError):
                return opened("mpegts")
        broken = "" if isinstance(path, str) else _broken_box(path) or _other_kind(path)
        raise DataError(f"{path}: no frame could be decoded ({broken or reason_of(error)})") from error


def video_stream(container: Any, path: Path | str) -> Any:
    """The video stream that is the video: no cover picture, and no thumbnail beside a longer one.

    Of several long ones it is the first, as players choose it. DataError if there is none.
    """
    if container.format.name in NOT_VIDEO or container.format.name.endswith("_pipe"):
        raise DataError(f"{path}: not a video, but {container.format.long_name} (a folder of images is a clip)")
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({"a cover picture" if s.type == "video" else s.type for s in container.streams}))
        raise DataError(f"{path}: no video stream (only {kinds or 'nothing'})")
    if len(streams) > 1:
        lengths = [_pictures_in(stream) for stream in streams]
        best = container.streams.best("video")  # the one of which FFmpeg saw most pictures when it opened the file
        known = max(lengths) > 0
        streams = (
            [s for s, length in zip(streams, lengths, strict=True) if known and 2 * length >= max(lengths)]
            or [stream for stream in streams if best is not None and stream.index == best.index]
            or streams
        )
    if streams[0].codec_context is None:
        raise DataError(f"{path}: no frame could be decoded (no decoder for this codec)")
    return streams[0]


def broken_end_of(path: Path | str, format_name: str) -> str:
    """How a file breaks off, as its bytes tell (``broken_end``), in words; a last picture that decodes is whole."""
    said = broken_end(path, format_name)
    if said != GOES_ON or isinstance(path, str):
        return said
    status = path.stat()
    return "" if _last_decodes(path, status.st_size, status.st_mtime_ns) else said


@functools.lru_cache(maxsize=4096)
def _last_decodes(path: Path, size: int, changed: int) -> bool:
    """Whether the last packet of a file is whole, as a decoder sees it; it is read from a key frame near the end on."""
    for back in (2**21, 2**24):
        container, stream = opened_again(path)
        with container:
            whole = WHOLE.get(stream.codec_context.codec.canonical_name)
            if whole is None:
                return False
            packets: list[bytes] = []
            try:
                if size > back:
                    container.seek(size - back, unsupported_byte_offset=True)
                for packet in container.demux(stream):
                    if packet.size and (packets or packet.is_keyframe):
                        packets.append(bytes(packet))
            except av.FFmpegError:
                return False
            if packets or size <= back:
                return bool(packets) and whole(stream.codec_context.codec.name, packets)
    return False


def _taken(decoder: str, packets: list[bytes]) -> bool:
    """Whether a strict decoder takes the last packet."""
    context: Any = av.CodecContext.create(decoder, "r")
    context.thread_count, context.options, taken = 1, {"err_detect": "explode"}, False
    for data in packets:
        try:
            context.decode(av.Packet(data))
            taken = True
        except av.FFmpegError:
            taken = False
    return taken


def _closed(decoder: str, packets: list[bytes]) -> bool:
    """Whether the pictures are the same whatever stands behind the last packet.

    A decoder that looks for no end reads on where something is missing, and behind a whole picture it does not.
    """
    one, other = (_pictures(decoder, [*packets[:-1], packets[-1] + more]) for more in FOLLOWS)
    return bool(one) and one == other  # of what gives no picture nothing is known


def _pictures(decoder: str, packets: list[bytes]) -> list[bytes]:
    """Hashes of all pictures that packets give."""
    context: Any = av.CodecContext.create(decoder, "r")
    context.thread_count = 1
    found: list[bytes] = []
    for data in [*packets, None]:
        with contextlib.suppress(av.FFmpegError):
            for frame in context.decode(None if data is None else av.Packet(data)):
                found.append(hashlib.sha256(b"".join(map(bytes, frame.planes))).digest())
    return found


# Codecs of which it can be seen whether a picture is whole, and how: "strict" decoders know that something is missing.
WHOLE: dict[str, Callable[[str, list[bytes]], bool]] = {
    **dict.fromkeys(("h264", "mpeg2video", "mpeg1video"), _taken),
    **dict.fromkeys(("hevc", "vvc"), _closed),
}


def own_duration_s(stream: Any) -> float:
    """How long a stream itself says that it is, not the whole file, whose sound may be longer; 0 where it does not."""
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * (stream.time_base or 0))
    match = re.fullmatch(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,12})?)", stream.metadata.get("DURATION", ""))
    end_s = 3600.0 * int(match[1]) + 60.0 * int(match[2]) + float(match[3]) if match else 0.0
    return max(0.0, end_s - float((stream.start_time or 0) * (stream.time_base or 0)))  # Matroska tells the end


def much_longer(told_s: float, found_s: float) -> bool:
    return told_s - found_s > max(1.0, 0.05 * told_s)


def header_s(container: Any, own_s: float) -> float:
    """The length that a format without a table of contents tells in its header, of the picture alone; 0 else."""
    if not container.format.name.startswith(TELLING):
        return 0.0
    alone = len(container.streams) == 1 and container.duration is not None
    return max(own_s, float(container.duration / av.time_base) if alone else 0.0)


def _pictures_in(stream: Any) -> float:
    """How many pictures a stream has, as far as the file says; 0 where it does not."""
    return float(stream.frames) or own_duration_s(stream) * frame_rate(stream)


def opened_again(path: Path | str) -> tuple[Any, Any]:
    container = open_container(path)
    try:
        return container, video_stream(container, path)
    except BaseException:
        container.close()
        raise


def check_file(path: Path) -> None:
    """Raise a DataError unless the path is a readable regular file with something in it (a fifo would wait forever)."""
    here(path)
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    except ValueError as error:
        raise DataError(f"{path!r}: not a path ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: permission denied; its owner must let you read it (chmod +r)")
    if not status.st_size:
        raise DataError(f"{path}: no frame could be decoded (the file is empty)")


def reason_of(error: BaseException) -> str:
    """FFmpeg's words for an error, without its number and file name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def frame_rate(stream: Any) -> float:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 0.001 <= rate <= 1000:
            return float(rate)
    return DEFAULT_FPS


def _other_kind(path: Path) -> str:
    """What a file is that is often found under a video's name; "" if it is none of these."""
    with path.open("rb") as file:
        begin = file.read(64).lstrip().lower()
    return next((what for magic, what in OTHERS.items() if begin.startswith(magic)), "")


def _is_transport(path: Path) -> bool:
    with path.open("rb") as file:
        return transport_packet(file) != (0, 0)


def _broken_box(path: Path) -> str:
    """Why an MP4 or MOV file cannot be opened, from its outermost boxes; "" where they say nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        names = [name for name, _ in boxes(file, size)]
    if names[:1] != ["ftyp"]:
        return ""
    if "moov" not in names:
        return "moov atom not found: the file is cut off or was never finished"
    return broken_end(path, "mov")
