"""The report as a file: well-formed, self-contained, escaped, and whole whatever parts it is given."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from PIL import Image

from report_case import made_up_report
from vidlet.errors import DataError
from vidlet.metrics import classification_summary, reliability
from vidlet.reports import (
    Cell,
    Column,
    FileRow,
    Html,
    Report,
    Section,
    Series,
    element,
    heat_map,
    line_chart,
    moving_picture,
    python_client,
    reliability_chart,
    report_html,
    stacked_bar,
    table,
    write_report,
)
from vidlet.reports.charts import ticks
from vidlet.reports.heat import confused_pairs, shown_classes
from vidlet.reports.page import insert_section
from vidlet.reports.sections import origin
from vidlet.tasks.clip_report import write_doubts

VOID = {"meta", "link", "img", "input", "br", "source", "wbr"}


class Balance(HTMLParser):
    """Follows a page and fails where an element is not closed in order; collects what it refers to."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._look(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self._look(attributes)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def _look(self, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), "an attribute stands twice"
        assert "style" not in names, "the page's policy forbids style attributes"
        assert not [name for name in names if name.startswith("on")], "the page's policy forbids handlers"
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href", "srcset", "xlink:href") if name in values]
        self.ids += [values["id"]] if "id" in values else []


def parsed(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids)), "an id stands twice"
    return parser


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(made_up_report())


def test_the_whole_page_is_well_formed_and_has_every_section(page):
    assert parsed(page).headings == [
        "Files compared", "Run it", "Learning curves", "Confusion matrix", "Classes", "Calibration",
        "Worst mistakes", "Inside the model", "Data", "Provenance",
    ]  # fmt: skip


def test_the_page_refers_to_nothing_outside_itself(page):
    seen = parsed(page)
    assert {"nav", "main", "header", "footer"} <= set(seen.tags)
    outside = [r for r in seen.references if not r.startswith(("data:", "#"))]
    assert outside == []
    assert {r[1:] for r in seen.references if r.startswith("#")} <= set(seen.ids)
    assert re.findall(r"https?://|url\(|@import", page) == []


def test_the_page_is_small(page):
    assert len(page) < 400_000  # eight moving pictures included


def test_the_same_report_gives_the_same_file(tmp_path, page):
    write_report(tmp_path / "deep" / "report.html", made_up_report())
    assert (tmp_path / "deep" / "report.html").read_text("utf-8") == page
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_everything_a_user_names_is_escaped():
    evil = '<script>alert("x")</script>'
    names = (evil, "a'b\"c&d", "</td></table>")
    report = made_up_report(names, clips=40)
    facts = {
        "title": evil, "summary": evil, "product": evil, "split": evil, "machine": evil, "client": evil,
        "recipe_toml": evil, "provenance": {evil: evil}, "extra": [Section(evil, element("p", evil), evil)],
        "data": dataclasses.replace(report.data, warnings=[evil], skipped=[{"path": evil, "error": evil}]),
        "mistakes": [dataclasses.replace(m, name=evil) for m in report.mistakes],
        "files": [dataclasses.replace(f, name=f"{i}{evil}", kind=evil) for i, f in enumerate(report.files)],
        "parts": [dataclasses.replace(p, name=evil, storage=evil) for p in report.parts],
        "commands": [dataclasses.replace(c, title=evil, text=evil) for c in report.commands],
    }  # fmt: skip
    page = report_html(dataclasses.replace(report, **facts))
    assert parsed(page).tags.count("script") == 1
    assert evil not in page
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in page


def test_a_report_of_nothing_is_a_page_with_a_title():
    seen = parsed(report_html(Report(title="empty")))
    assert seen.headings == []
    assert "nav" not in seen.tags


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Report) if f.name != "title"])
def test_any_part_can_be_missing(field):
    full = made_up_report(("a", "b", "c"), clips=20)
    empty = getattr(Report(title=""), field)
    assert parsed(report_html(dataclasses.replace(full, **{field: empty}))).headings


