"""Videos written, drawn on, watched live and read ahead."""

import threading
import time

import av
import numpy as np
import pytest
from test_video_render import gop, number_of, picture, render

from vidlet.errors import DataError
from vidlet.video import (
    LiveSource,
    Strip,
    VideoWriter,
    annotate,
    enlarge,
    is_live,
    iter_frames,
    probe,
    read_many,
    write_video,
)


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "out.mp4"
    write_video(path, (picture(number) for number in range(40)), fps=12.5)
    info = probe(path)
    assert (info.codec, info.pixel_format, info.fps, info.frames) == ("h264", "yuv420p", 12.5, 40)
    frames = list(iter_frames(path))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(40))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(40) / 12.5, atol=1e-6)
    assert [entry.name for entry in path.parent.iterdir()] == ["out.mp4"]


def test_colors_and_odd_sizes_survive_writing(tmp_path):
    color = np.array([200, 40, 90], np.uint8)
    write_video(tmp_path / "odd.mp4", [np.broadcast_to(color, (33, 21, 3))] * 3, fps=29.97)
    rgb = next(iter_frames(tmp_path / "odd.mp4")).rgb()
    assert rgb.shape == (34, 22, 3)
    assert np.abs(rgb.astype(int) - color).max() <= 3


def test_later_pictures_take_the_size_of_the_first(tmp_path):
    with VideoWriter(tmp_path / "sizes.mp4", fps=25) as video:
        video.write(np.zeros((32, 48, 3), np.uint8))
        video.write(np.zeros((10, 10, 3), np.uint8))
    assert [frame.rgb().shape for frame in iter_frames(tmp_path / "sizes.mp4")] == [(32, 48, 3)] * 2


def test_an_error_while_writing_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), VideoWriter(path, fps=25) as video:
        video.write(picture(0))
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_or_without_a_place_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"empty\.mp4: a video needs at least one frame"):
        write_video(tmp_path / "empty.mp4", [], fps=25)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out\.mp4: cannot be written"):
        write_video(tmp_path / "file" / "out.mp4", [picture(0)], fps=25)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("size", [(24, 24), (240, 320), (720, 1280)])
def test_annotation_draws_on_a_copy_where_it_should(size):
    rgb = np.full((*size, 3), 90, np.uint8)
    drawn = annotate(rgb, "waving", 0.93, [("waving", 0.93), ("falling", 0.07)], [(0.5, 0.4, 0.9, 0.8, "hand")])
    assert drawn.shape == rgb.shape
    assert (rgb == 90).all()
    height, width = size
    changed = (drawn != rgb).any(axis=2)
    assert changed[: height // 3, : width // 2].any()
    assert changed[2 * height // 3 :, : width // 3].any()
    assert changed[round(0.8 * (height - 1)), round(0.7 * width)]
    assert not changed[:, round(0.95 * width) :].any() or height < 100


def test_annotation_of_nothing_changes_nothing():
    rgb = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(annotate(rgb, ""), rgb)


def test_the_strip_shows_when_which_label_was_and_where_the_picture_is():
    rgb = np.full((160, 320, 3), 90, np.uint8)
    drawn = annotate(rgb, "", strip=Strip([(0.0, 0.25, 0), (0.5, 0.75, 1)], at=0.9))
    assert (drawn[:150] == rgb[:150]).all()  # nothing but the strip, and the mark that stands over it
    line = drawn[157]
    first, second = line[40], line[200]
    assert not np.array_equal(first, second)
    assert (line[120] == line[260]).all()  # no label there, twice
    assert not np.array_equal(line[120], first)
    assert (line[round(0.9 * 319)] == 255).all()


def test_nothing_is_said_in_gray_and_only_where_no_label_is():
    rgb = np.zeros((320, 320, 3), np.uint8)
    calm = annotate(rgb, "", quiet="nothing")
    assert 150 < calm.max() < 230
    np.testing.assert_array_equal(annotate(rgb, "wave", 0.9, quiet="nothing"), annotate(rgb, "wave", 0.9))


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "\u202egnp.exe", "\x1b[2J", "\u2028", "\0"])
def test_any_name_is_drawn_on_one_line(name):
    """Pillow measures no text of several lines, and draws no half of a pair."""
    rgb = np.full((160, 320, 3), 90, np.uint8)
    written = name.encode("unicode_escape").decode().replace("\\\\", "\\")
    boxes = [(0.5, 0.4, 0.9, 0.8, name)], [(0.5, 0.4, 0.9, 0.8, written)]
    drawn = annotate(rgb, name, 0.9, [(name, 0.9)], boxes[0], quiet=name)
    np.testing.assert_array_equal(drawn, annotate(rgb, written, 0.9, [(written, 0.9)], boxes[1], quiet=written))


