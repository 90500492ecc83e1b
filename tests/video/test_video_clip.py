"""Clips of files and folders: numbered frames tell which ones were read, sought or in sequence."""

import os
import struct

import av
import numpy as np
import pytest
from PIL import Image
from test_video_render import gop, number_of, picture, render

from shared_data import shared
from vidlet.errors import DataError
from vidlet.recipe import Sampling
from vidlet.video import iter_frames, probe, rate_ticks, read_clip, stream_clip, uniform_indices
from vidlet.video.clip import open_reader
from vidlet.video.container import VideoReader
from vidlet.video.unseen import Unseen

SIZE = (48, 96)
FOUR = Sampling("uniform", frames=4)


def numbers(clip) -> list[int]:
    return [number_of(rgb) for rgb in clip.frames]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """600 numbered frames at 25/s, with B-frames: key frames often, seldom, and without an index."""
    folder = tmp_path_factory.mktemp("videos")
    return {
        "often": render(folder / "often.mp4", 600, options=gop(25)),
        "seldom": render(folder / "seldom.mp4", 600, options=gop(250)),
        "matroska": render(folder / "often.mkv", 600, options=gop(25)),
        "transport": render(folder / "often.ts", 600, options=gop(25)),
        "jpegs": render(folder / "jpegs.avi", 600, codec="mjpeg", pixels="yuvj420p"),
        "jpegs in matroska": render(folder / "jpegs.mkv", 600, codec="mjpeg", pixels="yuvj420p"),
        "open": render(folder / "open.mp4", 600, options=gop(25) | {"x264-params": "scenecut=0:open-gop=1"}),
    }


@pytest.fixture(scope="module")
def irregular(tmp_path_factory):
    """Ten frames whose times are 0, 40, 400, 440, ... ms."""
    path = tmp_path_factory.mktemp("irregular") / "irregular.mp4"
    stamps = [400 * (i // 2) + 40 * (i % 2) for i in range(10)]
    return render(path, 10, stamps=stamps, options=gop(5, 0)), stamps


@pytest.fixture
def folder(tmp_path):
    """Twelve numbered images, named without leading zeros, with a foreign and a hidden file among them."""
    path = tmp_path / "frames"
    path.mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(path / f"frame{number}.png")
    (path / "notes.txt").write_text("nothing")
    (path / "._frame0.png").write_bytes(b"nothing")
    return path


def test_a_file_says_what_it_is(videos):
    info = probe(videos["often"])
    assert (info.width, info.height, info.fps, info.frames, info.rotation) == (96, 48, 25.0, 600, 0)
    assert (info.codec, info.pixel_format, info.path) == ("h264", "yuv420p", videos["often"])
    assert info.duration_s == pytest.approx(24.0)


@pytest.mark.parametrize("name", ["often", "seldom", "matroska", "transport", "open"])
def test_all_frames_come_in_order_with_times_from_zero(videos, name):
    frames = list(iter_frames(videos[name]))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(600) / 25, atol=1e-3)
    assert [number_of(frame.rgb()) for frame in frames[::97]] == list(range(600))[::97]


@pytest.mark.parametrize("name", ["often", "seldom", "matroska", "transport", "open"])
def test_a_window_holds_the_frames_between_its_ends(videos, name):
    frames = list(iter_frames(videos[name], start_s=17.0, end_s=17.4))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(425, 435))


def test_times_are_those_of_the_container(irregular):
    path, stamps = irregular
    assert [round(1000 * frame.time_s) for frame in iter_frames(path)] == stamps


def test_rate_shows_the_frame_on_display_at_every_tick(irregular):
    path, stamps = irregular
    clip = read_clip(path, Sampling("rate", hz=10.0), SIZE)
    latest = [max(i for i, ms in enumerate(stamps) if ms <= 1000 * tick + 1e-3) for tick in clip.times_s]
    assert numbers(clip) == latest
    assert numbers(clip)[:5] == [0, 1, 1, 1, 2]
    interval = 1 / probe(path).fps
    np.testing.assert_allclose(clip.times_s, rate_ticks(0.0, stamps[-1] / 1000 + interval, 10.0))