@pytest.mark.parametrize("classes", [1, 2, 90])
def test_any_number_of_classes_is_shown(classes):
    page = report_html(made_up_report(tuple(f"class {i}" for i in range(classes)), clips=200))
    parsed(page)
    assert ("40 of 90 classes" in page) == (classes == 90)


def test_no_clips_give_a_page_without_figures():
    nothing = np.zeros((0, 2)), np.zeros(0, int)
    summary = classification_summary(*nothing, [], ["a", "b"])
    row = FileRow("model.onnx", accuracy=summary["accuracy"], interval=summary["accuracy_interval"])
    page = report_html(Report(title="none", metrics=summary, files=[row], reliability=reliability(*nothing)))
    assert parsed(page).headings == ["Files compared"]
    assert "nan" not in re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S).lower()


def test_what_a_page_is_about_stands_first_and_what_files_are_compared_with_behind_them():
    about, beside = Section("The choice", element("p", "a")), Section("Beside others", element("p", "b"))
    report = dataclasses.replace(made_up_report(), first=[about], beside=[beside])
    assert parsed(report_html(report)).headings[:4] == ["The choice", "Files compared", "Beside others", "Run it"]


def test_a_section_is_put_into_a_page_that_is_there_and_its_links_know_it(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, made_up_report())
    insert_section(path, Section("The lesson", element("p", "order")), before="files-compared")
    seen = parsed(path.read_text("utf-8"))
    assert seen.headings[:2] == ["The lesson", "Files compared"]
    assert seen.references.index("#the-lesson") == seen.references.index("#files-compared") - 1


def test_who_and_when_is_seen_and_the_rest_is_folded():
    html = origin({"command": "vidlet train", "made": "today", "graph": "sha256 0"}, "name = 1")
    parsed(html)
    shown = html[: html.index("<details")]
    assert "vidlet train" in shown
    assert "today" in shown
    assert "sha256" not in shown
    assert html.count("<summary>") == 2


def test_elements_compose_and_escape():
    assert element("td", 3, class_="num", data_v=3) == '<td class="num" data-v="3">3</td>'
    assert element("p", "a < b", Html("<b>c</b>"), None) == "<p>a &lt; b<b>c</b>–</p>"
    assert element("input", type="checkbox", checked=True, hidden=False) == '<input type="checkbox" checked/>'
    assert Section("Précision & recall (2)", Html()).anchor == "pr-cision-recall-2"


def test_a_table_names_its_rows_and_sorts_by_numbers():
    html = table([Column("Class"), Column("F1", "number")], [["run", Cell("91 %", 0.91)]], "scores", sortable=True)
    assert '<th scope="row">run</th><td class="num" data-v="0.91">91 %</td>' in html
    assert "<caption" in html
    assert "data-sortable" in html


@pytest.mark.parametrize("bounds", [(0, 1), (0, 2.37), (1, 40), (-3e-4, 7e-4), (5, 5), (0, 0), (1e6, 3e7)])
def test_ticks_are_round_enclose_the_data_and_are_few(bounds):
    values = ticks(*bounds)
    assert values[0] <= bounds[0]
    assert values[-1] >= bounds[1]
    assert 2 <= len(values) <= 8
    steps = np.diff(values)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_a_line_chart_leaves_gaps_and_draws_one_point():
    chart = line_chart([Series("val", [1, 2, 3, 4], [1.0, float("nan"), 2.0, 1.5])], "Loss", "epoch")
    parsed(chart)
    assert chart.count("<polyline") == 2
    assert "val, epoch 3: 2" in chart
    parsed(line_chart([Series("one", [1], [0.5])], "Loss", "epoch"))
    parsed(line_chart([], "Loss", "epoch"))
    assert "nan" not in chart.lower()


def test_learning_curves_survive_what_stands_in_a_log():
    rows = [{"epoch": "1", "train_loss": "0.5", "val_loss": ""}, {"epoch": "2", "train_loss": "inf", "val_loss": None}]
    seen = parsed(report_html(Report(title="x", log=rows)))
    assert seen.headings == ["Learning curves"]
    assert parsed(report_html(Report(title="x", log=[{"epoch": 1, "lr": 0.1}]))).headings == []


