"""Average precision: worked examples of two public projects, a slow count, and COCO's own library."""

import contextlib
import io

import numpy as np
import pytest

from shared_data import shared
from vidlet.metrics.detection import (
    Truth,
    average_precision,
    coco_precisions,
    detection_summary,
    map50_samples,
    mean_over_classes,
    overlaps,
    precision_recall,
)


def truth(boxes, classes=None, difficult=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    classes = np.zeros(len(boxes), int) if classes is None else np.array(classes, int)
    difficult = np.zeros(len(boxes), bool) if difficult is None else np.array(difficult, bool)
    return Truth(boxes, classes, difficult)


def random_case(seed, images=12, classes=3, hard=0.2):
    """Truths, and detections that are partly those boxes shaken; scores of one decimal, so that some are equal."""
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        low = rng.uniform(0, 60, (rng.integers(0, 6), 2))
        boxes = np.hstack([low, low + rng.uniform(5, 40, low.shape)])
        own = truth(boxes, rng.integers(0, classes, len(boxes)), rng.random(len(boxes)) < hard)
        shaken = np.repeat(boxes, 2, 0) + rng.normal(0, 2.5, (2 * len(boxes), 4))
        wild = rng.uniform(0, 60, (rng.integers(0, 4), 2))
        found = np.vstack([shaken, np.hstack([wild, wild + rng.uniform(5, 40, wild.shape)])])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 0.5)
        labels = np.append(np.repeat(own.classes, 2), rng.integers(0, classes, len(wild)))
        scores = rng.random(len(found)).round(2)
        truths.append(own)
        detections.append(np.column_stack([found, scores, labels]))
    return detections, truths


def slow_area(detections, truths, c, least, points=None):
    """VOC's average precision, box by box."""
    rows = [(d[4], i, d[:4]) for i, found in enumerate(detections) for d in found if d[5] == c]
    rows.sort(key=lambda row: -row[0])
    used, hits, wrongs = set(), [], []
    total = sum(int(t.classes[j] == c and not t.difficult[j]) for t in truths for j in range(len(t.classes)))
    for _, i, box in rows:
        best, at = -1.0, None
        for j, other in enumerate(truths[i].boxes):
            if truths[i].classes[j] != c:
                continue
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            inner = max(width, 0) * max(height, 0)
            area = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
            if inner / (area - inner) > best:
                best, at = inner / (area - inner), j
        if best >= least and truths[i].difficult[at]:
            continue
        right = best >= least and (i, at) not in used
        used.add((i, at) if right else None)
        hits.append(right)
        wrongs.append(not right)
    points_of_curve = [
        (sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))
    ]  # (recall, precision)
    best_at = lambda level: max((p for r, p in points_of_curve if r >= level - 1e-12), default=0.0)  # noqa: E731
    if points:
        return sum(best_at(k / (points - 1)) for k in range(points)) / points
    area, before = 0.0, 0.0
    for recall, _ in points_of_curve:
        area += (recall - before) * best_at(recall)
        before = recall
    return area


def read_boxes_text(folder, scored, width_height):
    """Lines "class [score] a b c d" of all files, as arrays an image, and the names of the classes."""
    files = {path.stem: [line.split() for line in path.read_text().splitlines() if line.strip()] for path in
             sorted(folder.glob("*.txt"))}  # fmt: skip
    rows = {}
    for name, lines in files.items():
        numbers = [[float(cell) for cell in line[1:]] for line in lines]
        if width_height:  # x2 = x + w, of inclusive pixels
            numbers = [[*n[:-2], n[-4] + n[-2], n[-3] + n[-1]] for n in numbers]
        rows[name] = [(line[0], n[0] if scored else 1.0, n[-4:]) for line, n in zip(lines, numbers, strict=True)]
    return rows


