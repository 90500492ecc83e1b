"""A file that breaks off says so where its container can show it, and a whole one never does."""

import av
import numpy as np
import pytest
from test_video_render import render

from vidlet.datasets import inspect_table, read_table
from vidlet.errors import DataError
from vidlet.recipe import Sampling
from vidlet.video import frame_times, iter_frames, opening, probe, read_clip, write_video

SIZE = (48, 96)
RATE = Sampling("rate", hz=25)
# format: the codec and its pixels; raw streams have nothing that tells of their end
FORMATS = {
    "gif": ("gif", "rgb8"),
    "ogv": ("libvpx", "yuv420p"),
    "ts": ("mpeg2video", "yuv420p"),
    "m2ts": ("mpeg2video", "yuv420p"),
    "y4m": ("wrapped_avframe", "yuv420p"),
    "mjpeg": ("mjpeg", "yuvj420p"),
    "avi": ("mjpeg", "yuvj420p"),
    "mkv": ("mpeg4", "yuv420p"),
    "webm": ("libvpx", "yuv420p"),
    "wmv": ("wmv2", "yuv420p"),
    "nut": ("mpeg4", "yuv420p"),
    "mpg": ("mpeg2video", "yuv420p"),
    "ivf": ("libvpx", "yuv420p"),
    "mxf": ("mpeg2video", "yuv420p"),
    "apng": ("apng", "rgb24"),
}


def drawn(number):
    picture = np.full((*SIZE, 3), 40, np.uint8)
    picture[:, number : number + 20] = 220
    return picture


