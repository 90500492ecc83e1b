"""The drawings of the task pages: `python docs/pictures/draw.py` writes them beside this file, without any library.

What they show of scores and times was printed by vidlet: the segments of README, and the scores of a gesture in a
video of SHREC's clips, eight a second. The others are plans.
"""

from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 640
INK, SOFT, LINE, BLUE, ORANGE, GREEN = "#1c2127", "#59626d", "#c9ced6", "#2557c7", "#b26a00", "#1d7f63"
CLASSES = ["close", "grow", "left", "right", "open", "clockw.", "countercl.", "shrink"]  # as short as their places
SEGMENTS = [  # README: start, end, class
    (0, 1.5, 0), (2, 3, 7), (3, 4, 1), (6.5, 7.5, 2), (8, 9.5, 3), (10.5, 12.5, 4), (12.5, 15, 5), (15, 18.5, 6),
]  # fmt: skip
SCORES = [
    0.003, 0.007, 0.004, 0.005, 0.018, 0.054, 0.047, 0.145, 0.502, 0.787, 0.878, 0.916, 0.99, 0.999, 1, 1, 0.999, 0.987,
    0.837, 0.382, 0.08, 0.02, 0.007, 0.002, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.002, 0.003,
]  # fmt: skip


def text(x: float, y: float, words: str, size: int = 13, color: str = INK, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}">{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str = "#fff", edge: str = LINE, more: str = "") -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{edge}"{more}/>'
    )


def line(points: list[tuple[float, float]], color: str = SOFT, more: str = "") -> str:
    told = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{told}" fill="none" stroke="{color}" stroke-width="2"{more}/>'


def arrow(x: float, y: float, length: float) -> str:
    return line([(x, y), (x + length, y)]) + line([(x + length - 6, y - 5), (x + length, y), (x + length - 6, y + 5)])


def steps(names: list[tuple[str, str]], y: float, width: float = 170) -> str:
    """Boxes in a row, an arrow between two: a name, and below it what it is."""
    gap = (WIDTH - 40 - width * len(names)) / max(1, len(names) - 1)
    drawn = []
    for number, (name, about) in enumerate(names):
        x = 20 + number * (width + gap)
        middle = x + width / 2
        drawn += [box(x, y, width, 58), text(middle, y + 25, name, 14, INK, "middle")]
        drawn.append(text(middle, y + 44, about, 12, SOFT, "middle"))
        if number:
            drawn.append(arrow(x - gap + 5, y + 29, gap - 10))
    return "".join(drawn)


def timeline() -> tuple[str, int]:
    colors = [BLUE, ORANGE, GREEN, "#93408f", "#5b6673", "#b3401a", "#2f8aa8", "#8d7a1c"]
    x_of = lambda seconds: 110 + seconds * 24.5  # noqa: E731
    drawn = [text(20, 45, "what happens"), text(20, 105, "what is told")]
    for number in range(8):  # the clips stand in alphabetical order, about 2.6 s each
        drawn.append(box(x_of(number * 2.6) + 1, 25, 2.6 * 24.5 - 2, 30, colors[number], "none"))
        drawn.append(text(x_of(number * 2.6 + 1.3), 44, CLASSES[number], 11, "#fff", "middle"))
    drawn.append(box(x_of(0), 85, 20.8 * 24.5, 30, "#eef0f3", "none"))
    drawn += [box(x_of(a), 85, (b - a) * 24.5, 30, colors[kind], "none") for a, b, kind in SEGMENTS]
    drawn += [text(x_of(second), 135, f"{second} s", 12, SOFT, "middle") for second in range(0, 21, 5)]
    return "".join(drawn), 150


def event() -> tuple[str, int]:
    x_of, y_of = lambda number: 110 + number * 15.5, lambda score: 30 + (1 - score) * 130
    drawn = [
        text(20, y_of(1) + 4, "score 1"),
        text(20, y_of(0) + 4, "score 0"),
        line([(110, y_of(0)), (620, y_of(0))], LINE),
    ]
    for height, name in ((0.8, "--above 0.8"), (0.6, "three quarters of it")):
        drawn.append(line([(110, y_of(height)), (620, y_of(height))], SOFT, ' stroke-dasharray="4 4"'))
        drawn.append(text(620, y_of(height) - 5, name, 12, SOFT, "end"))
    drawn.append(line([(x_of(number), y_of(score)) for number, score in enumerate(SCORES)], BLUE))
    begin, end = 10, 19  # the first frame at 0.8 or more, and the first below 0.6: what is told of the event
    drawn.append(box(x_of(begin), 172, x_of(end) - x_of(begin), 24, GREEN, "none"))
    drawn.append(text((x_of(begin) + x_of(end)) / 2, 189, "grab: one event", 12, "#fff", "middle"))
    drawn += [text(x_of(8 * second), 215, f"{second} s", 12, SOFT, "middle") for second in range(5)]
    return "".join(drawn), 230


