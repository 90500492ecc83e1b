"""Console tables and numbers as people read them."""

import math

import pytest

from vidlet.reports import bytes_text, interval_text, ms_text, points_text, rate_text, text_table
from vidlet.reports.text import columns


def test_a_table_puts_numbers_to_the_right_and_text_to_the_left():
    table = text_table([["model.onnx", 0.861, 2893112], ["mean.onnx", None, 12]], ["file", "accuracy", "bytes"])
    assert table.splitlines() == [
        "file        accuracy    bytes",
        "──────────  ────────  ───────",
        "model.onnx     0.861  2893112",
        "mean.onnx          –       12",
    ]


def test_alignment_can_be_said_and_short_rows_are_filled():
    assert text_table([["a", "1 %"], ["bbb"]], ["x", "y"], align="rr").splitlines() == [
        "  x    y",
        "───  ───",
        "  a  1 %",
        "bbb",
    ]


def test_a_table_without_headers_or_rows():
    assert text_table([["a", 1], ["bb", 20]]) == "a    1\nbb  20"
    assert text_table([], ["a", "b"]) == "a  b\n─  ─"
    assert text_table([]) == ""


def test_wide_letters_and_line_breaks_keep_the_columns():
    lines = text_table([["跳ぶ", "x"], ["two\nlines", "y"], ["e\u0301te", "z"]], ["name", "v"]).splitlines()
    assert [columns(line) for line in lines] == [len("two lines  v")] * 5


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (bytes_text(743), "743 B"),
        (bytes_text(12_430), "12.4 kB"),
        (bytes_text(999_499), "999 kB"),
        (bytes_text(999_500), "1.00 MB"),
        (bytes_text(2_893_112), "2.89 MB"),
        (bytes_text(None), "–"),
        (rate_text(0.9318), "93.2 %"),
        (rate_text(math.nan), "–"),
        (interval_text([0.891, 0.964]), "89.1 – 96.4 %"),
        (interval_text([None, None]), "–"),
        (points_text(-0.0042), "−0.4"),
        (points_text(0.0042), "+0.4"),
        (points_text(-0.0001), "0.0"),
        (ms_text(0.481), "0.48 ms"),
        (ms_text(3.31), "3.3 ms"),
        (ms_text(126.2), "126 ms"),
        (ms_text(12_400), "12.4 s"),
        (ms_text(None), "–"),
    ],
)
def test_numbers_read_as_people_write_them(shown, expected):
    assert shown == expected
