"""The papers' tables: what is recomputed follows from our networks, and equals what is worked out by hand here."""

import itertools
import json
import math

import pytest

import vidlet
from vidlet.cli import main
from vidlet.cli.papers_command import number_text, tables_text
from vidlet.errors import RecipeError
from vidlet.jobs.papers import papers
from vidlet.models.tiny_yolo import TinyYolo
from vidlet.recipe import recipe_names
from vidlet.reproductions import PAPERS, deepeye, mobile, tt3dcnn
from vidlet.reproductions.mobile_classes import class_reports

COLUMNS = ("printed", "recomputed", "measured")


@pytest.fixture(scope="module")
def found():
    """The tables of every paper."""
    return {name: papers(name)["tables"] for name in PAPERS}


@pytest.fixture(scope="module")
def values(found):
    """(printed, recomputed) of a row: values(paper, start of the table's title, name of the row)."""

    def of(paper: str, title: str, name: str):
        tables = [table for table in found[paper] if table["title"].startswith(title)]
        rows = [row for table in tables for row in table["rows"] if row["name"] == name]
        assert len(rows) == 1, (paper, title, name)
        return rows[0]["printed"], rows[0]["recomputed"]

    return of


# The contract.


@pytest.mark.parametrize("name", PAPERS)
def test_every_table_has_the_contracts_form_and_numbers_are_numbers(found, name):
    assert len({table["title"] for table in found[name]}) == len(found[name])
    for table in found[name]:
        assert set(table) == {"title", "rows"}
        assert len({row["name"] for row in table["rows"]}) == len(table["rows"]) > 0
        for row in table["rows"]:
            assert set(row) == {"name", "unit", *COLUMNS}
            assert row["unit"]
            assert all(type(row[key]) in (int, float, type(None)) for key in COLUMNS)
            assert any(row[key] is not None for key in COLUMNS) or "Inception-v3" in row["name"]


@pytest.mark.parametrize("name", PAPERS)
def test_every_rate_is_a_fraction(found, name):
    rates = {"accuracy", "top-5", "mAP", "GAP@20", "fraction", "precision", "recall", "F1"}
    rows = [row for table in found[name] for row in table["rows"] if row["unit"] in rates]
    assert rows
    assert all(-1 <= row[key] <= 1 for row in rows for key in COLUMNS if row[key] is not None)