def test_uniform_takes_the_frames_of_the_formula(videos):
    clip = read_clip(videos["often"], Sampling("uniform", frames=7), SIZE)
    assert numbers(clip) == uniform_indices(600, 7).tolist()
    np.testing.assert_allclose(clip.times_s, uniform_indices(600, 7) / 25)
    assert clip.frames.shape == (7, *SIZE, 3)
    assert clip.damage == ""


@pytest.mark.parametrize("name", ["often", "seldom", "matroska", "transport", "open"])
@pytest.mark.parametrize(
    ("sampling", "window"),
    [
        (Sampling("uniform", frames=3), (None, None)),
        (Sampling("uniform", frames=5), (2.0, 23.0)),
        (Sampling("rate", hz=0.3), (None, None)),
        (Sampling("rate", hz=8.0), (15.2, 16.0)),
    ],
    ids=["uniform", "uniform window", "rate", "rate window"],
)
def test_sought_and_sequential_reading_give_the_same_pixels(videos, name, sampling, window, monkeypatch):
    sought = read_clip(videos[name], sampling, SIZE, *window)
    monkeypatch.setattr(VideoReader, "worth_seeking", lambda *_: False)
    monkeypatch.setattr("vidlet.video.clip._seek_is_cheaper", lambda *_: None)
    sequential = read_clip(videos[name], sampling, SIZE, *window)
    np.testing.assert_array_equal(sought.frames, sequential.frames)
    np.testing.assert_allclose(sought.times_s, sequential.times_s)
    start_s, end_s = window[0] or 0.0, window[1] or 24.0
    if sampling.rule == "rate":
        expected = [int(25 * tick + 1e-6) for tick in rate_ticks(start_s, end_s, sampling.hz)]
    else:
        expected = (25 * start_s + uniform_indices(round(25 * (end_s - start_s)), sampling.frames)).tolist()
    assert numbers(sought) == expected


def test_a_long_video_costs_what_its_sampled_frames_cost(videos, monkeypatch):
    decoded = []
    advance = VideoReader._next_decoded
    monkeypatch.setattr(VideoReader, "_next_decoded", lambda self: decoded.append(1) or advance(self))
    clip = read_clip(videos["often"], Sampling("uniform", frames=3), SIZE)
    assert numbers(clip) == [100, 300, 500]
    assert len(decoded) < 150  # of 600


@pytest.mark.parametrize("seconds", [(None, None), (3.0, 9.5)])
def test_a_stream_of_chunks_is_the_clip(videos, seconds):
    start_s, end_s = seconds
    whole = read_clip(videos["often"], Sampling("rate", hz=8.0), (24, 24), start_s, end_s)
    chunks = list(
        stream_clip(videos["often"], Sampling("rate", hz=8.0), (24, 24), chunk=10, start_s=start_s, end_s=end_s)
    )
    assert {len(chunk.frames) for chunk in chunks[:-1]} == {10}
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in chunks]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([chunk.times_s for chunk in chunks]), whole.times_s)


def test_a_stream_of_a_uniform_model_is_its_clip_or_what_a_rate_asks_for(videos):
    chunks = list(stream_clip(videos["often"], FOUR, (24, 24), chunk=3))
    assert [len(chunk.frames) for chunk in chunks] == [3, 1]
    np.testing.assert_array_equal(
        np.concatenate([chunk.frames for chunk in chunks]), read_clip(videos["often"], FOUR, (24, 24)).frames
    )
    asked = sum(len(chunk.frames) for chunk in stream_clip(videos["often"], FOUR, (24, 24), hz=2.0))
    assert asked == 48


