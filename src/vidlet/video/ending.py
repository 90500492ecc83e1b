"""Whether a file breaks off or begins anew, from what its container tells of itself; without decoding anything.

Raw streams, and live recordings that are cut between two pictures, tell nothing: what they lack shows, at most, by what
the decoder misses.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

BREAKS_OFF = "it breaks off: "  # how the note on such a file begins
GOES_ON = "its last picture goes on"  # or fills its last packet: the decoder can tell
JOINED = "another recording is joined behind it and is not read, from byte"
TAIL = 2**17  # more than the largest page of Ogg


def broken_end(path: Path | str, format_name: str) -> str:
    """How a file of one of FFmpeg's formats breaks off, in words; "" where it is whole, or does not tell.

    A file is looked at once a process, as long as it does not change.
    """
    if isinstance(path, str):  # on the web
        return ""
    status = path.stat()
    return _broken_end(path, format_name, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _broken_end(path: Path, format_name: str, size: int, changed: int) -> str:
    for begin, look in ENDINGS.items():
        if format_name.startswith(begin):
            with path.open("rb") as file:
                return look(file, size)
    return ""


def _cut(end: int, size: int, what: str) -> str:
    return f"{size:,} of {end:,} bytes of its {what} are there" if end > size else ""


def begins_anew(path: Path, format_name: str) -> bool:
    """Whether the clock of an MP4 or Matroska file begins anew: recordings, or fragments of them, that were joined."""
    status = path.stat()
    return _begins_anew(path, format_name, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _begins_anew(path: Path, format_name: str, size: int, changed: int) -> bool:
    with path.open("rb") as file:
        if format_name.startswith("matroska"):
            end = 0
            for _ in range(2):  # header and segment
                file.seek(end)
                head = file.read(16)
                length, behind = _vint(head, 9 - head[0].bit_length() if head else 0)
                end += behind + max(length, 0)
            file.seek(end)
            return file.read(4) == EBML
        return format_name.startswith("mov") and _fragments_go_back(file, size)


def _fragments_go_back(file: BinaryIO, size: int) -> bool:
    """Whether a fragment begins where the one before it did, or earlier, by the decoding time (tfdt) of a track."""
    latest: dict[bytes, int] = {}
    begin = 0
    for name, end in boxes(file, size):
        if name == "moof":
            file.seek(begin)
            data = file.read(min(end - begin, TAIL))
            track, at = data.find(b"tfhd") + 8, data.find(b"tfdt") + 4
            time = int.from_bytes(data[at + 4 : at + (12 if data[at : at + 1] == b"\1" else 8)], "big")
            if min(track - 8, at - 4) >= 0 and time <= latest.get(data[track : track + 4], -1):
                return True
            latest[data[track : track + 4]] = time
        begin = end
    return False


def _mov(file: BinaryIO, size: int) -> str:
    names, end, begin = [], 0, 0
    for name, behind in boxes(file, size):
        names.append(name)
        begin, end = end, behind
        if name == "ftyp" and "moov" in names and "moof" not in names:
            return f"{JOINED} {begin:,}"
    return f"the file is cut off in its {names[-1]} atom" if end > size else ""


def _flv(file: BinaryIO, size: int) -> str:
    """A chain of tags, each with the length of the one before."""
    place = 13
    for _ in range(1_000_000):
        if place >= size:
            break
        file.seek(place)
        head = file.read(11)
        if head[:3] == b"FLV":
            return f"{JOINED} {place:,}"
        if head[0] & 0x1F not in (8, 9, 18):
            return ""
        place += 15 + int.from_bytes(head[1:4], "big")
    return "its last tag is cut" if place > size else ""


def boxes(file: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """The outermost boxes of an MP4 or MOV file: name, and the place behind it."""
    offset = 0
    for _ in range(10_000):
        if offset + 8 > size:
            return
        file.seek(offset)
        header = file.read(16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not name.isalnum():
            return
        offset += length
        yield name.decode(), offset


def _riff(file: BinaryIO, size: int) -> str:
    offset = 0
    while offset + 12 <= size:  # files of more than a GiB have several
        file.seek(offset)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or not length:  # something behind it; a recording that was never closed
            return ""
        offset += 8 + length
    return _cut(offset, size, "RIFF chunk")


EBML = b"\x1a\x45\xdf\xa3"
SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"


def _matroska(file: BinaryIO, size: int) -> str:
    """The length of the segment; of one that was written as it came, whether its elements end where the file does."""
    place = 0
    for _ in range(1_000_000):
        file.seek(place)
        head = file.read(16)
        if not head:
            return ""
        width = 9 - head[0].bit_length()
        length, behind = _vint(head, width)
        if not place and head[:4] != EBML:
            return ""
        if behind == width:  # of the length itself not all is there
            return "its last element is cut"
        if length < 0 and head[:4] not in (SEGMENT, CLUSTER):  # what it holds follows; others always have a length
            return ""
        place += behind + max(length, 0)
        if place > size:
            return _cut(place, size, "segment" if head[:4] == SEGMENT else "last element")
        if head[:4] == SEGMENT and length >= 0:
            return ""
    return ""


def _vint(data: bytes, place: int) -> tuple[int, int]:
    """A length of EBML and the place behind it; -1: unknown, as a live recording has it."""
    first = data[place] if place < len(data) else 0
    width = 9 - first.bit_length()
    if not first or place + width > len(data):
        return -1, place
    value = int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1)
    return (-1 if value == (1 << 7 * width) - 1 else value), place + width


def _asf(file: BinaryIO, size: int) -> str:
    """The file size that the file properties object tells, unless the file is a broadcast."""
    file.seek(0)
    head = file.read(2**16)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if at < 0 or at + 92 > len(head) or head[at + 88] & 1:
        return ""
    return _cut(int.from_bytes(head[at + 40 : at + 48], "little"), size, "file")


def _gif(file: BinaryIO, size: int) -> str:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = 13 + _colors(data[10]) if size > 13 else size
        while place < size:
            kind = data[place]
            if kind == 0x3B:
                return ""
            if kind == 0x21:  # an extension
                place += 2
            elif kind == 0x2C and place + 10 <= size:  # a picture
                place += 11 + _colors(data[place + 9])
            else:
                break
            while place < size and data[place]:
                place += 1 + data[place]
            place += 1
    return "its trailer is missing"


def _colors(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _ogg(file: BinaryIO, size: int) -> str:
    """The last page of all is whole and says that it is the last of its stream."""
    file.seek(max(0, size - TAIL))
    tail = file.read()
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return ""
    page = tail[at:]
    segments = page[26] if len(page) > 26 else 0
    if len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments]):
        return "its last page is cut"
    return "" if page[5] & 4 else "its last page is not marked as the last"


def _transport(file: BinaryIO, size: int) -> str:
    """Whole packets, of the three sizes that are in use, and in them whole packets of the streams."""
    length, first = transport_packet(file)
    if not length:
        return ""
    if size % length:
        return f"its last packet has {size % length} of {length} bytes"
    file.seek(max(0, size - TAIL * 8 // length * length))
    tail = file.read()
    return _streams(tail[place : place + 188] for place in range(first, len(tail), length))


def transport_packet(file: BinaryIO) -> tuple[int, int]:
    """The length of a transport stream's packets, and where in them their mark is; (0, 0) of another file."""
    file.seek(0)
    head = file.read(4 * 204 + 8)
    for length, first in ((188, 0), (192, 4), (204, 0)):
        if all(head[place : place + 1] == b"\x47" for place in range(first, 4 * length, length)):
            return length, first
    return 0, 0


