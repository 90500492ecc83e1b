"""Numbers of options: what is out of range is one line and exit 2, before anything is read."""

import subprocess
import sys

import pytest

from vidlet.cli import main
from vidlet.errors import RecipeError
from vidlet.jobs.predict import predict


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "m.onnx", "a.mp4", "--threshold", "50"],
        ["predict", "m.onnx", "a.mp4", "--threshold", "nan"],
        ["predict", "m.onnx", "a.mp4", "--min-s", "-3"],
        ["predict", "m.onnx", "a.mp4", "--above", "1.01"],
        ["predict", "m.onnx", "a.mp4", "--threads", "-4"],
        ["benchmark", "m.onnx", "--threads", "0"],
        ["evaluate", "m.onnx", "data", "--threads", "two"],
        ["evaluate", "m.onnx", "data", "--fps", "0"],
        ["train", "data", "--epochs", "0"],
        ["train", "data", "--seed", "-1"],
        ["data", "data", "--workers", "0"],
        ["data", "data", "--fps", "inf"],
        ["segment", "a.mp4", "--hz", "-1"],
        ["benchmark", "m.onnx", "--seconds", "1e400"],
        ["demo", "--clips", "1.5"],
    ],
)
def test_a_number_out_of_range_is_one_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    option = next(word for word in words if word.startswith("--"))
    assert f"argument {option}" in said
    assert "is not a" in said


@pytest.mark.parametrize("options", [{"threshold": 50}, {"threshold": float("nan")}, {"min_s": -3}, {"threads": -4}])
def test_python_refuses_the_same_numbers(options):
    with pytest.raises(RecipeError, match=f"{next(iter(options))} must be"):
        next(predict("absent.onnx", "absent.mp4", **options))


WRONG = [
    "fit DATA --max-size 0",
    "fit DATA --max-latency 8parsecs",
    "fit DATA --max-memory much",
    "fit DATA --time soon",
    "sweep DATA --max-size 1MB lots",
    "sweep DATA --recipe mean maen",
    "train DATA --recipe maen",
]


def test_what_is_written_wrongly_is_told_before_torch_is_loaded(tmp_path):
    code = (
        "import sys; from vidlet.cli import main\n"
        "print([main(line.replace('DATA', sys.argv[1]).split()) for line in sys.argv[2:]], 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(tmp_path), *WRONG]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == f"{[2] * len(WRONG)} False\n", done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith(("fit, ", "sweep, ", "train, "))]  # slow
    assert len(said) == len(WRONG) and all(line.startswith("RecipeError: ") for line in said)


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "DATA", "--max-size", "9" * 400 + "MB"],
        ["fit", "DATA", "--max-size", "nan"],
        ["fit", "DATA", "--max-size=-1MB"],
        ["fit", "DATA", "--max-size", "1.5 MB", "--time", "9" * 400 + "h"],
        ["fit", "DATA", "--max-latency", "9" * 400],
        ["evaluate", "MODEL", "DATA", "--fold", "0/" + "9" * 5000],
        ["evaluate", "MODEL", "DATA", "--fold", "\u00b2/3"],
        ["evaluate", "MODEL", "DATA", "--fold", "3/3"],
    ],
)
def test_a_quantity_out_of_range_is_one_line(words, refused, tiny_run):
    named = {"DATA": tiny_run.clips, "MODEL": tiny_run.model}
    refused(*(named.get(word, word) for word in words))


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "m.onnx", ""],
        ["predict", "", "a.mp4"],
        ["train", ""],
        ["train", ".", "--out", ""],
        ["evaluate", "m.onnx", " "],
        ["ensemble", "a", "", "--max-size", "1MB"],
        ["export", "m.onnx", "--format", "web", "--out", ""],
        ["train", ".", "--teacher", ""],
    ],
)
def test_an_empty_path_is_never_the_current_folder(words, refused):
    refused(*words, said="an empty path")
