"""The thesis' experiment: what is trained on given clips, and what is filled in of it."""

import pytest

from vidlet.jobs.papers import papers
from vidlet.reproductions import experiment, mobile
from vidlet.reproductions.experiment import shortened

ACCURACY = {  # a made-up outcome
    "quantized MobileNetV2": (0.70, 0.74, 0.60), "MobileNetV1 0.5/160": (0.62, 0.60, 0.45),
    "MobileNetV1 0.25/128": (0.50, 0.55, 0.30),
}  # fmt: skip


@pytest.fixture
def outcome(monkeypatch):
    """The cases that were asked for; each run's accuracy is that of ``ACCURACY``, LSTM, GRU and single frame."""
    asked = {}

    def run_recipes(cases, data, effort, log):
        asked.update(cases)
        found = {}
        for name in cases:
            extractor, _, classifier = name.rpartition(", ")
            value = ACCURACY[extractor][list(mobile.HEADS).index(classifier)]
            figures = {"top5": value + 0.1, "macro_precision": 0.5, "macro_recall": 0.4, "macro_f1": 0.3}
            found[name] = [{"accuracy": value + shift, "scored": 37, **figures} for shift in (-0.01, 0.01)]
        return found

    monkeypatch.setattr(experiment, "run_recipes", run_recipes)
    return asked


def measured(tables, title: str) -> dict[str, float | None]:
    found = next(table for table in tables if table["title"].startswith(title))
    return {row["name"]: row["measured"] for row in found["rows"]}


def test_the_three_classifiers_are_trained_on_three_extractors(outcome):
    found = papers("mobile", "clips/", epochs=4, seeds=2)
    assert found["measured_on"]["scored"] == 37
    assert len(outcome) == 9
    recipe, changes = outcome["MobileNetV1 0.25/128, LSTM"]
    plan = shortened(recipe, 4, changes)
    assert (plan.extractor.name, plan.extractor.width, plan.extractor.input_size) == ("mobilenetv1", 0.25, (128, 128))
    assert (plan.extractor.cut, plan.extractor.grid, plan.head.name) == ("block12", 0, "lstm")
    assert outcome["quantized MobileNetV2, GRU"] == ("mobilenetv2-gru", {})


def test_what_is_measured_stands_beside_what_is_printed_and_the_claims_are_tried(outcome):
    tables = papers("mobile", "clips/")["tables"]
    combinations = measured(tables, "The six combinations")
    assert combinations["quantized MobileNetV2, GRU: accuracy"] == 0.74
    assert combinations["quantized MobileNetV2, GRU: top-5"] == 0.84
    assert combinations["quantized MobileNetV2, GRU: F1"] == 0.3
    assert all(value is None for name, value in combinations.items() if name.startswith("Inception-v3"))
    claims = measured(tables, "The claims, tried")
    assert claims["quantized MobileNetV2: GRU minus LSTM"] == 0.04
    assert claims["MobileNetV1 0.5/160: GRU minus LSTM"] == -0.02
    assert claims["quantized MobileNetV2 minus MobileNetV1 0.25/128: single frame"] == 0.3
    assert claims["quantized MobileNetV2 minus MobileNetV1 0.25/128: GRU"] == 0.19
    assert "MobileNetV1 0.5/160, LSTM: accuracy on the clips" in claims


def test_the_printed_claims_are_recomputed_from_the_six_accuracies():
    table = next(t for t in papers("mobile")["tables"] if t["title"].startswith("Claims"))
    rows = {row["name"]: (row["printed"], row["recomputed"]) for row in table["rows"]}
    assert rows["Inception-v3 minus quantized MobileNetV2: single frame"] == (0.0544, 0.0544)
    assert rows["Inception-v3 minus quantized MobileNetV2: GRU"] == (0.0367, 0.0367)
    assert rows["quantized MobileNetV2: GRU minus LSTM"] == (None, 0.0164)


def test_the_per_class_report_is_measured_where_the_clips_have_its_classes(outcome):
    """Of all classes of both extractors the counts follow, as they do of the printed report."""
    reports = mobile.class_reports()
    found = {
        f"{extractor}, GRU": {
            name.lower(): [*getattr(report, field), report.support] for name, report in reports.items()
        }
        for extractor, field in ((mobile.STRONG, "mobilenetv2"), (mobile.INCEPTION, "inceptionv3"))
    }
    figures = mobile._by_class(found)
    tables = papers("mobile")["tables"]
    for title in ("Per class, GRU", "Over the classes"):
        rows = next(table for table in tables if table["title"].startswith(title))["rows"]
        own = {row["name"]: row["printed"] if title.startswith("Per") else row["recomputed"] for row in rows}
        assert {name: figures[name] for name in own if name in figures} == {
            name: value for name, value in own.items() if name in figures
        }
        assert len(own.keys() & figures.keys()) == (7 * 101 if title.startswith("Per") else 9)
    few = mobile._by_class({"quantized MobileNetV2, GRU": {"Archery": [0.5, 0.25, 0.333, 4.0], "my own": [1, 1, 1, 9]}})
    assert few == {
        "Archery, MobileNetV2: precision": 0.5,
        "Archery, MobileNetV2: recall": 0.25,
        "Archery, MobileNetV2: F1": 0.333,
        "Archery: test clips": 4,
    }