def reference_case(folder, truth_folder, found_folder, width_height):
    truths = read_boxes_text(folder / truth_folder, False, width_height)
    found = read_boxes_text(folder / found_folder, True, width_height)
    labels = sorted({label for rows in truths.values() for label, _, _ in rows})
    index = {label: i for i, label in enumerate(labels)}
    detections = [
        np.array([[*box, score, index[label]] for label, score, box in found[name] if label in index]).reshape(-1, 6)
        for name in truths
    ]
    own = [truth([b for _, _, b in rows], [index[k] for k, _, _ in rows]) for rows in truths.values()]
    return detections, own, labels


def test_a_case_worked_by_hand():
    # three truths; by falling score: hit, miss (the same truth again), hit, miss: precision 1, 1/2, 2/3, 1/2
    truths = [truth([[0, 0, 10, 10], [20, 20, 30, 30]]), truth([[0, 0, 4, 4]])]
    detections = [
        np.array([[0, 0, 10, 9, 0.9, 0], [0, 1, 10, 10, 0.8, 0], [20, 20, 30, 30, 0.7, 0]]),
        np.array([[3, 3, 9, 9, 0.6, 0]]),
    ]
    (curve,) = precision_recall(detections, truths, 1)
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.truths == 3 and average_precision(curve) == pytest.approx(1 / 3 + 2 / 9)
    assert average_precision(curve, 11) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_overlaps_by_hand_with_and_without_the_border():
    a, b = np.array([[0, 0, 2, 2]]), np.array([[1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 2, 2]])
    np.testing.assert_allclose(overlaps(a, b), [[1 / 7, 0, 1]])
    np.testing.assert_allclose(overlaps(a, b, border=1), [[4 / 14, 0, 1]])
    assert overlaps(np.zeros((1, 4)), np.zeros((1, 4))) == 0


def test_difficult_truths_are_neither_hit_nor_missed():
    truths = [truth([[0, 0, 10, 10], [20, 20, 30, 30]], difficult=[True, False])]
    found = np.array([[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0], [20, 20, 30, 30, 0.7, 0]])
    (curve,) = precision_recall([found], truths, 1)
    assert curve.truths == 1 and curve.precision.tolist() == [1.0] and average_precision(curve) == 1.0
    assert coco_precisions([found], truths, 1)[0, 0] == pytest.approx(1.0)


def test_the_worked_example_of_object_detection_metrics_is_met_to_the_printed_digit():
    folder = shared("data", "detection", "map_reference", "rafaelpadilla") / "samples" / "sample_2"
    detections, truths, _ = reference_case(folder, "groundtruths", "detections", width_height=True)
    assert sum(len(t.boxes) for t in truths) == 15 and sum(map(len, detections)) == 24
    (curve,) = precision_recall(detections, truths, 1, overlap=0.3, border=1)
    assert f"{average_precision(curve):.2%}" == "24.57%"  # printed in its README, as is
    assert f"{average_precision(curve, 11):.2%}" == "26.84%"


CARTUCHO = """
backpack 22.73 bed 85.94 book 17.52 bookcase 14.29 bottle 23.48 bowl 31.86 cabinetry 7.93 chair 53.84 coffeetable 4.55
countertop 19.05 cup 42.50 diningtable 39.66 doll 0.00 door 20.69 heater 7.69 nightstand 71.43 person 42.86
pictureframe 17.71 pillow 13.01 pottedplant 62.31 remote 73.21 shelf 0.00 sink 16.33 sofa 90.48 tap 1.39 tincan 0.00
tvmonitor 63.25 vase 18.75 wastecontainer 45.45 windowblind 23.53
"""  # in percent, as its algorithm (main.py, run apart from this code) prints them


def test_every_class_of_the_example_of_cartucho_map_is_met_to_the_printed_digit():
    folder = shared("data", "detection", "map_reference", "cartucho")
    detections, truths, labels = reference_case(folder, "ground-truth", "detection-results", width_height=False)
    curves = precision_recall(detections, truths, len(labels), border=1)
    found = {label: f"{100 * average_precision(curve):.2f}" for label, curve in zip(labels, curves, strict=True)}
    words = CARTUCHO.split()
    assert found == dict(zip(words[::2], words[1::2], strict=True))
    assert f"{mean_over_classes(curves):.2%}" == "31.05%"