def test_a_confusion_matrix_shows_counts_and_shares():
    html = heat_map([[3, 1], [0, 2]], ["run", "jump"])
    parsed(html)
    assert 'title="run → jump: 1 of 4 (25 %)"' in html
    assert '<span class="share">75</span><span class="raw">3</span>' in html
    assert confused_pairs([[3, 1, 2], [0, 2, 0], [2, 0, 0]]) == [(0, 2, 2), (2, 0, 2), (0, 1, 1)]
    assert shown_classes([[9, 0, 0], [0, 5, 1], [0, 4, 1]], most=2) == [1, 2]


def test_charts_of_bins_and_parts_are_well_formed():
    parsed(reliability_chart([0.0, 0.9], [0.0, 0.8], [0, 10]))
    parsed(reliability_chart([], [], []))
    parsed(stacked_bar([("a", 3.0), ("b", 1.0)], "Bytes"))
    parsed(stacked_bar([("a", 0.0)], "Bytes"))


def test_a_moving_picture_keeps_its_pace_and_its_shape():
    frames = np.zeros((60, 240, 480, 3), np.uint8)
    frames[np.arange(60), :, np.arange(60) * 8] = 255
    html = moving_picture(frames, 'a "clip"', fps=10, max_side=96, max_frames=20)
    parsed(html)
    still, moving = (base64.b64decode(data) for data in re.findall(r'base64,([^"]+)"', html))
    image = Image.open(io.BytesIO(moving))
    assert image.size == (96, 48)
    assert image.n_frames == 20
    image.load()
    assert image.info["duration"] * image.n_frames == pytest.approx(6000)  # 60 frames at 10 a second
    assert Image.open(io.BytesIO(still)).n_frames == 1
    assert len(still) < len(moving) < 60_000


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 3, 500, 3), (5, 7, 5, 3)])
def test_odd_shapes_move_too(shape):
    parsed(moving_picture(np.full(shape, 128, np.uint8), "odd"))


def test_what_is_no_clip_is_named():
    with pytest.raises(DataError, match=r"a\.mp4: a moving picture needs uint8"):
        moving_picture(np.zeros((0, 4, 4, 3), np.uint8), "a.mp4")
    with pytest.raises(DataError, match="needs uint8"):
        moving_picture(np.zeros((2, 4, 4, 3), np.float32), "a.mp4")


def test_the_printed_client_runs_on_a_model_of_the_contract(tmp_path, capsys):
    """A model that averages brightness over frames, with one state; the client knows nothing of it."""
    make, proto = onnx.helper, onnx.TensorProto
    graph = make.make_graph(
        [
            make.make_node("Cast", ["frames"], ["floats"], to=proto.FLOAT),
            make.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
            make.make_node("Add", ["state.sum", "mean"], ["next_state.sum"]),
            make.make_node("Softmax", ["next_state.sum"], ["scores"], axis=1),
        ],
        "contract",
        [
            make.make_tensor_value_info("frames", proto.UINT8, ["T", 8, 6, 3]),
            make.make_tensor_value_info("state.sum", proto.FLOAT, ["N", 2]),
        ],
        [
            make.make_tensor_value_info("scores", proto.FLOAT, ["N", 2]),
            make.make_tensor_value_info("next_state.sum", proto.FLOAT, ["N", 2]),
        ],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    make.set_model_props(model, {"vidlet": json.dumps({"labels": ["dark", "bright"]})})
    onnx.save(model, tmp_path / "model.onnx")
    source = python_client(str(tmp_path / "model.onnx"), {"frames": (8, 6, 3)})
    variables: dict = {}
    exec(compile(source, "client", "exec"), variables)
    assert capsys.readouterr().out == "dark 0.5\n"
    assert list(variables["state"]) == ["state.sum"]
    assert len(source.strip().splitlines()) <= 14


def test_a_page_of_labels_without_doubts_says_so(tmp_path):
    write_doubts(tmp_path / "labels.html", "clips: labels to look at again", [])
    assert "Models that have not seen them doubt no label." in (tmp_path / "labels.html").read_text()
