"""Files whose clock breaks: joined recordings and jumps. Numbered frames tell that whole and sought reading agree."""

from fractions import Fraction

import av
import numpy as np
import pytest
from test_video_render import gop, number_of, picture, render

from vidlet.datasets import inspect_table, read_table
from vidlet.errors import DataError
from vidlet.recipe import Sampling
from vidlet.video import clip as clips
from vidlet.video import iter_frames, probe, read_clip

SIZE = (48, 96)


def part(path, first, count, b_frames=2, offset_s=0.0, codec="libx264"):
    """Numbered frames from ``first`` on; their clock begins at ``offset_s``."""
    options = gop(25, b_frames) if codec == "libx264" else {"g": "25", "bf": str(b_frames), "qscale": "3"}
    stamps = [round(1000 * offset_s) + 40 * i for i in range(count)]
    return render(path, count, stamps=stamps, options=options, draw=lambda i: picture(first + i), codec=codec)


def joined(path, *parts):
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    return path


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Files of 500 numbered frames at 25/s whose clock is set back, jumps ten hours, and breaks within a second."""
    folder = tmp_path_factory.mktemp("broken")
    first, again = part(folder / "a.ts", 0, 250), part(folder / "b.ts", 250, 250, b_frames=0)
    later = part(folder / "c.ts", 250, 250, offset_s=36_000)
    few = [part(folder / f"{i}.ts", 20 * i, 20) for i in range(25)]
    return {
        "back": joined(folder / "back.ts", first, again),
        "ahead": joined(folder / "ahead.ts", first, later),
        "often": joined(folder / "often.ts", *few),
    }


@pytest.mark.parametrize("name", ["back", "ahead", "often"])
def test_time_goes_on_where_the_clock_breaks(broken, name):
    frames = list(iter_frames(broken[name]))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(500))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(500) / 25, atol=2e-3)
    assert probe(broken[name]).duration_s == pytest.approx(20.0, abs=0.01)


@pytest.mark.parametrize(
    ("suffix", "every_s"),
    [("mkv", 0.4), ("mkv", 1.0), ("mkv", 4.0), ("mp4", 4.0), ("mov", 1.0), ("ts", 1.0), ("flv", 4.0)],
)
def test_pictures_out_of_order_are_no_break_however_few_a_second(tmp_path, suffix, every_s):
    """Matroska does not tell when its first pictures are decoded, and their order alone goes back by seconds."""
    stamps = [round(1000 * every_s * i) for i in range(20)]
    path = render(tmp_path / f"slides.{suffix}", 20, stamps=stamps, options=gop(25, 3))
    frames = list(iter_frames(path))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) * every_s, atol=2e-3)
    assert not any("clock" in note for note in probe(path).notes)


@pytest.mark.parametrize("name", ["back", "ahead", "often"])
@pytest.mark.parametrize("window", [(1.0, 2.0), (9.6, 10.4), (15.0, 16.0), (19.2, None)])
def test_a_part_behind_a_break_is_the_same_sought_and_read_whole(broken, name, window):
    start, end = window
    numbers = [number_of(frame.rgb()) for frame in iter_frames(broken[name], start, end)]
    assert numbers == list(range(round(25 * start), round(25 * (end or 20.0))))
    uniform = read_clip(broken[name], Sampling("uniform", frames=3), SIZE, start, end)
    count = len(numbers)
    assert [number_of(rgb) for rgb in uniform.frames] == [numbers[(2 * k + 1) * count // 6] for k in range(3)]


@pytest.mark.parametrize("name", ["back", "ahead"])
def test_nothing_is_shown_behind_the_end_on_the_mended_clock(broken, name):
    with pytest.raises(DataError, match="ends before"):
        read_clip(broken[name], Sampling("rate", hz=8.0), SIZE, 25.0)


def test_data_tells_of_a_clock_that_breaks(broken, tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.ts").write_bytes(broken["ahead"].read_bytes())
        part(tmp_path / label / "2.ts", 0, 30)
    report = inspect_table(read_table(tmp_path))
    told = [note for note in report.notes if "clock" in note]
    assert len(told) == 1
    assert "2 clips" in told[0]
    assert "jumps ahead by 35,989.9 s at 10.0 s" in told[0]
    assert report.durations_s is not None
    assert report.durations_s.max == pytest.approx(10.0 + 10.0, abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".h264", "libx264"), (".hevc", "libx265"), (".m2v", "mpeg2video"), (".mjpeg", "mjpeg")]
)
def test_a_raw_stream_can_be_cut_anywhere(tmp_path, suffix, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    options = {"g": "50", "bf": "2", "x265-params": "log-level=none:keyint=50", "qscale": "2"}
    if codec == "mjpeg":
        options = {"qscale": "2"}
    path = render(
        tmp_path / f"raw{suffix}", 500, codec=codec, pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
        options=options,
    )  # fmt: skip
    numbers = [number_of(frame.rgb()) for frame in iter_frames(path, 15.0, 16.0)]
    assert numbers == list(range(375, 400))
    rate = read_clip(path, Sampling("rate", hz=5.0), SIZE, 15.0, 16.0)
    assert [number_of(rgb) for rgb in rate.frames] == [375, 380, 385, 390, 395]
    assert probe(path).duration_s == pytest.approx(20.0, abs=0.05)


def test_a_picture_that_stands_for_a_minute_is_no_break(tmp_path):
    stamps = [0, 40, 80, 60_000, 60_040]
    path = render(tmp_path / "slides.mkv", 5, stamps=stamps, options=gop(2, 0))
    assert [round(1000 * frame.time_s) for frame in iter_frames(path)] == stamps
    assert probe(path).notes == ()


def test_a_clip_that_would_take_all_memory_is_refused_before_it_does(broken, monkeypatch):
    monkeypatch.setattr(clips, "MOST_BYTES", 100 * 3 * SIZE[0] * SIZE[1])
    with pytest.raises(DataError, match=r"ahead\.ts: a clip of 160 frames of 96x48 at 8 Hz .*start_s and end_s"):
        read_clip(broken["ahead"], Sampling("rate", hz=8.0), SIZE)
    assert len(read_clip(broken["ahead"], Sampling("rate", hz=8.0), SIZE, 5.0, 15.0).frames) == 80


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4", ".ts"])
def test_sound_that_is_longer_than_the_picture_is_no_damage(tmp_path, suffix):
    path, web = tmp_path / f"long{suffix}", suffix == ".webm"
    codec, sound = ("libvpx-vp9", "libopus") if web else ("libx264", "aac")
    with av.open(str(path), "w") as container:
        film = container.add_stream(codec, rate=25)
        film.width, film.height, film.pix_fmt = 96, 48, "yuv420p"
        audio = container.add_stream(sound, rate=48_000)
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
        kind, layout = ("flt" if web else "fltp"), "stereo"
        for number in range(8 * 50):
            shape = (1, 2 * 960) if web else (2, 960)
            silence = av.AudioFrame.from_ndarray(np.zeros(shape, np.float32), format=kind, layout=layout)
            silence.sample_rate, silence.pts, silence.time_base = 48_000, 960 * number, Fraction(1, 48_000)
            container.mux(audio.encode(silence))
        container.mux(audio.encode(None))
    assert read_clip(path, Sampling("rate", hz=8.0), SIZE).damage == ""
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_thumbnail_beside_the_video_is_not_the_video(tmp_path, suffix):
    path = tmp_path / f"drone{suffix}"
    with av.open(str(path), "w") as container:
        thumb = container.add_stream("mjpeg", rate=1)
        thumb.width, thumb.height, thumb.pix_fmt = 96, 48, "yuvj420p"
        film = container.add_stream("libx264", rate=25, options=gop(25))
        film.width, film.height, film.pix_fmt = 96, 48, "yuv420p"
        single = av.VideoFrame.from_ndarray(picture(4000), "rgb24").reformat(format="yuvj420p")
        single.pts, single.time_base = 0, Fraction(1)
        container.mux(thumb.encode(single))
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(film.encode(frame))
        container.mux(thumb.encode(None))
        container.mux(film.encode(None))
    assert [number_of(frame.rgb()) for frame in iter_frames(path)] == list(range(50))
    assert probe(path).codec == "h264"


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mpg", "mpeg2video", {"g": "50", "bf": "2"}),  # stamps in one packet of many, FFmpeg guesses the others
        ("a.avi", "libx264", gop(50)),  # no stamps of display at all
        ("a.m1v", "mpeg1video", {"g": "12", "bf": "2"}),
    ],
)
def test_a_frame_has_the_time_of_its_number_read_whole_or_sought(tmp_path, name, codec, options):
    path = render(tmp_path / name, 500, codec=codec, options=options)
    frames = [(frame.time_s, number_of(frame.rgb())) for frame in iter_frames(path)]
    assert frames == [(pytest.approx(number / 25, abs=1e-3), number) for number in range(500)]
    for start_s in (3.011, 7.5, 11.97, 12.0, 15.02, 17.333, 19.0):
        part = [(frame.time_s, number_of(frame.rgb())) for frame in iter_frames(path, start_s, start_s + 0.5)]
        wanted = [number for number in range(500) if start_s <= number / 25 + 1e-6 < start_s + 0.5 - 1e-3]
        assert part == [(pytest.approx(number / 25, abs=1e-3), number) for number in wanted], start_s


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_picture_that_begins_late_is_no_damage_and_lasts_as_long_as_it_does(tmp_path, suffix):
    path = render(tmp_path / f"late{suffix}", 50, stamps=[5000 + 40 * number for number in range(50)], options=gop(25))
    assert read_clip(path, Sampling("rate", hz=8.0), SIZE).damage == ""
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.1)


def fragments(path, first):
    """Four seconds of numbered frames as a header and four fragments of MP4, whose clock begins at zero."""
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream("libx264", rate=25, options=gop(25, 2))
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(picture(first + number), "rgb24").reformat(format="yuv420p", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data, header, found, place = path.read_bytes(), b"", [], 0
    while place < len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        box = data[place : place + length]
        if name == b"moof":
            found.append(box)
        elif name == b"mdat":
            found[-1] += box
        elif name in (b"ftyp", b"moov"):
            header += box
        place += length
    return header, found


@pytest.fixture(scope="module")
def fragmented(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fragments")
    header, one = fragments(folder / "a.mp4", 0)
    other_header, two = fragments(folder / "b.mp4", 100)
    made = {"body": [header, *one, *two], "whole": [header, *one, other_header, *two]}
    for name, parts in made.items():
        (folder / f"{name}.mp4").write_bytes(b"".join(parts))
    swapped = folder / "swapped.mp4"
    swapped.write_bytes(b"".join([header, one[0], one[2], one[1], one[3]]))
    twice = folder / "twice.mp4"
    twice.write_bytes(b"".join([header, *one[:2], *one[1:]]))
    matroska = [part(folder / f"{name}.mkv", first, 100) for name, first in (("a", 0), ("b", 100))]
    return {name: folder / f"{name}.mp4" for name in made} | {
        "swapped": swapped, "twice": twice, "matroska": joined(folder / "joined.mkv", *matroska),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["body", "whole", "matroska"])
def test_recordings_joined_behind_a_table_of_contents_are_one(fragmented, name):
    path = fragmented[name]
    frames = list(iter_frames(path))
    assert [number_of(frame.rgb()) for frame in frames] == list(range(200))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(200) / 25, atol=2e-3)
    info = probe(path)
    assert info.duration_s == pytest.approx(8.0, abs=0.01)
    assert "its clock breaks: it goes back by 4.0 s at 4.0 s" in info.notes[0]
    for start in (1.0, 3.92, 4.12, 7.52):
        frame = next(iter_frames(path, start))
        assert number_of(frame.rgb()) == round(25 * start)
    clip = read_clip(path, Sampling("rate", hz=1.0), SIZE)
    assert [number_of(rgb) for rgb in clip.frames] == list(range(0, 200, 25))


def test_no_fragment_out_of_order_is_lost(fragmented):
    found = sorted(number_of(frame.rgb()) for frame in iter_frames(fragmented["swapped"]))
    assert found == list(range(100))
    assert "its clock breaks" in probe(fragmented["swapped"]).notes[0]


def test_a_fragment_that_stands_twice_takes_its_time_twice(fragmented):
    numbers = [*range(50), *range(25, 100)]
    frames = list(iter_frames(fragmented["twice"]))
    assert [number_of(frame.rgb()) for frame in frames] == numbers
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(125) / 25, atol=2e-3)
    assert "its clock breaks: it goes back by 1.0 s at 2.0 s" in probe(fragmented["twice"]).notes[0]
    assert number_of(next(iter_frames(fragmented["twice"], 3.0)).rgb()) == numbers[75]


@pytest.mark.parametrize("suffix", ["mp4", "flv"])
def test_a_recording_behind_the_end_that_cannot_be_read_is_told(tmp_path, suffix):
    path = joined(tmp_path / f"both.{suffix}", *(part(tmp_path / f"{n}.{suffix}", 50 * n, 50) for n in (0, 1)))
    assert "another recording is joined behind it and is not read" in probe(path).notes[0]
    assert "not read" in read_clip(path, Sampling("rate", hz=5.0), SIZE).damage


def test_an_flv_file_that_is_cut_in_its_last_tag_breaks_off(tmp_path):
    path = part(tmp_path / "a.flv", 0, 50)
    whole = probe(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert not whole.notes
    assert "its last tag is cut" in probe(path).notes[0]