@pytest.mark.parametrize(("size", "times"), [((96, 96), 4), ((240, 320), 2), ((320, 200), 2), ((720, 1280), 1)])
def test_a_small_picture_is_enlarged_until_text_on_it_can_be_read(size, times):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    large = enlarge(rgb)
    assert large.shape == (size[0] * times, size[1] * times, 3)
    np.testing.assert_array_equal(large[::times, ::times], rgb)
    np.testing.assert_array_equal(large[times - 1 :: times, times - 1 :: times], rgb)


def test_a_file_played_live_drops_what_nobody_reads(tmp_path):
    path = render(tmp_path / "live.mp4", 20, fps=50, options=gop(10))
    with LiveSource(path) as source:
        seen = [number_of(source.read(2.0).rgb())]
        time.sleep(0.1)
        while (frame := source.read(2.0)) is not None:
            seen.append(number_of(frame.rgb()))
    assert seen == sorted(set(seen))
    assert seen[-1] == 19
    assert len(seen) + source.dropped == 20
    assert source.dropped >= 2
    assert source.ended


def test_reading_live_gives_up_when_the_time_is_over(tmp_path):
    path = render(tmp_path / "slow.mp4", 2, fps=1)
    with LiveSource(str(path)) as source:
        assert source.read(1.0) is not None
        before = time.monotonic()
        assert source.read(0.05) is None
        assert time.monotonic() - before < 0.5
        assert not source.ended


@pytest.mark.parametrize("source", ["97", "absent.mp4", "http://127.0.0.1:9/none"])
def test_a_live_source_that_cannot_be_opened_is_a_named_error(source):
    with pytest.raises(DataError, match=f"{source}: "):
        LiveSource(source)


def test_cameras_and_addresses_are_live_and_files_are_not():
    assert [is_live(source) for source in ("0", "rtsp://host/a", "clip.mp4", "a/0")] == [True, True, False, False]


def test_reading_ahead_keeps_the_order_and_yields_errors():
    def read(job):
        time.sleep(0.01 * (job % 3))
        if job == 4:
            raise DataError("four: broken")
        return job * job

    results = list(read_many(range(10), read, workers=3, ahead=4))
    assert [job for job, _ in results] == list(range(10))
    assert [str(result) for _, result in results] == [str(j * j) if j != 4 else "four: broken" for j in range(10)]
    assert isinstance(results[4][1], DataError)


def test_reading_ahead_is_bounded_and_ends_with_its_consumer():
    begun = []
    stream = read_many(iter(range(1000)), lambda job: begun.append(job) or job, workers=2, ahead=5)
    before = {thread.name for thread in threading.enumerate()}
    assert next(stream) == (0, 0)
    time.sleep(0.05)
    assert len(begun) <= 6
    stream.close()
    assert {thread.name for thread in threading.enumerate()} <= before


def test_a_mistake_of_our_own_is_raised_not_yielded():
    with pytest.raises(ZeroDivisionError):
        list(read_many([1], lambda job: job // 0))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.MKV", "h264"), ("a.mov", "h264"), ("a.webm", "vp9"), ("a", "h264")]
)
def test_a_video_is_what_its_name_says(tmp_path, name, codec):
    write_video(tmp_path / name, (picture(number) for number in range(6)), fps=25)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
        assert ("webm" in container.format.name) == (name in ("a.webm", "a.MKV"))  # matroska,webm
    assert [number_of(frame.rgb()) for frame in iter_frames(tmp_path / name)] == list(range(6))


@pytest.mark.parametrize("name", ["a.avi", "a.gif", "a.txt", "a.mp4.part"])
def test_a_name_that_is_no_video_to_write_is_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(DataError, match=r"a video is written as \.mp4"):
        VideoWriter(tmp_path / name, fps=25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_pictures_keep_their_own_times(tmp_path, name):
    times = [0.0, 0.04, 0.5, 0.501, 1.9, 2.0]
    with VideoWriter(tmp_path / name, fps=25) as video:
        for number, time_s in enumerate(times):
            video.write(picture(number), time_s)
    np.testing.assert_allclose([frame.time_s for frame in iter_frames(tmp_path / name)], times, atol=0.002)
