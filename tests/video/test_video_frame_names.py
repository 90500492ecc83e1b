"""Folders of frames: which images are the clip, in which order, at which rate, and what is told of it."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from test_video_render import number_of, picture

from vidlet.datasets import AtRate, inspect_table, read_table
from vidlet.errors import DataError
from vidlet.recipe import Sampling
from vidlet.video import iter_frames, probe, read_clip
from vidlet.video.folder import load_image


def folder(path, names):
    """Images that show the numbers 0, 1, ... in the order of the names."""
    path.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number)).save(path / name)
    return path


def shown(path):
    return [number_of(frame.rgb()) for frame in iter_frames(path)]


@pytest.mark.parametrize(
    "names",
    [
        [
            "0.png",
            "0.04.png",
            "0.08.png",
            "0.12.png",
            "0.16.png",
            "0.2.png",
            "0.24.png",
            "0.3.png",
            "1.png",
            "10.5.png",
        ],
        ["t1e-05.png", "t0.5.png", "t1.25.png", "t12.png"],
        ["f-10.png", "f-9.png", "f-1.png", "f0.png", "f1.png", "f11.png"],
        ["clip-1.png", "clip-2.png", "clip-10.png", "clip-11.png"],
        ["v1.1.png", "v1.2.png", "v1.9.png", "v1.10.png", "v1.11.png"],
        ["1403636579763555584.png", "1403636579813555456.png", "1403636580013555456.png"],
        ["a1_2.png", "a1_10.png", "a2_1.png"],
        ["2020-01-02_10-00-01.png", "2020-01-02_10-00-59.png", "2020-01-02_10-01-00.png"],
    ],
)
def test_frames_are_ordered_by_what_their_numbers_mean(tmp_path, names):
    assert shown(folder(tmp_path / "clip", names)) == list(range(len(names)))


def test_times_as_names_tell_the_rate(tmp_path):
    info = probe(folder(tmp_path / "clip", [f"{k / 8:g}.png" for k in range(16)]))
    assert (info.fps, info.duration_s) == (8.0, 2.0)
    assert "8 frames/s is taken from them" in info.notes[0]


@pytest.mark.parametrize(
    ("kinds", "read"),
    [
        (["flow_x_{:05d}.png", "flow_y_{:05d}.png", "img_{:05d}.png"], 2),
        (["{:04d}_depth.png", "{:04d}_rgb.png"], 1),
        (["{:04d}.jpg", "{:04d}_mask.png"], 0),
        (["Depth{}.png", "Color{}.png"], 1),
        (["x_{:04d}.jpg", "y_{:04d}.jpg", "image_{:04d}.jpg"], 2),
    ],
)
def test_of_several_views_of_the_same_moments_the_pictures_are_the_clip(tmp_path, kinds, read):
    path = folder(tmp_path / "clip", [kind.format(k) for kind in kinds for k in range(1, 9)])
    assert shown(path) == list(range(8 * read, 8 * read + 8))
    note = probe(path).notes[0]
    assert "names of several kinds" in note
    assert "only" in note


def test_one_kind_of_names_behind_another_is_read_whole_and_told(tmp_path):
    path = folder(tmp_path / "clip", [*(f"a_{k}.png" for k in range(3)), *(f"b_{k}.png" for k in range(10, 13))])
    assert shown(path) == list(range(6))
    assert "all are read" in probe(path).notes[0]


@pytest.mark.parametrize("digits", [2, 8, 32])
def test_of_frames_that_are_named_in_hexadecimal_none_is_left_out(tmp_path, digits):
    names = [hashlib.sha256(bytes([k])).hexdigest()[: digits - 2] + f"{k * 37 % 256:02x}" for k in range(24)]
    path = folder(tmp_path / "clip", [f"{name}.png" for name in names])
    assert sorted(shown(path)) == list(range(24))
    assert "all are read, in the order of their names" in probe(path).notes[0]


@pytest.mark.parametrize(
    ("beside", "left_out"),
    [
        (["thumb.jpg", "folder.jpg", "AlbumArtSmall.jpg"], True),
        ([f"depth_{k:05d}.png" for k in range(1, 30, 3)], True),
        (["last.png"], False),
    ],
)
def test_covers_and_views_of_other_moments_are_no_frames(tmp_path, beside, left_out):
    path = folder(tmp_path / "clip", [*(f"rgb_{k:05d}.png" for k in range(0, 30, 3)), *beside])
    assert len(shown(path)) == 10 + (0 if left_out else len(beside))
    note = probe(path).notes[0]
    assert ("they are left out" in note) == left_out


def test_times_of_a_clock_are_times_whatever_their_digits(tmp_path):
    path = folder(
        tmp_path / "clip", [f"{1599999999.9 + k / 10:.2f}".rstrip("0") + "0" * (k == 1) + ".png" for k in range(8)]
    )
    assert shown(path) == list(range(8))
    assert probe(path).fps == 10.0


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".ppm", ".jfif", ".JPE"])
def test_pictures_of_other_programs_are_frames(tmp_path, suffix):
    path = tmp_path / "clip"
    path.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(path / f"{number}{suffix}", "JPEG" if "J" in suffix.upper() else None)
    assert shown(path) == [0, 1, 2]


def test_gaps_and_sizes_are_told_by_data_and_regular_steps_are_no_gaps(tmp_path):
    folder(tmp_path / "a" / "gap", [f"{k:03d}.png" for k in (1, 2, 3, 7, 8, 9)])
    folder(tmp_path / "a" / "steps", [f"{k:03d}.png" for k in range(0, 50, 5)])
    mixed = folder(tmp_path / "b" / "mixed", [f"{k}.png" for k in range(4)])
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(mixed / "2.png")
    folder(tmp_path / "b" / "plain", [f"{k}.png" for k in range(4)])
    notes = [note for note in inspect_table(read_table(tmp_path)).notes if "its frames" in note]
    assert notes == [
        "1 clip: its frames have gaps (first: a/gap: 3 numbers are missing, the first behind 003.png).",
        "1 clip: its frames are of several sizes (first: b/mixed: 96x48 (3), 30x20 (1), the first other one 2.png).",
    ]


def test_the_rate_of_frames_is_told_by_the_table_or_with_the_data(tmp_path):
    for label in ("a", "b"):
        for clip in ("1", "2"):
            folder(tmp_path / label / clip, [f"{k}.png" for k in range(24)])
    told = read_table(AtRate(str(tmp_path), 12))
    report = inspect_table(told)
    assert report.durations_s is not None
    assert (report.durations_s.median, report.fps) == (2.0, {"12": 4})
    assert any("12 frames/s" in note for note in report.notes)
    (tmp_path / "clips.csv").write_text("path,label,fps\na/1,a,12\na/2,a,\nb/1,b,6\nb/2,b,\n")
    table = read_table(AtRate(str(tmp_path), 24))
    assert [clip.fps for clip in table] == [12.0, 24.0, 6.0, 24.0]
    assert table.sha256() != read_table(tmp_path).sha256()
    clip = table.clips[0]
    ticks = read_clip(clip.path, Sampling("rate", hz=4.0), (48, 96), 0.5, fps=clip.fps)
    assert [number_of(rgb) for rgb in ticks.frames] == [6, 9, 12, 15, 18, 21]


@pytest.mark.parametrize("fps", ["0", "-1", "inf", "twelve", "1e9"])
def test_an_impossible_rate_is_refused(tmp_path, fps):
    folder(tmp_path / "1", ["1.png"])
    (tmp_path / "clips.csv").write_text(f"path,label,fps\n1,a,{fps}\n")
    with pytest.raises(DataError, match=r"clips\.csv line 2: fps"):
        read_table(tmp_path)


def test_no_byte_of_exif_ends_more_than_its_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010F] = 6, 72.0, "Acme"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    rng = np.random.default_rng(0)
    path = tmp_path / "1.jpg"
    Image.fromarray(rng.integers(0, 255, (16, 24, 3), np.uint8)).save(path, exif=exif)
    assert load_image(path).shape == (24, 16, 3)
    data = path.read_bytes()
    begin = data.find(b"Exif\0\0") + 6
    length = int.from_bytes(data[begin - 8 : begin - 6], "big") - 8
    for _ in range(300):
        changed = bytearray(data)
        for place in rng.integers(begin, begin + length, int(rng.integers(1, 6))):
            changed[place] = int(rng.choice([0, 1, 255, int(rng.integers(256))]))
        path.write_bytes(changed)
        try:
            assert load_image(path).shape in ((24, 16, 3), (16, 24, 3))
            probe(tmp_path)
        except DataError as error:
            assert "1.jpg: not a readable image" in str(error)


@pytest.mark.parametrize("ticks", [10**3, 10**6, 10**9])
def test_whole_numbers_that_are_times_since_1970_tell_the_rate(tmp_path, ticks):
    names = [f"{1_700_000_000 * ticks + number * ticks // 20}.png" for number in range(6)]
    path = folder(tmp_path / "clip", names)
    assert probe(path).fps == 20.0 and shown(path) == list(range(6))
    assert any("20 frames/s" in note for note in probe(path).notes)
    assert probe(folder(tmp_path / "other", [f"{10**12 * 3 + number}.png" for number in range(6)])).fps == 25.0