def boxes() -> tuple[str, int]:
    drawn = [box(20, 15, 270, 180, "#20262e", "none")]
    for x, y, width, height, color, name in (
        (45, 60, 70, 105, ORANGE, "person 0.91"),
        (150, 95, 100, 60, GREEN, "car 0.84"),
        (215, 40, 40, 36, BLUE, "cup 0.42"),
    ):
        drawn.append(
            f'<ellipse cx="{x + width / 2}" cy="{y + height / 2}" rx="{width / 2 - 6}" ry="{height / 2 - 6}" '
            f'fill="{SOFT}"/>'
        )
        drawn += [box(x, y, width, height, "none", color, ' stroke-width="2"'), text(x, y - 5, name, 12, "#fff")]
    drawn += [
        arrow(300, 105, 50),
        text(370, 60, "boxes.csv", 14),
        text(370, 80, "a row for each box of each frame", 12, SOFT),
    ]
    drawn += [text(370, 115, "the video with boxes drawn", 14), text(370, 135, "--save boxes.mp4", 12, SOFT)]
    drawn += [
        text(370, 170, "and, with a head on its map, the action", 14),
        text(370, 190, "one pass over each frame", 12, SOFT),
    ]
    return "".join(drawn), 210


def page() -> tuple[str, int]:
    drawn = [box(20, 12, 600, 236), text(40, 45, "What happens here?", 18), box(40, 60, 120, 30, BLUE, "none")]
    drawn += [
        text(100, 80, "Use the camera", 12, "#fff", "middle"),
        box(168, 60, 110, 30),
        text(223, 80, "Open a video", 12, INK, "middle"),
    ]
    drawn += [box(40, 100, 290, 105, "#20262e", "none"), box(345, 100, 255, 105), text(360, 127, "open", 18)]
    for number, (name, share) in enumerate((("open", 0.84), ("close", 0.11), ("grow", 0.03))):
        y = 146 + 19 * number
        drawn += [
            text(360, y, name, 12),
            box(420, y - 8, 130, 7, "#e8eaee", "none"),
            box(420, y - 8, 130 * share, 7, BLUE, "none"),
        ]
        drawn.append(text(588, y, f"{share:.0%}".replace("%", " %"), 12, INK, "end"))
    drawn.append(box(40, 215, 560, 20, "#e8eaee", "none"))
    drawn += [
        box(x, 215, width, 20, color, "none")
        for x, width, color in ((70, 80, BLUE), (210, 55, ORANGE), (400, 110, BLUE))
    ]
    return "".join(drawn), 262


def phones() -> tuple[str, int]:
    names = [
        ("model.onnx", "any number of frames"),
        ("model.tflite", "one frame, state in and out"),
        ("LiteRT", "on the phone"),
    ]
    drawn = [
        steps(names, 20, 175),
        text(320, 105, "1,000 frames through both; a file that differs is not written", 13, SOFT, "middle"),
    ]
    return "".join(drawn), 120


def records() -> tuple[str, int]:
    return steps(
        [("a video", "T frames"), ("its features", "rgb (T, 1024), audio (T, 128)"), ("a head", "labels with scores")],
        20,
        186,
    ), 98


def board() -> tuple[str, int]:
    return steps(
        [
            ("a camera", "USB, CSI, rtsp://"),
            ("the board", "one file, ONNX Runtime"),
            ("an action", "command, webhook, MQTT"),
        ],
        20,
    ), 98


def drawings() -> dict[str, str]:
    """Name of the file -> what it holds."""
    found = {}
    for draw in (timeline, event, boxes, page, phones, records, board):
        drawn, height = draw()
        sheet = f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>'  # dark themes show it as a sheet
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
        found[f"{draw.__name__}.svg"] = f"{head}{sheet}{drawn}</svg>\n"
    return found


def main() -> None:
    for name, drawn in drawings().items():
        (HERE / name).write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