def whole(folder, suffix):
    codec, pixels = FORMATS[suffix]
    path = folder / f"whole.{suffix}"
    if suffix == "y4m":
        header = b"YUV4MPEG2 W96 H48 F25:1 Ip A1:1 C420jpeg\n"
        frames = [av.VideoFrame.from_ndarray(drawn(n), "rgb24").to_ndarray(format="yuv420p") for n in range(30)]
        path.write_bytes(header + b"".join(b"FRAME\n" + frame.tobytes() for frame in frames))
        return path
    try:
        return render(path, 30, codec=codec, pixels=pixels, draw=drawn)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"no {codec} here: {error}")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_cut_file_is_told_and_a_whole_one_is_not(suffix, tmp_path):
    path = whole(tmp_path, suffix)
    data = path.read_bytes()
    clip = read_clip(path, RATE, SIZE)
    assert clip.damage == "" and probe(path).notes == ()
    assert len(clip.frames) == 30
    cut = tmp_path / f"cut.{suffix}"
    for share in (0.75, 0.84, 0.93):
        cut.write_bytes(data[: int(len(data) * share) // 188 * 188 + 101])
        assert read_clip(cut, RATE, SIZE).damage, share
        assert any(note.startswith("it breaks off: ") for note in probe(cut).notes), share


def test_a_matroska_file_that_was_written_as_it_came_tells_a_cut_too(tmp_path):
    """Its segment has no length; its clusters have."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = SIZE
        for number in [*range(30), None]:
            frame = None if number is None else av.VideoFrame.from_ndarray(drawn(number), "rgb24")
            container.mux(stream.encode(frame))
    assert read_clip(path, RATE, SIZE).damage == "" and probe(path).notes == ()
    path.write_bytes(path.read_bytes()[:-200])
    assert read_clip(path, RATE, SIZE).damage.startswith("the file breaks off: ")


def noise(number):
    return np.random.default_rng(number).integers(0, 255, (*SIZE, 3), np.uint8)


def test_a_transport_stream_cut_between_two_of_its_packets_tells_that_a_picture_goes_on(tmp_path):
    path = render(tmp_path / "a.ts", 12, codec="mpeg2video", draw=noise)  # pictures of many packets
    data = path.read_bytes()
    assert read_clip(path, RATE, SIZE).damage == ""
    told = []
    for packets in range(30, len(data) // 188, 3):
        path.write_bytes(data[: packets * 188])
        told.append(bool(read_clip(path, RATE, SIZE).damage))
    assert 0.7 < np.mean(told) < 1  # some of these cuts lie between two pictures


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_last_picture_that_just_fills_its_last_packet_is_whole(codec, tmp_path):
    """These codecs allow zeros behind a picture: they take the place of what fills up the packet."""
    path = render(tmp_path / "a.ts", 12, codec=codec, draw=noise)
    data = path.read_bytes()
    starts = range(0, len(data), 188)
    last = max(at for at in starts if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == 0x100)  # FFmpeg's video
    assert data[last + 3] & 0x20  # it is filled up
    picture = data[last + 5 + data[last + 4] : last + 188]
    full = data[last : last + 3] + bytes([data[last + 3] & 0xDF]) + picture.ljust(184, b"\0")
    path.write_bytes(data[:last] + full)
    assert read_clip(path, RATE, SIZE).damage == "" and probe(path).notes == ()
    path.write_bytes(data[: last - 188])  # the same, with a packet of the picture missing
    assert read_clip(path, RATE, SIZE).damage.startswith("the file breaks off: its last picture goes on")


def test_a_part_before_the_break_is_not_damaged(tmp_path):
    path = whole(tmp_path, "y4m")
    path.write_bytes(path.read_bytes()[:-1000])
    assert read_clip(path, RATE, SIZE, 0.0, 0.5).damage == ""
    assert read_clip(path, RATE, SIZE).damage == "the file breaks off: its last frame has 5,918 of 6,918 bytes"


def test_the_description_of_a_data_set_tells_files_that_break_off(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        whole(tmp_path / name, "gif")
    cut = tmp_path / "a" / "whole.gif"
    cut.write_bytes(cut.read_bytes()[:-700])
    notes = inspect_table(read_table(tmp_path)).notes
    assert "1 clip: it breaks off (first: a/whole.gif: its trailer is missing)." in notes


def test_pictures_that_stand_in_an_avi_are_no_damage(tmp_path):
    """AVI counts moments: a picture that stands for three of them is followed by two empty ones."""
    path = render(tmp_path / "a.avi", 20, codec="mpeg4", stamps=[n * 40 * (1 + (n > 9)) for n in range(20)], draw=drawn)
    assert probe(path).frames > 20
    assert read_clip(path, RATE, SIZE).damage == ""


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12345\n", "a pointer of Git LFS; `git lfs"),
        (b"\n<!DOCTYPE html><title>404</title>", "it is an HTML page"),
        (b"PK\3\4" + bytes(40), "it is a ZIP archive"),
        (bytes(40), "Invalid data found"),
    ],
)
def test_another_kind_of_file_under_the_name_of_a_video_is_told(begin, said, tmp_path):
    (tmp_path / "a.mp4").write_bytes(begin)
    with pytest.raises(DataError, match=f"a.mp4: no frame could be decoded \\(.*{said}"):
        probe(tmp_path / "a.mp4")


def test_packets_that_give_no_picture_are_not_taken_for_whole():
    assert not opening._closed("hevc", [b"\x00\x00\x01\x02 no picture"])


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_transport_stream_of_few_packets_is_a_video(tmp_path, codec, frames):
    path = render(tmp_path / "a.ts", frames, codec=codec, draw=lambda number: np.full((*SIZE, 3), 40, np.uint8))
    assert path.stat().st_size < 16 * 188
    assert len(list(iter_frames(path))) == len(frame_times(path)) == frames


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_times_of_a_cut_file_are_of_the_frames_that_it_gives(tmp_path, suffix, share):
    path, noise = tmp_path / f"a.{suffix}", np.random.default_rng(0)
    write_video(path, [noise.integers(0, 255, (*SIZE, 3), dtype=np.uint8) for _ in range(50)], 25)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    read = [frame.time_s for frame in iter_frames(path)]
    assert 0 < len(read) < 50
    np.testing.assert_allclose(frame_times(path), read, atol=1e-6)