@pytest.mark.parametrize("seed", range(6))
def test_areas_and_eleven_points_equal_a_slow_count_on_random_cases(seed):
    detections, truths = random_case(seed)
    for overlap in (0.3, 0.5, 0.75):
        for c, curve in enumerate(precision_recall(detections, truths, 3, overlap)):
            for points in (None, 11):
                expected = slow_area(detections, truths, c, overlap, points)
                assert average_precision(curve, points) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_coco_figures_equal_those_of_pycocotools_on_random_cases(seed):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    detections, truths = random_case(seed, images=15)
    rows = [
        {"id": 100 * i + j + 1, "image_id": i + 1, "category_id": int(t.classes[j]) + 1, "iscrowd": int(t.difficult[j]),
         "bbox": [*box[:2], *(box[2:] - box[:2])], "area": float(np.prod(box[2:] - box[:2]))}
        for i, t in enumerate(truths) for j, box in enumerate(t.boxes)
    ]  # fmt: skip
    found = [
        {"image_id": i + 1, "category_id": int(d[5]) + 1, "score": d[4], "bbox": [*d[:2], *(d[2:4] - d[:2])]}
        for i, own in enumerate(detections) for d in own
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = {
            "images": [{"id": i + 1} for i in range(len(truths))],
            "annotations": rows,
            "categories": [{"id": c + 1, "name": str(c)} for c in range(3)],
            "info": {},
        }
        data.createIndex()
        run = evaluation.COCOeval(data, data.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
    expected = run.eval["precision"][:, :, :, 0, 2].mean(1).T  # (T, R, K) of all sizes -> (K, T)
    np.testing.assert_allclose(coco_precisions(detections, truths, 3), expected, atol=1e-9)


def test_the_order_of_images_and_of_detections_changes_nothing_where_scores_differ():
    detections, truths = random_case(3)
    rng = np.random.default_rng(0)
    detections = [np.column_stack([d[:, :4], rng.random(len(d)), d[:, 5]]) for d in detections]
    order = rng.permutation(len(truths))
    mixed = [detections[i][rng.permutation(len(detections[i]))] for i in order]
    summary = detection_summary(detections, truths, ["a", "b", "c"])
    again = detection_summary(mixed, [truths[i] for i in order], ["a", "b", "c"])
    assert again["map50"] == pytest.approx(summary["map50"], abs=1e-12)
    assert again["map50_95"] == pytest.approx(summary["map50_95"], abs=1e-12)


def test_perfect_absent_and_impossible_detections():
    truths = [truth([[0, 0, 5, 5], [7, 7, 9, 9]], [0, 1]), truth([])]
    perfect = [np.array([[0, 0, 5, 5, 1, 0], [7, 7, 9, 9, 1, 1]]), np.zeros((0, 6))]
    nothing = [np.zeros((0, 6)), np.zeros((0, 6))]
    summary = detection_summary(perfect, truths, ["a", "b", "never"])
    assert summary["map50"] == 1 and summary["map50_95"] == pytest.approx(1) and summary["boxes"] == 2
    assert summary["per_class"]["never"]["ap50"] is None
    assert detection_summary(nothing, truths, ["a", "b"])["map50"] == 0
    assert detection_summary(nothing, [truth([]), truth([])], ["a"])["map50"] is None
    assert np.isnan(mean_over_classes([]))


def test_resampled_figures_are_those_of_the_drawn_images():
    detections, truths = random_case(5)
    rng = np.random.default_rng(4)
    draws = rng.integers(0, len(truths), (6, len(truths)))
    found = map50_samples(detections, truths, 3, resamples=6, seed=4)
    for draw, sample in zip(draws, found, strict=True):
        curves = precision_recall([detections[i] for i in draw], [truths[i] for i in draw], 3)
        assert sample == pytest.approx(mean_over_classes(curves), abs=0.02)  # equal scores may stand in another order
    assert np.std(map50_samples(detections, truths, 3, 200)) > 0.01
