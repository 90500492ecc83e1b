"""What comes from outside is shown without control over the terminal, without passwords, and as plain JSON."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidlet.wording import as_json, cell, redact, shown, shown_lines

SECRETS = [
    "rtsp://admin:S3cret@127.0.0.1:1/x",
    "rtsp://admin:S3@cret@127.0.0.1/x",
    "rtsp://S3cret@127.0.0.1/x",
    "rtsp:/admin:S3cret@127.0.0.1/x",
    "rtsp://admin:S3#?cret@127.0.0.1/x",
    "rtsp://10.0.0.1/user=admin_password=S3cret_channel=1_stream=0.sdp",
    "http://10.0.0.1/video.cgi?user=admin&pwd=S3cret",
    "https://host/x?token=S3cret#there",
    "https://host/x?api_key=S3cret'",
    "opening 'http://u:S3cret@h/' failed, then http://u:S3cret@k/",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_password_is_left(text):
    for found in (redact(text), shown(text), json.loads(as_json({"source": text, text: 1}))["source"]):
        assert "S3" not in found and "cret" not in found
        assert "***" in found
    assert "S3" not in as_json({text: [text]})


@pytest.mark.parametrize(
    "text", ["a@b.mp4", "clips/user@home/x.mp4", "http://host/a.mp4", "C:/Users/a@b/x.mp4", "5://x"]
)
def test_what_is_no_login_stays(text):
    assert redact(text) == text


@given(st.text())
def test_shown_text_is_one_line_without_control_characters(text):
    line = shown(text)
    assert len(line.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in line)
    assert not set(line) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u2028\u2029\ufeff")
    line.encode()


def test_names_of_all_scripts_are_shown_as_they_are():
    for name in ("grün", "蓝色", "नमस्ते", "שלום", "👩\u200d🔬", "a b"):
        assert shown(name) == name
    assert shown("a\x1b[31mb\n") == r"a\x1b[31mb\n"
    assert shown_lines("a\tb\nc\x07") == "a\tb\nc\\x07"


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", '=HYPERLINK("x")'])
def test_a_cell_that_would_be_a_formula_is_text(text):
    assert cell(text) == f"'{text}"
    stream = io.StringIO()
    csv.writer(stream).writerow([cell(text)])
    assert not stream.getvalue().lstrip('"').startswith(text[0])


def test_numbers_and_names_stay_as_they_are():
    for value in ("-0.5", "+3", "-1e-05", "a=b", "walk", "", -0.5, None):
        assert cell(value) == value


def test_json_is_json():
    value = {"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": np.array([1.5, np.nan]), 1: True}
    assert json.loads(as_json(value), parse_constant=pytest.fail) == {
        "a": None, "b": [None, 3], "c": [1.5, None], "1": True,
    }  # fmt: skip
