"""Video files through PyAV: opened with care, decoded in order of display, never past what cannot be trusted.

Times are the container's, counted from the first frame. A file that is not a video, is encrypted or has no intact
frame is a DataError that names the file and the reason; damage further on ends the reading (or, with ``resume``, skips
to the next intact key frame) and is told in words.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .clock import Clock, Key, contents, jumping, shown_packets
from .ending import BREAKS_OFF
from .frames import Frame, VideoInfo
from .opening import (
    broken_end_of,
    frame_rate,
    header_s,
    much_longer,
    open_container,
    opened_again,
    own_duration_s,
    reason_of,
    video_stream,
)
from .sample import EPSILON_S
from .unseen import ALONE, Blank, Unseen, Wanted, listed, lists_frames
from .upright import Pictures, picture_notes, pixel_aspect, rotation_of

HOP_FRAMES = 12  # a seek costs about as much as decoding so many frames (measured at 240p and 720p)
KEY_SPACING_S = 10.0  # assumed where a file has no index: the largest spacing that common encoders choose
NEVER = float("-inf")
MOST_UNTIMED = 64  # pictures without a time that are waited for to be told it by one behind them
# Formats without times of display, in which FFmpeg guesses those of reordered pictures by their order in the file.
UNTIMED = frozenset({"avi", "mpegvideo"})
HIDDEN_FRAMES = frozenset({"vp8"})  # codecs with packets that are never shown


class VideoReader:
    """One pass over a video file.

    Args:
        path: A regular file, or the address of a file on the web.
        name: What it is called in messages and ``info``, if not by its path.
        resume: What happens at a packet that the decoder refuses. False: reading ends there, because the pictures
            that follow are predicted from one that is missing. True: it goes on at the next intact key frame.

    Raises:
        DataError: not a readable video, or no frame of it can be decoded.
    """

    def __init__(self, path: Path | str, resume: bool = False, name: str = "") -> None:
        self._path, self._resume, self._name = path, resume, name or path
        self._container = open_container(path)
        try:
            self._start()
        except BaseException:
            self._container.close()
            raise

    def _start(self) -> None:
        self._stream = video_stream(self._container, self._path)
        self._stream.thread_count = 1  # clips are read side by side; one thread a clip is the fastest and repeatable
        self._tick_s = float(self._stream.time_base or 1 / 90_000)
        self._fps = frame_rate(self._stream)
        self._clock = Clock(self._stream, jumping(self._container), self.interval_s)
        self._broken_end = broken_end_of(self._path, self._container.format.name)
        self._contents = contents(self._path, self._container, self._stream, opened_again, self.interval_s)
        self._packets: Iterator[Any] = self._mended(shown_packets(self._container, self._stream))
        self._pictures = Pictures(self._stream.codec_context.codec.canonical_name)
        self._decoded: deque[Any] = deque()
        self._fed: list[int | None] | None = []  # stamps of the packets up to the first frame; None later
        self._unseen: Unseen | None = None
        self._ended = self._sought = self._wait_for_key = False
        self._guessed = False  # whether stamps are guesses, until a packet begins where the file has one
        self._by_order = self._container.format.name in UNTIMED
        self._seekable = isinstance(self._path, Path) or not jumping(self._container)
        self._count = self._corrupt = self._errors = 0
        self._reason = ""
        self._origin, self._time = 0.0, NEVER  # time stamp of the first frame; time of the last frame given out
        self._not_before = NEVER  # after a seek: frames before the key frame lack their references
        first = self._peek(first=True)
        if first is None:
            raise DataError(f"{self._name}: no frame could be decoded ({self._reason or 'it holds none'})")
        self._origin = 0.0 if first.pts is None else first.pts * self._tick_s
        self.info = self._describe(first)

    def only(self, wanted: Wanted) -> None:
        """Tell which frames will be looked at: called before the first is taken, with the times of all.

        Of the others those that no frame is predicted from are not decoded, and damage to them is not met; frames and
        times are the same. It has an effect on short files that are trusted to list each frame once.
        """
        fed, trusted = self._fed, lists_frames(self.info.codec, self._container.format.name)
        if fed is None or not trusted or self._breaks or self._errors:
            return
        self._fed = None
        ahead, self._packets, sound = listed(self._packets)
        stamps = [packet.pts for packet in ahead if packet.size]
        every = [*fed, *stamps]
        if sound and None not in fed and len(set(every)) == len(every) and self._seconds(min(every)) == 0:
            self._unseen = Unseen(stamps, {stamp: self._seconds(stamp) for stamp in every}, wanted)

    @property
    def interval_s(self) -> float:
        return 1.0 / self._fps

    @property
    def damage(self) -> str:
        short = self._missing()
        if self._broken_end and self._ended and not short:
            short = f"the file breaks off: {self._broken_end}"
        found = [short] if short else []
        if self._errors and not (self._resume or self._sought):
            found = [f"{short or f'{self._count} frames decoded'}, then: {self._reason}"]
        elif self._errors:
            found.append(f"{self._errors} damaged packets skipped, the first: {self._reason}")
        if self._corrupt:
            found.append(f"{self._corrupt} frames patched up by the decoder")
        return "; ".join(found)

    def next_frame(self) -> Frame | None:
        self._fed = None
        raw = self._next_intact()
        if raw is None:
            return None
        self._time = time_s = self._time_of(raw)
        if isinstance(raw, Blank):
            return Frame(time_s, partial(self._picture_at, time_s))
        return Frame(time_s, partial(self._pictures.upright, raw))

    def worth_seeking(self, time_s: float) -> bool:
        gap, hop = time_s - self._time, HOP_FRAMES * self.interval_s
        if gap <= hop or self._time == NEVER or not self._seekable:
            return False
        key = self._key_before(time_s)
        return gap > KEY_SPACING_S + hop if key is None else key - self._time > hop

    def seek(self, time_s: float) -> None:
        """Jump to the last key frame that is shown at or before this time.

        Indices are of decoding times, and some formats have none: what comes out is looked at, and if it is too late
        the jump is taken again from further back.
        """
        key = self._contents.key_before(self._timestamp(time_s)) if self._breaks and self._contents else None
        if key is not None and self._seekable:
            self._jump_to(key)
            return
        if self._breaks or not self._seekable:
            if time_s < self._time:
                self._begin_again()
            return
        back = 0.0
        while self._jump(max(time_s - back, 0.0)) and back < time_s:
            late = self._not_before > time_s + EPSILON_S
            first = None if late else self._peek()
            if first is not None and (first.pts is None or self._seconds(first.pts) <= time_s + EPSILON_S):
                break
            back = max(4 * back, 1.0)

    def close(self) -> None:
        self._container.close()

    def count(self, start_s: float, end_s: float) -> int:
        """Count the packets shown in [start, end), without decoding, in a second pass of its own.

        That is the number of frames in nearly all files; the exceptions (fields, hidden frames) show when decoding.
        """
        found = 0
        container, stream = opened_again(self._path)
        clock = Clock(stream, jumping(container), self.interval_s)
        with container:
            try:
                if start_s > 0 and self._seekable and not self._breaks and container.format.name != "mpeg":
                    container.seek(self._timestamp(start_s), stream=stream)
                for number, packet in enumerate(shown_packets(container, stream)):
                    clock.mend(packet)
                    if packet.dts is not None and self._seconds(packet.dts) >= end_s:
                        break
                    stamp = packet.dts if packet.pts is None else packet.pts
                    time_s = number * self.interval_s if stamp is None else self._seconds(stamp)
                    inside = start_s - EPSILON_S <= time_s < end_s - EPSILON_S
                    found += bool(packet.size) and not packet.is_discard and inside
            except av.FFmpegError:  # told by the pass that decodes
                return found
        return found

    def frame_times(self) -> NDArray[np.float64]:
        """When each frame is shown, in order of display; decoded only where the packets do not tell it."""
        found = self._packet_times()
        if found is None:
            found = np.array([frame.time_s for frame in iter(self.next_frame, None)])
        return found

    def _packet_times(self) -> NDArray[np.float64] | None:
        """Times of all packets, in a second pass; None where a packet may be another thing than a frame shown then."""
        trusted = self._container.format.name.startswith(("mov", "matroska"))
        if not trusted or self._breaks or self._broken_end or self.info.codec in HIDDEN_FRAMES:
            return None
        container, stream = opened_again(self._path)
        with container:
            try:
                shown = [
                    packet.pts for packet in shown_packets(container, stream) if packet.size and not packet.is_discard
                ]
            except av.FFmpegError:
                return None
            if None in shown:
                return None
            times = np.sort(np.array([self._seconds(stamp) for stamp in shown]))
        sound = len(times) and abs(times[0]) < EPSILON_S and (np.diff(times) > EPSILON_S).all()
        return times if sound else None

    def key_spacing_s(self) -> float:
        """Seconds between two key frames in the middle of the file; KEY_SPACING_S if the file does not tell."""
        if self._breaks and self._contents and self._contents.keys:
            return self.info.duration_s / len(self._contents.keys)
        middle = self.info.duration_s / 2
        index = self._stream.index_entries
        before = self._key_before(middle)
        if before is None:
            return KEY_SPACING_S
        after = index.search_timestamp(self._timestamp(middle) + 1, backward=False)
        return self._index_time(after) - before if after >= 0 else self.info.duration_s - before

    @property
    def _breaks(self) -> bool:
        """Whether the file's time stamps break somewhere, so that no jump may trust them."""
        return self._contents is not None and bool(self._contents.breaks)

    # The packets and what the decoder makes of them.

    def _mended(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets with the stamps of one clock; in a stream that begins without any nothing can be sought."""
        for packet in packets:
            self._mend(packet)
            if packet.size and packet.pts is None and packet.dts is None and not self._sought:
                self._seekable = False
            yield packet

    def _mend(self, packet: Any) -> None:
        """Put a packet on the one clock; behind a jump in a program stream without the stamps that FFmpeg guesses."""
        if self._guessed and packet.size:
            self._guessed = packet.pos is None or packet.pts is None
            if self._guessed:
                packet.pts = packet.dts = None
        self._clock.mend(packet)

    def _next_intact(self, first: bool = False) -> Any:
        """The next frame that can be shown, or None.

        A damaged first frame, or a damaged packet, spoils everything up to the next intact key frame.
        """
        while (frame := self._next_decoded()) is not None:
            if first and frame.is_corrupt:
                self._wait_for_key = True
            first = False
            if self._wait_for_key and (frame.is_corrupt or not frame.key_frame):
                self._reason = self._reason or "the first frame is damaged"
                continue
            self._wait_for_key = False
            if frame.pts is not None and self._seconds(frame.pts) < self._not_before - EPSILON_S:
                continue
            self._count += 1
            self._corrupt += bool(frame.is_corrupt)
            return frame
        return None

    def _peek(self, first: bool = False) -> Any:
        """The next frame that can be shown, left where it is."""
        if (frame := self._next_intact(first)) is not None:
            self._decoded.appendleft(frame)
            self._count -= 1
            self._corrupt -= bool(frame.is_corrupt)
        return frame

    def _next_decoded(self) -> Any:
        while not self._decoded or self._untimed():
            if self._ended:
                break
            try:
                packet = next(self._packets, None)
            except av.FFmpegError as error:  # the container itself is broken here: there is no next packet
                self._failed(error)
                self._ended = True
                break
            if packet is None:
                self._ended = True
                break
            if packet.size and packet.has_sidedata("encryption_info"):
                raise DataError(f"{self._name}: the video is encrypted")
            try:
                pictures = list(self._frames_of(packet))
                for picture in pictures if self._by_order and self._unseen is None else ():
                    picture.pts = picture.dts
                self._decoded.extend(pictures)
            except av.FFmpegError as error:
                self._failed(error)
                self._ended, self._wait_for_key = not self._resume, True
        return self._decoded.popleft() if self._decoded else None

    def _untimed(self) -> bool:
        """Whether behind a jump no picture tells its time yet; those before the first that does get theirs from it.

        Program streams stamp one packet in a few, and not always that of a key frame.
        """
        if not self._sought or not self._seekable or self._time != NEVER or self._decoded[0].pts is not None:
            return False
        told = next((place for place, frame in enumerate(self._decoded) if frame.pts is not None), None)
        if told is None:
            return len(self._decoded) < MOST_UNTIMED
        for place in range(told):
            back = round((told - place) * self.interval_s / self._tick_s)
            self._decoded[place].pts = self._decoded[told].pts - back
        return False

    def _frames_of(self, packet: Any) -> Iterator[Any]:
        """What the decoder gives for a packet, and blanks for what it left out."""
        if self._fed is not None and packet.size:
            self._fed.append(packet.pts)
        if self._unseen is None:
            return iter(packet.decode())
        unseen = self._unseen.leaves_out(packet)
        if unseen and self.info.codec in ALONE:
            return iter(())
        self._stream.codec_context.skip_frame = "NONREF" if unseen else "DEFAULT"
        return self._unseen.filled(packet.decode(), last=not packet.size)

    def _see_all(self) -> None:
        """Nothing is left out from here on."""
        self._fed = None
        if self._unseen is not None:
            self._unseen = None
            self._stream.codec_context.skip_frame = "DEFAULT"

    def _picture_at(self, time_s: float) -> NDArray[np.uint8]:
        """The picture of a frame that was left out and is wanted all the same: by a pass of its own."""
        whole = VideoReader(self._path, self._resume)
        try:
            frames = iter(whole.next_frame, None)
            return next(frame for frame in frames if frame.time_s >= time_s - EPSILON_S).rgb()
        finally:
            whole.close()

    def _failed(self, error: av.FFmpegError) -> None:
        self._errors += 1
        self._reason = self._reason or reason_of(error)

    def _missing(self) -> str:
        """In words, that the file ended before it should; frames that an edit list hides do not count."""
        declared, end_s = self.info.frames, self._time + self.interval_s
        if not self._ended or self._time == NEVER or 0 < declared <= self._count:
            return ""
        if not declared or self._sought:  # the file tells only how long it is, or not all frames were counted
            early = self._own_duration and much_longer(self.info.duration_s, end_s)
            return f"the video ends at {end_s:.2f} of {self.info.duration_s:.2f} declared seconds" if early else ""
        if self._container.format.name.startswith("mov"):
            declared = sum(not entry.is_discard for entry in self._stream.index_entries)
        elif self._container.format.name == "avi" and not self._broken_end and not self._errors:
            return ""  # it counts moments, and where the picture stands as it was there is none
        return f"{self._count} of {declared} declared frames decoded" if self._count < declared else ""

    # Times and places in the file.

    def _time_of(self, raw: Any) -> float:
        """Seconds since the first frame; strictly ascending, also where the file's time stamps are missing or jump."""
        follows = max(self._not_before, 0.0) if self._time == NEVER else self._time + self.interval_s
        if raw.pts is None:
            return follows
        time_s = self._seconds(raw.pts)
        if time_s > self._time:
            return time_s
        if self._time - time_s > 1.0:  # the clock was set back (joined recordings): count on from here
            self._origin -= follows - time_s
            return follows
        return self._time + EPSILON_S

    def _seconds(self, stamp: int) -> float:
        return stamp * self._tick_s - self._origin

    def _timestamp(self, time_s: float) -> int:
        return round((time_s + self._origin) / self._tick_s)

    def _index_time(self, position: int) -> float:
        return self._seconds(self._stream.index_entries[position].timestamp)

    def _key_before(self, time_s: float) -> float | None:
        """Time of the last indexed key frame at or before this time; None if the index does not reach so far."""
        if self._breaks and self._contents:
            key = self._contents.key_before(self._timestamp(time_s))
            return NEVER if key is None else self._seconds(key.shown)
        index = self._stream.index_entries
        sparse = self._container.format.flags & av.format.Flags.ts_discont.value  # transport streams: what was seen
        if sparse or not len(index) or self._index_time(len(index) - 1) < time_s - KEY_SPACING_S:
            return None
        position = index.search_timestamp(self._timestamp(time_s))
        return self._index_time(position) if position >= 0 else None

    def _jump_to(self, key: Key) -> None:
        """Go to a key packet by its place in the file; where that cannot be done, begin again."""
        try:
            self._container.seek(key.position, unsupported_byte_offset=True)
            packets = shown_packets(self._container, self._stream)
            packet = next((packet for packet in packets if packet.pos == key.position and packet.is_keyframe), None)
        except av.FFmpegError:
            packet = None
        self._clock.go_on(key.offset)
        if packet is None:
            self._begin_again()
            return
        self._clock.mend(packet)
        self._arrive(packet, packets)

    def _begin_again(self) -> None:
        """Read from the beginning, in a file without access by place or time."""
        self._see_all()
        self._container.close()
        self._container, self._stream = opened_again(self._path)
        self._stream.thread_count = 1
        self._clock.go_on(0)
        self._packets = self._mended(shown_packets(self._container, self._stream))
        self._decoded.clear()
        self._seekable, self._ended, self._sought, self._time = False, False, True, NEVER

    def _arrive(self, packet: Any, packets: Iterator[Any]) -> None:
        """Decode from this packet on."""
        self._see_all()
        self._decoded.clear()
        self._sought, self._ended, self._wait_for_key = True, False, False
        self._time = self._not_before = NEVER
        self._packets = itertools.chain([packet], self._mended(packets))
        if packet.is_keyframe and packet.pts is not None:
            self._not_before = self._seconds(packet.pts)

    def _jump(self, time_s: float) -> bool:
        """Seek to a key frame at about this time and note its time in ``_not_before``; False if it cannot be done."""
        try:
            self._container.seek(self._timestamp(time_s), stream=self._stream)
            self._clock.go_on(0)
            self._guessed = self._container.format.name == "mpeg"
            packets = shown_packets(self._container, self._stream)
            packet = next((packet for packet in packets if packet.is_keyframe or not packet.size), None)
        except av.FFmpegError:  # not a seekable file: it is read on from where it is
            self._seekable = False
            return False
        if packet is None:
            self._see_all()
            self._decoded.clear()
            self._sought = self._ended = True
            self._wait_for_key, self._time, self._not_before = False, NEVER, NEVER
            return True
        self._mend(packet)
        self._arrive(packet, packets)
        return True

    def _describe(self, first: Any) -> VideoInfo:
        stream, container = self._stream, self._container
        turn, swapped = rotation_of(first)
        width, height = (first.height, first.width) if swapped else (first.width, first.height)
        own_s = own_duration_s(stream)
        self._own_duration = own_s > 0 or len(container.streams) == 1
        if own_s > 0:
            duration_s = own_s
        elif container.duration is not None and container.duration > 0:
            duration_s = container.duration / av.time_base
        else:
            duration_s = stream.frames / self._fps
        known, notes = self._contents, (f"{BREAKS_OFF}{self._broken_end}",) if self._broken_end else ()
        if known is not None and known.packets > 1:
            duration_s, self._own_duration = known.end_s - self._origin, True
            if not known.breaks and much_longer(told_s := header_s(container, own_s), duration_s):
                duration_s = told_s
        if known is not None and (note := known.note()):
            notes = (*notes, note)
        notes = (*notes, *picture_notes(first))
        name = stream.codec_context.codec.canonical_name
        return VideoInfo(
            self._name, width, height, self._fps, duration_s, stream.frames, turn, name, first.format.name, notes,
            pixel_aspect(stream, swapped),
        )  # fmt: skip
