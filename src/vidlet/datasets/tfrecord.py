"""TFRecord files: records in a frame of lengths and checksums, plain, gzip or zlib, read past damage and written.

    u64 length | u32 masked CRC-32C of the length | data | u32 masked CRC-32C of the data        (little-endian)

A record that fails its checksum is told with its offset, and reading goes on at the next frame whose length has the
right checksum, wherever in the file that is: nothing is lost of what is whole.
"""

from __future__ import annotations

import functools
import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..cloud import here
from ..errors import DataError
from ..files import atomic_path

HEADER, FOOTER = 12, 4
# CRC-32C (Castagnoli), the checksum of TFRecord files: by google-crc32c (C) where it is installed, or in NumPy.
#
# The register is linear over GF(2): a byte's share of the result depends on the byte and its distance from the end
# alone, so that shares are looked up for all bytes at once and joined pairwise. Source: RFC 3720, appendix B.4.
_POLYNOMIAL = 0x82F63B78  # reflected
_LANE = 16  # bytes looked up before lanes are joined
Words = NDArray[np.uint32]


def crc32c(data: bytes) -> int:
    """Checksum of bytes."""
    return _implementation()(data)


def masked(checksum: int) -> int:
    """The checksum as TFRecord files store it: rotated by 15 bits, plus a constant."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c_numpy(data: bytes) -> int:
    """The same without the C library: 0.4 GB/s instead of 28 on a record of 300 frames."""
    if len(data) < 2 * _LANE:
        return _bytewise(data)
    source = np.frombuffer(data, np.uint8)
    lanes = 1 << max(0, (len(source) - 1) // _LANE).bit_length()
    padded = np.zeros(lanes * _LANE, np.uint8)  # zeros in front change nothing once the start value is inside the data
    padded[-len(source) :] = source
    padded[-len(source) :][:4] ^= 0xFF
    joined = raw_crcs(padded.view("<u2").reshape(lanes, _LANE // 2))
    length = _LANE
    while len(joined) > 1:
        joined = _shift(joined[0::2], length) ^ joined[1::2]
        length *= 2
    return int(joined[0]) ^ 0xFFFFFFFF


def raw_crcs(words: NDArray[np.uint16]) -> Words:
    """Registers (n,), started from 0, after each row of little-endian 16-bit words (n, w), w at most 8."""
    tables = _word_tables()[-words.shape[1] :]
    found = tables[0][words[:, 0]]
    for table, column in zip(tables[1:], words.T[1:], strict=True):
        found ^= table[column]
    return found


@functools.lru_cache(maxsize=1)
def _implementation() -> Callable[[bytes], int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where it has only Python
            import google_crc32c
    except ImportError:
        return crc32c_numpy
    if google_crc32c.implementation != "c":
        return crc32c_numpy
    value: Callable[[bytes], int] = google_crc32c.value
    return value


@functools.lru_cache(maxsize=1)
def _byte_table() -> Words:
    """The register after one byte, started from 0: (256,)."""
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


@functools.lru_cache(maxsize=1)
def _word_tables() -> Words:
    """Share of a 16-bit word at each place of a lane: (8, 65536), the last row for the last word."""
    word = np.arange(65536, dtype=np.uint32)
    table = _byte_table()
    low = table[word & 255]
    share = (low >> 8) ^ table[(low ^ (word >> 8)) & 255]
    rows: list[Words] = [share]
    for _ in range(_LANE // 2 - 1):
        rows.append(_zero_bytes(rows[-1], 2))
    return np.stack(rows[::-1])


def _zero_bytes(registers: Words, count: int) -> Words:
    for _ in range(count):
        registers = (registers >> 8) ^ _byte_table()[registers & 255]
    return registers


def _shift(registers: Words, zeros: int) -> Words:
    """Registers after ``zeros`` (a power of two, at least 16) more zero bytes."""
    low, high = _shift_tables(zeros)
    return low[registers & 0xFFFF] ^ high[registers >> 16]


@functools.lru_cache(maxsize=64)
def _shift_tables(zeros: int) -> tuple[Words, Words]:
    """What each low and each high half of a register becomes: (65536,) both."""
    half = np.arange(65536, dtype=np.uint32)
    if zeros <= _LANE:
        return _zero_bytes(half, zeros), _zero_bytes(half << np.uint32(16), zeros)
    low, high = _shift_tables(zeros // 2)
    return _shift(low, zeros // 2), _shift(high, zeros // 2)


def _bytewise(data: bytes) -> int:
    register, table = 0xFFFFFFFF, _byte_list()
    for value in data:
        register = table[(register ^ value) & 255] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


@functools.lru_cache(maxsize=1)
def _byte_list() -> list[int]:
    return [int(entry) for entry in _byte_table()]


_BLOCK = 1 << 22  # bytes searched at a time
_MOST_INFLATED = 1 << 33
_LENGTH = struct.Struct("<QI")

Told = Callable[[int, str], None]  # offset of the damage, what it is


class Span(NamedTuple):
    """Where a record's data lie in its (inflated) file, in bytes."""

    offset: int  # of the frame, as problems are named
    length: int

    @property
    def begin(self) -> int:
        """First byte of the data."""
        return self.offset + HEADER


def read_tfrecord(path: str | Path, told: Told | None = None) -> Iterator[tuple[int, bytes]]:
    """Offset and data of every whole record of a file, in order.

    Args:
        told: called with the offset and the reason of each damage, which is skipped; None: damage is an error.

    Raises:
        DataError: the file cannot be opened, or damage that nobody wants to be told of; names file and offset.
    """

    def refuse(offset: int, why: str) -> None:
        raise DataError(f"{path}: at byte {offset}: {why}")

    with open_shard(path, told or refuse) as stream:
        yield from _records(stream, told or refuse)