def test_a_random_phase_shifts_the_ticks_by_less_than_one_and_the_seed_repeats_it(videos):
    clips = [
        read_clip(videos["often"], Sampling("rate", hz=8.0), (24, 24), rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert 0 <= clips[0].times_s[0] < 1 / 8
    np.testing.assert_array_equal(clips[0].times_s, clips[1].times_s)
    assert clips[0].times_s[0] != clips[2].times_s[0]
    np.testing.assert_allclose(np.diff(clips[0].times_s), 1 / 8)


def test_random_uniform_frames_ascend_and_vary(videos):
    clips = [
        numbers(read_clip(videos["often"], Sampling("uniform", frames=9), SIZE, 0.0, 4.0, rng=np.random.default_rng(s)))
        for s in (1, 2)
    ]
    assert all(clip == sorted(clip) and len(set(clip)) == 9 and clip[-1] < 100 for clip in clips)
    assert clips[0] != clips[1]


def test_a_clip_of_one_frame_is_a_clip(tmp_path):
    path = render(tmp_path / "one.mp4", 1)
    assert numbers(read_clip(path, FOUR, SIZE)) == [0] * 4
    assert numbers(read_clip(path, Sampling("rate", hz=8.0), SIZE)) == [0]
    late = read_clip(path, Sampling("rate", hz=1.0), SIZE, rng=np.random.default_rng(0))
    assert numbers(late) == [0]


def test_a_window_between_two_frames_shows_the_one_on_display(videos):
    clip = read_clip(videos["often"], FOUR, SIZE, 1.01, 1.03)
    assert numbers(clip) == [25] * 4


@pytest.mark.parametrize("sampling", [FOUR, Sampling("rate", hz=8.0)])
def test_a_window_behind_the_end_is_an_error_that_names_the_file(videos, sampling):
    with pytest.raises(DataError, match=r"often\.mp4: nothing is shown at 99 s"):
        read_clip(videos["often"], sampling, SIZE, start_s=99.0)


def test_a_window_that_ends_before_it_starts_is_an_error(videos):
    with pytest.raises(DataError, match="from 3 s to 2 s is empty"):
        read_clip(videos["often"], FOUR, SIZE, 3.0, 2.0)


def test_frames_nobody_wants_are_never_converted(videos, monkeypatch):
    converted = []
    monkeypatch.setattr("vidlet.video.upright.Pictures.upright", lambda *_: converted.append(1) or picture(0))
    read_clip(videos["seldom"], FOUR, SIZE)
    assert len(converted) == 4


def whole(monkeypatch, *args, **kwargs):
    """What ``read_clip`` gives where nothing is left out."""
    with monkeypatch.context() as patch:
        patch.setattr(VideoReader, "only", lambda *_: None)
        return read_clip(*args, **kwargs)


def same(clip, other) -> bool:
    pairs = [(clip.frames, other.frames), (clip.times_s, other.times_s)]
    return clip.damage == other.damage and all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["often", "seldom", "matroska", "open", "transport", "jpegs", "jpegs in matroska"])
@pytest.mark.parametrize(
    "sampling", [Sampling("uniform", frames=60), Sampling("rate", hz=4.0)], ids=["uniform", "rate"]
)
@pytest.mark.parametrize("window", [(None, None), (3.3, 19.0)], ids=["", "window"])
def test_frames_that_nobody_sees_are_left_out_and_the_others_are_the_same(videos, name, sampling, window, monkeypatch):
    left_out = []
    leaves_out = Unseen.leaves_out
    monkeypatch.setattr(VideoReader, "worth_seeking", lambda *_: False)
    monkeypatch.setattr(Unseen, "leaves_out", lambda *args: left_out.append(leaves_out(*args)) or left_out[-1])
    clip = read_clip(videos[name], sampling, SIZE, *window)
    assert same(clip, whole(monkeypatch, videos[name], sampling, SIZE, *window))
    assert (sum(left_out) > 300) == (name != "transport")  # of 600; such files are not trusted to list each frame once


def test_a_picture_that_was_left_out_is_there_when_it_is_asked_for(videos):
    with open_reader(videos["often"]) as reader:
        reader.only(lambda times_s: times_s < 0)
        frames = [frame for frame, _ in zip(iter(reader.next_frame, None), range(20), strict=False)]
        assert [number_of(frame.rgb()) for frame in frames] == list(range(20))


def test_jpegs_that_nobody_sees_are_not_given_to_the_decoder(videos, monkeypatch):
    given = []
    frames_of = VideoReader._frames_of
    monkeypatch.setattr(VideoReader, "worth_seeking", lambda *_: False)
    monkeypatch.setattr(
        VideoReader, "_frames_of", lambda self, packet: given.append(frames := [*frames_of(self, packet)]) or frames
    )
    clip = read_clip(videos["jpegs"], Sampling("rate", hz=1.0), SIZE)
    decoded = [frame for frames in given for frame in frames if isinstance(frame, av.VideoFrame)]
    assert numbers(clip) == list(range(0, 600, 25))
    assert len(decoded) <= len(clip.frames) + 2  # and the first and the last


@pytest.mark.parametrize(
    "sampling", [Sampling("uniform", frames=40), Sampling("rate", hz=5.0)], ids=["uniform", "rate"]
)
def test_of_a_damaged_file_the_same_is_left_whatever_is_left_out(videos, tmp_path, sampling, monkeypatch):
    data = bytearray(videos["often"].read_bytes())
    with open_reader(videos["often"]) as reader:
        entry = reader._stream.index_entries[201]  # behind a key frame: others are predicted from it
        data[entry.pos : entry.pos + entry.size] = b"\xff" * entry.size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    clip = read_clip(path, sampling, SIZE, rng=np.random.default_rng(3))
    assert clip.damage
    assert same(clip, whole(monkeypatch, path, sampling, SIZE, rng=np.random.default_rng(3)))


@pytest.mark.parametrize(
    "name",
    ["egogestar/videos/carret/testvideo_carret_1.mp4", "yoga6/padmasana/144731.mp4", "samples/mmaction2_demo.mp4"],
)
def test_real_clips_are_the_same_to_the_bit_where_frames_are_left_out(name, monkeypatch):
    path = shared("data", *name.split("/"))
    for sampling in (Sampling("uniform", frames=25), Sampling("rate", hz=8.0)):
        assert same(read_clip(path, sampling, SIZE), whole(monkeypatch, path, sampling, SIZE))


def test_a_folder_of_images_is_a_video_in_natural_order(folder):
    assert [number_of(frame.rgb()) for frame in iter_frames(folder)] == list(range(12))
    assert [frame.time_s for frame in iter_frames(folder, fps=4.0)] == [i / 4 for i in range(12)]
    assert numbers(read_clip(folder, FOUR, SIZE)) == [1, 4, 7, 10]
    assert numbers(read_clip(folder, Sampling("rate", hz=2.0), SIZE, fps=4.0)) == [0, 2, 4, 6, 8, 10]
    assert numbers(read_clip(folder, Sampling("rate", hz=1.0), SIZE, 1.0, fps=4.0)) == [4, 8]
    info = probe(folder, fps=4.0)
    assert (info.width, info.height, info.frames, info.duration_s, info.codec) == (96, 48, 12, 3.0, "png")


def test_images_of_any_kind_and_size_become_rgb(tmp_path):
    gray = np.full((20, 30), 100, np.uint8)
    Image.fromarray(gray).save(tmp_path / "1.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "2.png")
    Image.fromarray(np.dstack([gray] * 3 + [gray])).save(tmp_path / "3.png")
    Image.fromarray(gray[:10]).convert("P").save(tmp_path / "4.png")
    clip = read_clip(tmp_path, FOUR, (16, 16))
    assert np.abs(clip.frames.astype(int) - 100).max() <= 1


def test_pictures_of_numbers_without_a_white_are_refused(tmp_path):
    """Pillow would give a picture of shares in [0, 1] as black."""
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "0.tif")
    with pytest.raises(DataError, match=r"0\.tif: an image of floating-point numbers"):
        read_clip(tmp_path, FOUR, (16, 16))


@pytest.mark.parametrize(("most", "told"), [(1023, True), (4095, True), (65535, False), (0, False)])
def test_sixteen_bits_of_which_few_are_used_are_told(tmp_path, most, told):
    ramp = np.linspace(0, most, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "0.png")
    assert any("nearly black" in note for note in probe(tmp_path).notes) == told
    assert not told or f"{most:,} of 65,535" in probe(tmp_path).notes[0]


@pytest.mark.parametrize("suffix", ["webp", "png", "tif"])
def test_several_pictures_in_one_file_are_no_frame(tmp_path, suffix):
    first, *others = (Image.new("RGB", (16, 12), (255, 20 * i, 0)) for i in range(5))
    first.save(tmp_path / f"0.{suffix}", save_all=True, append_images=others)
    with pytest.raises(DataError, match=rf"0\.{suffix}: 5 pictures in one file; a clip is a video, or a folder"):
        read_clip(tmp_path, FOUR, (16, 16))


def test_a_thumbnail_behind_the_picture_is_no_second_frame(tmp_path):
    first, thumbnail = Image.new("RGB", (64, 48), (255, 0, 0)), Image.new("RGB", (16, 12))
    first.save(tmp_path / "0.tif", save_all=True, append_images=[thumbnail])
    np.testing.assert_array_equal(read_clip(tmp_path, FOUR, (16, 16)).frames[0, 8, 8], [255, 0, 0])
    (tmp_path / "0.tif").unlink()
    first.save(tmp_path / "0.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], quality=95)
    assert read_clip(tmp_path, FOUR, (16, 16)).frames[0, 8, 8, 0] > 250


def test_a_broken_image_is_named(folder):
    (folder / "frame4.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"frame4\.png: not a readable image"):
        read_clip(folder, FOUR, SIZE)


@pytest.mark.parametrize(
    ("pixels", "how"),
    [
        ("yuv420p", {"codec": "libx264"}),
        ("yuv420p", {"codec": "libx264", "colorspace": 1, "color_range": 1}),
        ("yuv420p", {"codec": "libx264", "colorspace": 1, "color_range": 2}),
        ("yuvj420p", {"codec": "mjpeg", "color_range": 2}),
        ("yuv420p10le", {"codec": "ffv1", "colorspace": 1, "color_range": 1}),
        ("yuv444p", {"codec": "ffv1"}),
        ("yuva420p", {"codec": "ffv1"}),
        ("bgra", {"codec": "ffv1"}),
    ],
)
@pytest.mark.parametrize("color", [(200, 40, 90), (255, 255, 255), (0, 0, 0)])
def test_colors_survive_every_pixel_format_matrix_and_range(tmp_path, pixels, how, color):
    size = (21, 33) if how["codec"] == "ffv1" else (20, 32)  # the others cannot hold odd sizes
    solid = np.full((*size, 3), color, np.uint8)
    path = render(tmp_path / "solid.mkv", 2, pixels=pixels, draw=lambda _: solid, **how)
    rgb = next(iter_frames(path)).rgb()
    assert rgb.shape == solid.shape
    assert np.abs(rgb.astype(int) - solid).max() <= 5


@pytest.mark.parametrize(
    ("size", "codec", "matrix"),
    [
        ((96, 1280), "libx264", 1),
        ((640, 32), "libx264", 1),
        ((576, 720), "libx264", 5),
        ((96, 1280), "libvpx-vp9", 1),
        ((96, 1280), "rawvideo", 5),  # as cameras give it
    ],
)
def test_colors_without_a_matrix_are_read_as_players_read_them(tmp_path, size, codec, matrix):
    solid = np.full((*size, 3), (200, 40, 90), np.uint8)
    with av.open(str(tmp_path / "solid.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame.from_ndarray(solid, "rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
        frame.colorspace = 2
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(str(tmp_path / "solid.mkv")) as container:
        assert next(container.decode(video=0)).colorspace == 2  # nothing is said
    assert np.abs(next(iter_frames(tmp_path / "solid.mkv")).rgb().astype(int) - solid).max() <= 5


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_told(tmp_path, curve, name):
    with av.open(str(tmp_path / "hdr.mp4"), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, curve
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24").reformat(format="yuv420p10le")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert f"HDR ({name})" in probe(tmp_path / "hdr.mp4").notes[0]


def test_interlaced_pictures_are_told(tmp_path):
    options = gop(25) | {"x264-params": "interlaced=1"}
    path = render(tmp_path / "fields.mp4", 3, options=options, draw=lambda i: picture(i, 64))
    assert "interlaced" in probe(path).notes[0]


def test_a_file_that_declares_minutes_gives_frames_of_the_seconds_that_it_has(tmp_path):
    path = render(tmp_path / "long.mkv", 100, options=gop(25))
    data = bytearray(path.read_bytes())
    at = data.find(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 400_000.0)  # milliseconds
    path.write_bytes(bytes(data).replace(b"DURATION", b"TITLENOT"))
    clip = read_clip(path, FOUR, SIZE)
    assert numbers(clip) == [12, 37, 62, 87]
    assert "declared seconds" in clip.damage


def test_gray_video_is_gray(tmp_path):
    path = render(
        tmp_path / "gray.mkv", 1, codec="ffv1", pixels="gray10le", draw=lambda _: np.full((20, 30, 3), 77, np.uint8)
    )
    assert np.abs(next(iter_frames(path)).rgb().astype(int) - 77).max() <= 2


def test_what_cannot_be_a_video_is_a_named_error(tmp_path, folder):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.txt").write_text("no video\n" * 100)
    (tmp_path / "nothing").mkdir()
    for name, reason in {
        "absent.mp4": "no such file",
        "fifo.mp4": "not a regular file",
        "empty.mp4": "the file is empty",
        "nothing": "a folder without images",
        "text.txt": "not a video|could be decoded",
        "frames/frame0.png": "not a video, but",
    }.items():
        for read in (probe, lambda path: read_clip(path, FOUR, SIZE), lambda path: next(iter_frames(path))):
            with pytest.raises(DataError, match=rf"{name}: .*({reason})") as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_named_error(videos, tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes(videos["often"].read_bytes())
    path.chmod(0)
    with pytest.raises(DataError, match=r"secret\.mp4: permission denied"):
        probe(path)


def test_a_file_cut_off_before_its_index_says_so(videos, tmp_path):
    path, whole = tmp_path / "cut.mp4", videos["often"].read_bytes()
    for length, reason in ((20_000, "moov atom not found"), (len(whole) - 2_000, "cut off in its moov atom")):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"cut\.mp4: no frame could be decoded \(.*{reason}"):
            probe(path)


def test_a_download_that_broke_off_is_never_silently_short(videos, tmp_path):
    source, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    with av.open(str(videos["often"])) as old, av.open(str(source), "w", options={"movflags": "+faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    counted, timed = "of 600 declared frames decoded", "of 24.00 declared seconds"
    for whole, reason in ((source, counted), (videos["matroska"], timed)):
        cut = path.with_suffix(whole.suffix)
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
        clip = read_clip(cut, Sampling("rate", hz=5.0), SIZE)
        assert 40 < len(clip.frames) < 80
        assert numbers(clip) == [5 * k for k in range(len(clip.frames))]
        assert reason in clip.damage
        uniform = read_clip(cut, Sampling("uniform", frames=40), SIZE)
        assert numbers(uniform) == sorted(numbers(uniform))
        assert reason in uniform.damage
        sought = read_clip(cut, Sampling("uniform", frames=3), SIZE)
        assert timed in sought.damage or counted in sought.damage
    assert read_clip(videos["matroska"], FOUR, SIZE).damage == ""


def test_a_cut_file_whose_header_tells_its_length_is_told(tmp_path):
    path = tmp_path / "whole.flv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(100):
            picture = np.full((48, 64, 3), 2 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    assert read_clip(path, Sampling("rate", hz=5.0), SIZE).damage == ""
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.05)
    cut = tmp_path / "cut.flv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = read_clip(cut, Sampling("rate", hz=5.0), SIZE)
    assert 5 < len(clip.frames) < 15 and "declared seconds" in clip.damage


def test_a_damaged_spot_ends_a_clip_and_is_skipped_by_a_stream(videos, tmp_path):
    data = bytearray(videos["often"].read_bytes())
    with open_reader(videos["often"]) as reader:
        entry = reader._stream.index_entries[200]
        data[entry.pos : entry.pos + entry.size] = b"\xff" * entry.size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    clip = read_clip(path, Sampling("rate", hz=25.0), SIZE)
    assert 190 <= len(clip.frames) <= 200
    assert numbers(clip) == list(range(len(clip.frames)))
    assert clip.damage.startswith(f"{len(clip.frames)} of 600 declared frames decoded, then: ")
    uniform = read_clip(path, Sampling("uniform", frames=40), SIZE)
    assert numbers(uniform) == uniform_indices(len(clip.frames), 40).tolist()
    chunks = list(stream_clip(path, Sampling("rate", hz=25.0), SIZE, resume=True))
    seen = [number for chunk in chunks for number in numbers(chunk)]
    assert len(seen) == 600
    assert seen[225:] == list(range(225, 600))
    assert seen[: len(clip.frames)] == numbers(clip)
    assert set(seen[len(clip.frames) : 225]) == {len(clip.frames) - 1}
    assert "damaged packets skipped" in chunks[-1].damage
