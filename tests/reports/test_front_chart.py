"""The chart of files over what they cost: the line never goes down."""

import re

from vidlet.reports import Dot, front_chart


def test_the_line_joins_only_what_is_better_than_all_that_cost_less():
    dots = [
        Dot(100, 0.82, "small", front=True, chosen=True),
        Dot(120, 0.81, "quicker, but neither smaller nor better", front=True),
        Dot(200, 0.85, "large", front=True),
        Dot(300, 0.70, "beaten"),
    ]
    drawn = str(front_chart(dots, "Accuracy", "bytes", lambda value: f"{value:.0f}", limit=None))
    points = re.search(r'<polyline points="([^"]*)"', drawn).group(1).split()
    assert len(points) == 3  # two dots and the corner between them
    heights = [float(point.split(",")[1]) for point in points]
    assert heights == sorted(heights, reverse=True)  # from the bottom up
    assert drawn.count("dot c0") == 2
    assert all(told in drawn for told in ("small", "quicker", "large", "beaten"))


def test_a_tick_is_no_less_than_a_point_of_percent():
    drawn = str(front_chart([Dot(1, 0.820, "a"), Dot(2, 0.827, "b")], "Accuracy", "bytes", str, limit=None))
    assert re.findall(r">(\d[\d.]*) %<", drawn) == ["82", "83"]