def open_shard(path: str | Path, told: Told | None = None) -> BinaryIO:
    """A file's records as a seekable stream, inflated into memory if it is gzip or zlib.

    Raises:
        DataError: it cannot be opened.
    """
    here(path)
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - the caller closes it
        start = stream.read(HEADER)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    stream.seek(0)
    packed = start[:2] == b"\x1f\x8b" or (start[:1] == b"\x78" and int.from_bytes(start[:2], "big") % 31 == 0)
    if not packed or _length(start) is not None:
        return stream
    with stream:
        return io.BytesIO(_inflate(stream, path, told))


def read_span(stream: BinaryIO, span: Span) -> bytes:
    """The data of a record that was read before; its checksum is checked again.

    Raises:
        DataError: it is no longer what it was.
    """
    stream.seek(span.offset)
    frame = stream.read(HEADER + span.length + FOOTER)
    data = frame[HEADER:-FOOTER]
    if _length(frame[:HEADER]) != span.length or not _whole(data, frame[-FOOTER:]):
        raise DataError(f"at byte {span.offset}: the record is not what it was when the file was listed")
    return data


def write_tfrecord(path: str | Path, records: Iterable[bytes], compressed: bool = False) -> list[int]:
    """Write a whole file of records, or none; returns the offset of each (in the inflated file)."""
    offsets, position = [], 0
    with atomic_path(path) as draft, draft.open("wb") as plain:
        stream = gzip.GzipFile("", "wb", fileobj=plain, mtime=0) if compressed else plain
        for data in records:
            length = struct.pack("<Q", len(data))
            stream.write(length + struct.pack("<I", masked(crc32c(length))))
            stream.write(data)
            stream.write(struct.pack("<I", masked(crc32c(data))))
            offsets.append(position)
            position += HEADER + len(data) + FOOTER
        if compressed:
            stream.close()
    return offsets


def _records(stream: BinaryIO, told: Told) -> Iterator[tuple[int, bytes]]:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    offset = 0
    while offset < size:
        header = stream.read(HEADER)
        length = _length(header)
        end = offset + HEADER + (length or 0) + FOOTER
        if len(header) < HEADER:
            problem = f"truncated: {size - offset} bytes are no whole record"
        elif length is None:
            problem = "the length has a wrong checksum"
        elif end > size:
            problem = f"truncated: the record has {length} bytes, the file {max(0, size - offset - HEADER)} more"
        else:
            data, footer = stream.read(length), stream.read(FOOTER)
            if _whole(data, footer):
                yield offset, data
                offset = end
                continue
            problem = "the data have a wrong checksum"
        told(offset, problem)
        follows = end <= size and length is not None and (end == size or _starts_at(stream, end))
        offset = end if follows else _next_start(stream, offset + 1, size)
        stream.seek(offset)


def _length(header: bytes) -> int | None:
    """The length that a header says, None if its checksum is wrong."""
    if len(header) < HEADER:
        return None
    length, checksum = _LENGTH.unpack(header)
    return int(length) if masked(crc32c(header[:8])) == checksum else None


def _whole(data: bytes, footer: bytes) -> bool:
    return len(footer) == FOOTER and masked(crc32c(data)) == struct.unpack("<I", footer)[0]


def _starts_at(stream: BinaryIO, offset: int) -> bool:
    stream.seek(offset)
    return _length(stream.read(HEADER)) is not None


def _next_start(stream: BinaryIO, begin: int, size: int) -> int:
    """The next offset at which a length with the right checksum stands and fits into the file; ``size`` if none."""
    start = np.uint32(crc32c(bytes(8)))  # what the start value of the register adds to every checksum of 8 bytes
    while begin + HEADER <= size:
        stream.seek(begin)
        block = np.frombuffer(stream.read(_BLOCK + HEADER - 1), np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(block, HEADER)  # (n, 12): a header at each offset
        # a length of 2^40 bytes and more is none
        some = np.flatnonzero(~windows[:, 5:8].any(axis=1))
        words = np.ascontiguousarray(windows[some, :8]).view("<u2")  # (m, 4)
        register = raw_crcs(words) ^ start
        sums = ((register >> 15) | (register << 17)) + np.uint32(0xA282EAD8)
        stored = np.ascontiguousarray(windows[some, 8:]).view("<u4")[:, 0]
        for offset in some[sums == stored]:
            length = int.from_bytes(block[offset : offset + 8].tobytes(), "little")
            if begin + int(offset) + HEADER + length + FOOTER <= size:
                return begin + int(offset)
        begin += len(windows)
    return size


def _inflate(stream: BinaryIO, path: str | Path, told: Told | None) -> bytes:
    """All that can be inflated of gzip members, one after the other, or of a zlib stream."""
    parts: list[bytes] = []
    total, inflater = 0, zlib.decompressobj(wbits=47)
    problem = ""
    try:
        while block := stream.read(_BLOCK):
            while block:
                parts.append(inflater.decompress(block))
                total += len(parts[-1])
                block = inflater.unused_data
                if inflater.eof and block:
                    inflater = zlib.decompressobj(wbits=47)
            if total > _MOST_INFLATED:
                raise DataError(f"{path}: inflates to more than {_MOST_INFLATED >> 30} GiB: split it")
        if not inflater.eof:
            problem = "the compressed stream is truncated"
    except zlib.error as error:
        problem = f"the compressed stream is damaged ({error})"
    if problem:
        if told is None:
            raise DataError(f"{path}: at byte {total} of the inflated data: {problem}")
        told(total, problem)
    return b"".join(parts)