def _streams(packets: Iterable[bytes]) -> str:
    """What the last packet of a stream lacks: some of the bytes it tells, or its filling.

    The packet of a picture seldom tells its length. It fills up the transport packet in which it ends, unless it
    happens to fit (one in 184), which the bytes do not tell from one that goes on.
    """
    missing: dict[int, int] = {}  # of streams whose last packet told its length
    filled: dict[int, bool] = {}  # of the others
    for packet in packets:
        stream, flags = int.from_bytes(packet[1:3], "big") & 0x1FFF, packet[3]
        payload = packet[5 + packet[4] if flags & 0x20 else 4 :] if flags & 0x10 else b""
        if packet[1] & 0x40 and payload[:3] == b"\0\0\1":
            told = int.from_bytes(payload[4:6], "big")
            missing[stream] = told + 6 if told else 0
            filled.pop(stream, None)
            if not told:
                filled[stream] = False
        if payload and stream in missing:
            missing[stream] = max(missing[stream] - len(payload), 0)
        if payload and stream in filled:
            filled[stream] = bool(flags & 0x20) and _filled(packet)
    if any(missing.values()):
        return "the last packet of a stream is cut"
    return "" if all(filled.values()) else GOES_ON


def _filled(packet: bytes) -> bool:
    """Whether an adaptation field is longer than what it tells, which is clocks mostly."""
    if not packet[4]:
        return True
    clocks = 6 * (packet[5] >> 4 & 1) + 6 * (packet[5] >> 3 & 1) + (packet[5] >> 2 & 1)
    return bool(packet[5] & 3) or packet[4] > 1 + clocks