def test_json_is_one_object_with_the_same_numbers(capsys, found):
    assert main(["papers", "deepeye", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tables"] == found["deepeye"]
    assert set(told) == {"tables", "measurements"}


def test_the_printed_tables_hold_every_number_in_aligned_columns(found):
    text = tables_text(found["tt3dcnn"])
    for table in found["tt3dcnn"]:
        block = text[text.index(table["title"]) :].split("\n\n\n")[0].splitlines()
        lines = dict(zip([row["name"] for row in table["rows"]], block[4:], strict=True))
        ends = [block[2].index(word) + len(word) for word in COLUMNS]
        for row in table["rows"]:
            line = lines[row["name"]]
            assert line.startswith(row["name"])
            for key, end in zip(COLUMNS, ends, strict=True):
                assert line[:end].endswith(number_text(row[key]) or "–"), line


@pytest.mark.parametrize(
    ("value", "text"),
    [(58_982_400, "58,982,400"), (0.070416, "0.070416"), (18.0, "18"), (17554.3, "17,554.3"), (-0.0058, "-0.0058"),
     (0, "0"), (500, "500"), (100.0, "100"), (None, None)],
)  # fmt: skip
def test_numbers_are_written_whole(value, text):
    assert number_text(value) == text


def test_without_a_name_the_papers_are_listed_with_recipes_that_exist(capsys):
    assert main(["papers"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(PAPERS)
    listed = vidlet.papers()["papers"]
    assert [set(paper) for paper in listed] == [{"name", "title", "recipes"}] * len(PAPERS)
    assert {recipe for paper in listed for recipe in paper["recipes"]} <= set(recipe_names())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deepye"], "RecipeError: no paper 'deepye' (did you mean deepeye?); known: youtube8m, deepeye, tt3dcnn"),
        (["--data", "."], "papers: data is of use with the name of a paper only"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys, words, said):
    assert main(["papers", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_an_unknown_paper_is_a_recipe_error():
    with pytest.raises(RecipeError, match=r"no paper 'tt3dcn' \(did you mean tt3dcnn\?\)"):
        papers("tt3dcn")


def test_the_tables_need_the_train_extra_and_the_list_does_not(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["papers", "mobile"]) == 2
    said = capsys.readouterr().err
    assert "vidlet papers needs torch, onnx" in said
    assert "pip install '.[train]'" in said
    assert main(["papers"]) == 0


# DEEPEYE.


@pytest.mark.parametrize(
    ("name", "weights", "kernel", "inputs", "outputs"),
    [("CONV1", 432, 3, 3, 16), ("CONV2", 4608, 3, 16, 32), ("CONV3", 18_432, 3, 32, 64),
     ("CONVfinal", 128_000, 1, 1024, 125)],
)  # fmt: skip
def test_the_detectors_layers_have_the_printed_weights_and_bytes(values, name, weights, kernel, inputs, outputs):
    count = kernel**2 * inputs * outputs
    assert values("deepeye", "Table 1: the detector layer", f"{name}: weights") == (weights, count) == (weights,) * 2
    printed, ours = values("deepeye", "Table 1: the detector layer", f"{name}: float32")
    assert ours == round(4 * count / 1024, 2) == pytest.approx(printed, abs=0.71)
    printed, ours = values("deepeye", "Table 1: the detector layer", f"{name}: 8 bits")
    assert ours == round(count / 1024, 2) == pytest.approx(printed, abs=0.11)
    assert values("deepeye", "Table 1: the detector layer", f"{name}: channels of the output") == (outputs, outputs)


def test_the_detectors_maps_have_the_printed_sizes(values):
    for halved, name in ((0, "CONV1"), (1, "CONV2"), (2, "CONV3"), (5, "CONVfinal")):
        side = 608 // 2**halved
        assert values("deepeye", "Table 1: the d", f"{name}: height and width of the output") == (side, side)


def test_the_whole_detector_has_the_bytes_that_its_layers_add_up_to(values):
    chain = (3, 16, 32, 64, 128, 256, 512, 1024, 1024)
    weights = sum(9 * a * b for a, b in itertools.pairwise(chain)) + 1024 * 125
    rest = 4 * sum(chain[1:]) + 125
    assert (weights, rest) == (15_855_536, 12_224 + 125)
    assert deepeye.detector_bytes() == (4 * (weights + rest), weights + 4 * rest) == (63_471_540, 15_904_932)
    title = "Table 1: the whole"
    assert values("deepeye", title, "float32") == (63.5, 63.471540)
    assert values("deepeye", title, "8-bit weights, the rest float32") == (15.9, 15.904932)
    assert values("deepeye", title, "ratio (printed: 63.5 / 15.9)") == (3.994, 3.991)
    assert round(63.5 / 15.9, 3) == 3.994
    assert values("deepeye", title, "numbers") == (None, 15_867_885)


def test_the_detectors_with_425_outputs_have_the_recomputed_bytes(values):
    assert round(deepeye.detector_bytes(80)[0] / 1e6, 2) == 64.70
    assert round(deepeye.detector_bytes(80, 512)[0] / 1e6, 2) == 44.95
    assert values("deepeye", "Table 1: the d", "CONVfinal: channels of the output in the text") == (425, 5 * (5 + 80))
    assert TinyYolo(80, width=0.125).out_channels == 425


def test_the_recurrent_mappings_have_the_printed_parameters(values):
    frames = (8 * 16 * 4) + (4 * 20 * 4 * 4) + (4 * 20 * 4 * 4) + (4 * 18 * 4)
    features = (17 * 16 * 4) + (4 * 19 * 4 * 4) + (4 * 19 * 4 * 4) + (4 * 25 * 4)
    plain = 160 * 120 * 3 * 4 * 256
    of = {"plain RNN on frames": plain, "T-RNN on frames": frames, "DEEPEYE": features}
    printed = {"plain RNN on frames": 58_982_400, "T-RNN on frames": 3360, "DEEPEYE": 3920}
    for name, count in of.items():
        assert values("deepeye", "Table 2", f"{name}: input-to-hidden") == (printed[name], count) == (count, count)
    assert values("deepeye", "Table 2", "T-RNN on frames: fewer than plain") == (17_554, round(plain / frames, 1))
    ours = round(plain / features, 1)
    assert values("deepeye", "Table 2", "DEEPEYE: fewer than plain on frames") == (15_047, ours) == (15_047, 15_046.5)


def test_what_the_papers_count_leaves_out_is_there(values):
    hidden, classify, bias = 256 * 1024, 256 * 11 + 11, 1024
    same = 425 * 19 * 19 * 1024
    expected = {
        "DEEPEYE: dense input-to-hidden of the same input": same,
        "DEEPEYE: fewer than that": round(same / 3920, 1),
        "DEEPEYE: hidden-to-hidden, dense": hidden,
        "DEEPEYE: hidden-to-hidden, tensor train (modes ours)": 4 * 16 * 4 + 2 * (4 * 4 * 4 * 4) + 4 * 4 * 4,
        "DEEPEYE: whole classifier, hidden-to-hidden dense": 3920 + hidden + bias + classify,
        "DEEPEYE: whole classifier, both in tensor-train form": 3920 + 832 + bias + classify,
        "T-RNN on frames: dense input-to-hidden of the same input": 58_982_400,
        "T-RNN on frames: whole classifier, hidden-to-hidden dense": 3360 + hidden + bias + classify,
        "T-RNN on frames: whole classifier, both in tensor-train form": 3360 + 832 + bias + classify,
    }
    found = {name: values("deepeye", "Beside", name) for name in expected}
    assert found == {name: (None, count) for name, count in expected.items()}
    assert list(expected.values())[:6] == [157_107_200, 40_078.4, 262_144, 832, 269_915, 8_603]


# The 3-D CNNs.

CONVOLUTIONS = {  # kernel places, channels in, channels out
    "viva-1": [(27, 3, 16), (27, 16, 32), (27, 32, 64)],
    "viva-2": [(125, 3, 8), (75, 8, 32), (45, 32, 128)],
    "viva-3": [(245, 3, 64), (75, 64, 256), (45, 256, 128)],
    "viva-4": [(245, 3, 64), (75, 64, 128), (45, 128, 256), (27, 256, 256)],
    "viva-5": [(245, 3, 64), (75, 64, 128), (45, 128, 256), (27, 256, 384)],
}
LINEAR = {
    "viva-1": (4096, 512, 256, 19),
    "viva-2": (8192, 1536, 512, 19),
    "viva-3": (8192, 1536, 512, 19),
    "viva-4": (16384, 4096, 512, 19),
    "viva-5": (24576, 3125, 1024, 19),
}
TRAINS = {  # (convolutions, whole), as recomputed in the specification
    "viva-1": (15_088, 194_032),
    "viva-2": (14_880, 285_216),
    "viva-3": (132_880, 460_304),
    "viva-4": (228_976, 1_364_080),
    "viva-5": (245_360, 468_116),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_viva_counts_bytes_and_ratios(values, name):
    convolutions = sum(math.prod(layer) for layer in CONVOLUTIONS[name])
    dense = convolutions + sum(a * b for a, b in zip(LINEAR[name], LINEAR[name][1:], strict=False))
    biases = sum(layer[2] for layer in CONVOLUTIONS[name]) + sum(LINEAR[name][1:])
    counts = {"dense": (convolutions, dense), "TT": TRAINS[name]}
    for form, (of_convolutions, whole) in counts.items():
        where = f"{name.upper()} {form}"
        printed, ours = values("tt3dcnn", "Table 2", f"{where}: weights of the convolutions")
        assert ours == of_convolutions / 1e6 == pytest.approx(printed, rel=0.041)
        printed, ours = values("tt3dcnn", "Table 2", f"{where}: weights of the whole")
        assert ours == whole / 1e6 == pytest.approx(printed, rel=0.031)
        everything = whole + biases
        assert values("tt3dcnn", "Table 2", f"{where}: all parameters in float32") == (None, 4 * everything)
        printed, ours = values("tt3dcnn", "Table 2", f"{where}: storage, at 12 bytes a parameter")
        assert ours == round(12 * everything / 2**20, 2) == pytest.approx(printed, rel=0.005)
    printed, ours = values("tt3dcnn", "Table 2", f"{name.upper()}: dense / TT")
    assert ours == round(dense / TRAINS[name][1], 2) == pytest.approx(printed, rel=0.035)


@pytest.mark.parametrize(("classes", "dense", "train"), [(11, 88_172_480, 823_904), (101, 88_356_800, 1_008_224)])
def test_the_counts_and_bytes_of_both_streams(values, classes, dense, train):
    layers = [(245, 3, 32), (75, 32, 64), (75, 64, 64), (27, 64, 128), (27, 128, 512)]
    linear = (12288, 3125, 1024, classes)
    convolutions = 2 * sum(math.prod(layer) for layer in layers)
    assert dense == convolutions + 2 * sum(a * b for a, b in itertools.pairwise(linear))
    rest = 2 * (3 * sum(layer[2] for layer in layers) + sum(linear[1:]))  # a bias, and two numbers of the norm
    for form, of_convolutions, whole in (("dense", convolutions, dense), ("TT", 363_776, train)):
        where = f"UCF{classes} {form}"
        printed, ours = values("tt3dcnn", "Table 3", f"{where}: weights of the convolutions")
        assert ours == of_convolutions / 1e6 == pytest.approx(printed, abs=0.005)
        printed, ours = values("tt3dcnn", "Table 3", f"{where}: weights of the whole")
        assert ours == whole / 1e6 == pytest.approx(printed, abs=0.005)
        printed, ours = values("tt3dcnn", "Table 3", f"{where}: storage, at 12 bytes a parameter")
        assert ours == round(12 * (whole + rest) / 2**20, 2) == pytest.approx(printed, abs=0.38)
    printed, ours = values("tt3dcnn", "Table 3", f"UCF{classes}: dense / TT")
    assert ours == round(dense / train, 2) == pytest.approx(printed, rel=0.005)


def test_the_parts_of_viva_1(values):
    dense, convolutions = 2_303_504, 70_416 - 15_088  # the train of convolutions saves so many
    train = 8 * 4 * 32 + (4 * 4 + 4 * 4 + 4 * 2) * 32 * 32 + 8 * 4 * 32  # of the first fully connected layer
    linear = 4096 * 512 - train
    whole = {"none": dense, "convolutions": dense - convolutions, "fully connected": dense - linear}
    whole["both"] = dense - convolutions - linear
    assert whole["both"] == 194_032
    for text, count in whole.items():
        printed, ours = values("tt3dcnn", "Table 5", f"{text}: weights of the whole")
        assert ours == count / 1e6 == pytest.approx(printed, rel=0.031)
        if text != "none":
            printed, ours = values("tt3dcnn", "Table 5", f"{text}: dense / this")
            assert ours == round(dense / count, 2) == pytest.approx(printed, rel=0.035)


def test_the_rule_gives_rank_16_for_every_convolution_of_the_study(found):
    study = found["tt3dcnn"][0]["rows"]
    assert len(study) == len(tt3dcnn.STUDY)
    assert all(row["recomputed"] == row["printed"] == 16 for row in study)


def test_degenerations_are_the_differences_of_the_printed_accuracies():
    for dense, train, _, lost in tt3dcnn.VIVA.values():
        assert round(dense[0] - train[0], 2) == lost


# The thesis.


def test_the_counts_over_the_classes_are_the_printed_ones(values):
    title = "Over the classes"
    reports = class_reports().values()
    assert len(reports) == 101
    metrics = ["metrics", *(f"metrics {text}" for text in ("higher with Inception-v3", "higher with MobileNetV2"))]
    for name, count in zip([*metrics, "metrics equal"], (303, 157, 109, 37), strict=True):
        assert values("mobile", title, name) == (count, count)
    counts = {text: values("mobile", title, f"classes: {text}") for text in mobile.CLAIMS}
    assert list(counts.values()) == [(count, count) for count in (54, 23, 15, 7)]
    assert values("mobile", title, "test clips") == (3783, 3783)


def test_the_report_is_a_report_f1_lies_between_precision_and_recall():
    for name, report in class_reports().items():
        for precision, recall, f1 in (report.mobilenetv2, report.inceptionv3):
            harmonic = 2 * precision * recall / (precision + recall)
            assert f1 == pytest.approx(harmonic, abs=0.0151), name


def test_means_of_the_classes_are_printed_and_their_recalls_give_another_accuracy(values):
    for extractor in mobile.FEATURES:
        for metric in ("precision", "recall", "F1"):
            printed, ours = values("mobile", "Over", f"{extractor}: mean {metric}")
            assert round(ours, 2) == printed
    right = sum(report.mobilenetv2[1] * report.support for report in class_reports().values())
    expected = (0.7594, round(right / 3783, 4))
    assert values("mobile", "Over", "quantized MobileNetV2: accuracy that the recalls give") == expected
    assert expected[1] == 0.7306  # no rounding of recalls (0.005 at most) bridges that


@pytest.mark.parametrize(("extractor", "size"), mobile.FEATURES.items())
def test_classifiers_have_the_parameters_that_their_layers_add_up_to(extractor, size):
    last = size * 512 + 512 + 2 * 512 + 512 * 101 + 101
    assert mobile.classifier_parameters(extractor, "single frame") == last
    for name, gates in (("GRU", 3), ("LSTM", 4)):
        recurrent = gates * (2 * size * size + 2 * size) + 2 * size  # two biases; the norm behind it
        assert mobile.classifier_parameters(extractor, name) == recurrent + last


def test_mobilenetv2_in_8_bits_has_the_bytes_of_its_numbers():
    channels = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    weights, biases = 27 * 32 + 320 * 1280, 32 + 1280
    for i, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        hidden = inputs * (6 if i else 1)
        weights += (inputs * hidden if i else 0) + 9 * hidden + hidden * outputs
        biases += (hidden if i else 0) + hidden + outputs
    assert mobile.mobilenetv2_size() == (weights + biases, weights + 4 * biases)
    classifier = 1280 * 1001
    full = weights + biases + classifier + 1001
    assert mobile.mobilenetv2_size(1001) == (full, weights + classifier + 4 * (biases + 1001))
    assert round(mobile.mobilenetv2_size(1001)[1] / 2**20, 1) == 3.4  # as the page of the files prints it


def test_sizes_of_both_extractors_and_their_classifiers_add_up(values):
    title = "Sizes of the six"
    numbers, size = mobile.mobilenetv2_size()
    for name in mobile.HEADS:
        own = mobile.classifier_parameters("Inception-v3", name)
        both = values("mobile", title, f"Inception-v3, {name}: extractor and classifier")
        assert both == (None, mobile.inceptionv3_numbers() + own)
        where = f"quantized MobileNetV2, {name}"
        count = mobile.classifier_parameters("quantized MobileNetV2", name)
        assert values("mobile", title, f"{where}: extractor and classifier") == (None, numbers + count)
        expected = (None, round((size + 4 * count) / 1e6, 3))
        assert values("mobile", title, f"{where}: 8-bit extractor and float32 classifier") == expected


def test_nothing_is_computed_on_real_memory():
    assert all(p.is_meta for p in deepeye.classifier("plain").parameters())
