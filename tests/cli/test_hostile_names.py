"""A model whose labels and recipe name would command a terminal or a spreadsheet is shown harmlessly."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import artifacts
import vidlet
from vidlet.cli import main
from vidlet.datasets import read_table
from vidlet.video import write_video

LABELS = ["\x1b[2J\x1b]0;owned\x07", "=HYPERLINK(1)\nsecond: line 0.999", "\u202efdp.exe", "caf\udce9"]


@pytest.fixture
def files(tmp_path):
    model = artifacts.save(
        artifacts.classifier(),
        tmp_path / "model.onnx",
        labels=LABELS,
        recipe={"name": "a\x1b[31m\nb"},
        sampling={"rule": "rate", "hz": 8, "median_s": 0.5},
    )
    for number, color in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250)]):
        pictures = [np.broadcast_to(np.array(color, np.uint8), (48, 64, 3))] * 20
        write_video(tmp_path / "clips" / f"{number}.mp4", pictures, 25)
    return model, tmp_path / "clips"


@pytest.mark.parametrize(
    "words", [("predict", "CLIPS"), ("inspect",), ("predict", "CLIPS", "--json"), ("inspect", "--json")]
)
def test_nothing_that_is_printed_commands_the_terminal(files, capfd, words):
    model, clips = files
    command, *rest = words
    assert main([command, str(model), *(str(clips) if word == "CLIPS" else word for word in rest)]) == 0
    out, err = capfd.readouterr()
    for text in (out, err):
        assert not any(ord(c) < 32 and c not in "\n\t\r" for c in text)
        assert not set(text) & set("\u202e\x7f\x9b")
    if "--json" in words:
        found = [json.loads(line) for line in out.splitlines()]
        assert LABELS[0] in (found[0]["scores"] if command == "predict" else found[0]["metadata"]["labels"])
    else:
        assert r"\x1b[2J" in out and not any(line.startswith("second: line") for line in out.splitlines())


def test_no_cell_of_the_csv_is_a_formula(files, tmp_path, capfd):
    model, clips = files
    assert main(["predict", str(model), str(clips), "--csv", str(tmp_path / "o.csv")]) == 0
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8", errors="surrogatepass") as stream:
        cells = [value for row in csv.reader(stream) for value in row]
    assert any("HYPERLINK" in value for value in cells)
    assert not any(value.startswith(("=", "+", "@")) for value in cells)
    capfd.readouterr()


def test_names_of_several_lines_are_drawn_on_a_video(files, tmp_path, capfd):
    model, clips = files
    for number in range(3):
        words = ["predict", str(model), str(clips / f"{number}.mp4"), "--save", str(tmp_path / f"{number}.webm")]
        assert main(words) == 0, capfd.readouterr().err
    capfd.readouterr()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names that are not text need a file system that takes bytes")
def test_names_in_latin_1_go_through_a_whole_training_where_standard_output_is_ascii(motion_clips, tmp_path):
    rows = read_table(motion_clips)
    first = rows.labels[0]
    for number, clip in enumerate(rows):
        label = b"caf\xe9" if clip.label == first else os.fsencode(clip.label)
        folder = tmp_path / "clips" / os.fsdecode(label)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, folder / os.fsdecode(b"M\xf6we \xe2\x98\x83 %d.mp4" % number))
    environment = {
        **os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(Path(vidlet.__file__).parents[1]), "VIDLET_CACHE": "cache",
    }  # fmt: skip
    for words, said in (
        (["data", "clips"], r"caf\udce9"),
        (["train", "clips", "--recipe", "tiny-grid-gru", "--epochs", "1", "--out", "run"], ""),
        (["evaluate", "run", "clips"], r"caf\udce9"),
        (["predict", "run", "clips", "--csv", "said.csv", "--json"], r"M\udcf6we"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "vidlet", *words], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert said in ended.stdout.decode("ascii")
    assert json.loads((tmp_path / "run" / "metrics.json").read_bytes())["skipped"] == []
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    with (tmp_path / "said.csv").open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) >= 1


def test_damaged_exif_of_a_frame_prints_no_warning_of_a_library(run, tmp_path):
    from PIL import Image

    upright = Image.Exif()
    upright[0x0112] = 6
    for label in "ab":
        (tmp_path / "d" / label / "c").mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (40, 24), (90 * number, 9, 9))
            picture.save(tmp_path / "d" / label / "c" / f"{number}.jpg", exif=upright.tobytes()[:20])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        status, _, err = run("data", tmp_path / "d")
    assert (status, err) == (0, "")
    assert not [one for one in told if "PIL" in one.filename]