def _program(file: BinaryIO, size: int) -> str:
    """Whole packets behind the last begin of a pack."""
    start = max(0, size - TAIL * 8)
    file.seek(start)
    tail = file.read()
    pack = tail.rfind(b"\0\0\1\xba")
    if pack < 0:
        return ""
    place = tail.find(b"\0\0\1", pack + 4)
    while 0 <= place <= len(tail) - 6 and tail[place : place + 3] == b"\0\0\1" and tail[place + 3] != 0xB9:
        place += 6 + int.from_bytes(tail[place + 4 : place + 6], "big")
    rest = tail[place:] if place >= 0 else b"\1"
    if place > len(tail) or (rest[:4] != b"\0\0\1\xb9" and rest.strip(b"\0")):
        return "its last packet is cut"
    return ""


def _nut(file: BinaryIO, size: int) -> str:
    """An index ends the file, and its last bytes tell where it begins."""
    file.seek(max(0, size - 12))
    length = int.from_bytes(file.read(8), "big")
    file.seek(max(0, size - length))
    return "" if length <= size and file.read(8) == bytes.fromhex("4e58dd672f23e64e") else "its index is missing"


def _ivf(file: BinaryIO, size: int) -> str:
    place = 32
    while place + 12 <= size:
        file.seek(place)
        place += 12 + int.from_bytes(file.read(4), "little")
    return "its last frame is cut" if place != size else ""


def _mxf(file: BinaryIO, size: int) -> str:
    """The place of the last partition, which the first one tells once the file was closed."""
    file.seek(0)
    head = file.read(2**17)
    at = head.find(bytes.fromhex("060e2b34020501010d01020101"))
    if at < 0 or at + 52 > len(head):
        return ""
    _, behind = _length(head, at + 16)
    footer = int.from_bytes(head[behind + 24 : behind + 32], "big")
    if not footer:
        return ""
    place = at + footer
    while place < size:
        file.seek(place)
        length, head_bytes = _length(file.read(25), 16)
        place += head_bytes + length
    return "its footer is missing" if place != size else ""


def _length(data: bytes, place: int) -> tuple[int, int]:
    """A length of BER and the place behind it."""
    first = data[place] if place < len(data) else 0
    width = first & 0x7F if first & 0x80 else 0
    value = int.from_bytes(data[place + 1 : place + 1 + width], "big") if width else first
    return value, place + 1 + width


def _apng(file: BinaryIO, size: int) -> str:
    file.seek(max(0, size - 12))
    return "" if file.read() == bytes.fromhex("0000000049454e44ae426082") else "its end mark is missing"


def _pictures(file: BinaryIO, size: int) -> str:
    """Y4M: whole frames behind the header."""
    file.seek(0)
    header, begin = file.readline(4096), file.readline(4096)
    found = {word[:1]: word[1:] for word in header.split()[1:]}
    if not begin.startswith(b"FRAME") or not begin.endswith(b"\n"):
        return ""
    samples = _samples(found)
    left = (size - len(header)) % (len(begin) + samples) if samples else 0
    return f"its last frame has {left:,} of {len(begin) + samples:,} bytes" if left else ""


def _samples(header: dict[bytes, bytes]) -> int:
    """Bytes of a frame of 8 bits; 0 where they cannot be told."""
    try:
        width, height = int(header[b"W"]), int(header[b"H"])
    except (KeyError, ValueError):
        return 0
    form, halved = header.get(b"C", b"420"), (width + 1) // 2
    if b"p1" in form or b"alpha" in form:
        return 0
    chroma = {b"420": halved * ((height + 1) // 2), b"422": halved * height, b"444": width * height, b"mon": 0}
    return width * height + 2 * chroma[form[:3]] if form[:3] in chroma else 0


def _dv(file: BinaryIO, size: int) -> str:
    """Whole frames of 120,000 bytes (60 fields a second) or 144,000 (50); finer formats have multiples of them."""
    file.seek(3)
    length = 144_000 if file.read(1) >= b"\x80" else 120_000
    return f"its last frame has {size % length:,} of {length:,} bytes" if size % length else ""


def _jpegs(file: BinaryIO, size: int) -> str:
    file.seek(max(0, size - TAIL))
    tail = file.read().rstrip(b"\0\r\n")
    return "" if tail.endswith(b"\xff\xd9") else "its last picture is cut"


ENDINGS: dict[str, Callable[[BinaryIO, int], str]] = {  # by the beginning of a format's name
    "mov": _mov,
    "flv": _flv,
    "avi": _riff,
    "matroska": _matroska,
    "asf": _asf,
    "gif": _gif,
    "ogg": _ogg,
    "mpegts": _transport,
    "mpeg": _program,
    "nut": _nut,
    "ivf": _ivf,
    "mxf": _mxf,
    "apng": _apng,
    "yuv4mpegpipe": _pictures,
    "dv": _dv,
    "mjpeg": _jpegs,
}
