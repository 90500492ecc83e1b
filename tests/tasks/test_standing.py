"""What the closing line says of a run beside plain classifiers: a warning only with advice that helps."""

import pytest

from vidlet.tasks.standing import beside, say_standing


def metrics_of(mean: float, low: float, high: float, **more) -> dict:
    difference = {"model.onnx": {"mean": mean, "low": low, "high": high}}
    baselines = {"best": "mean", "accuracy": {"mean": 0.9}, "difference": difference}
    return {"files": {"model.onnx": {"clips": 40}}, "baselines": baselines, **more}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (metrics_of(0.1, 0.05, 0.2), "model.onnx is 10.0 points [+5.0, +20.0] ahead of the best plain classifier"),
        (metrics_of(-0.1, -0.2, -0.05), "warning: model.onnx is 10.0 points [+5.0, +20.0] behind the best plain"),
        (metrics_of(-0.1, -0.2, -0.05), "(mean: 0.900); train without --recipe to have measured what is best"),
        (metrics_of(-0.1, -0.2, -0.05, selection={"chosen": ["x"]}), "are the test clips of another kind?"),
        (metrics_of(-0.1, -0.75, 0.0), "10.0 points [+0.0, +75.0] behind"),
        (metrics_of(-0.1, -0.75, 0.0), "; 40 clips are too few to tell that from chance"),
        (metrics_of(0.167, 0.0, 0.5), "ahead of the best plain classifier (mean: 0.900); 40 clips are too few to tell"),
        (
            metrics_of(0.0, 0.0, 0.0),
            "model.onnx is as accurate as the best plain classifier (mean: 0.900); 40 clips ",
        ),
        (metrics_of(0.0, -0.1, 0.1), "(mean: 0.900); 40 clips are too few to tell them apart"),
    ],
)
def test_the_closing_line_advises_what_helps(metrics, said, capsys):
    say_standing(metrics, "model.onnx")
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert ("train without --recipe" in err) == ("warning" in err and not metrics.get("selection") and "few" not in err)


def test_the_report_says_what_the_closing_line_says(capsys):
    metrics = metrics_of(0.167, 0.0, 0.5)
    metrics["files"]["model.onnx"] |= {"accuracy": 1.0, "accuracy_interval": [0.7, 1.0]}
    say_standing(metrics, "model.onnx")
    (section,) = beside(metrics)
    assert f"<p>{capsys.readouterr().err.strip()}.</p>" in str(section.html)
