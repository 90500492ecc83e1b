"""The region loss against a slow count, place by place, as darknet's own code goes about it."""

import math

import numpy as np
import pytest
import torch

from vidlet.models.region import decode
from vidlet.training.box_batches import pad_targets
from vidlet.training.region_loss import WARM_IMAGES, RegionWeights, match, region_loss

ANCHORS = torch.tensor([[0.8, 1.0], [2.0, 1.5], [1.2, 3.0]])
CLASSES, SIDES = 4, (3, 5)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def case(seed, pictures=2, most=4):
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.normal(0, 1, (pictures, 3 * (5 + CLASSES), *SIDES)))
    truths = []
    for _ in range(pictures):
        count = int(rng.integers(0, most + 1))
        low = rng.uniform(0, 0.7, (count, 2))
        boxes = np.hstack([low, low + rng.uniform(0.05, 0.3, (count, 2))]).astype(np.float32)
        truths.append((boxes, rng.integers(0, CLASSES, count), rng.random(count) < 0.25))
    return maps, truths


def overlap(a, b):
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    inner = max(width, 0) * max(height, 0)
    return inner / (a[2] * a[3] + b[2] * b[3] - inner)


def slow_loss(maps, truths, seen, weights):
    """The same sum by loops over pictures, anchors, cells and truths."""
    height, width = SIDES
    total = 0.0
    for picture, (corners, classes, difficult) in enumerate(truths):
        boxes = [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners.astype(float)]
        owner = {}
        for number, box in enumerate(boxes):
            if difficult[number]:
                continue
            wide, high = box[2] * width, box[3] * height
            shares = [overlap((0, 0, wide, high), (0, 0, *anchor)) for anchor in ANCHORS.tolist()]
            owner[max(range(3), key=shares.__getitem__), int(box[1] * height), int(box[0] * width)] = number
        for a, (pw, ph) in enumerate(ANCHORS.tolist()):
            for row in range(height):
                for column in range(width):
                    entry = [float(v) for v in maps[picture, a * 9 : a * 9 + 9, row, column]]
                    tx, ty, tw, th, to = entry[:5]
                    box = ((column + sigmoid(tx)) / width, (row + sigmoid(ty)) / height,
                           pw * math.exp(tw) / width, ph * math.exp(th) / height)  # fmt: skip
                    number = owner.get((a, row, column))
                    if number is None:
                        if max((overlap(box, other) for other in boxes), default=0) <= weights.found:
                            total += weights.empty * sigmoid(to) ** 2 / 2
                        if seen < WARM_IMAGES:
                            errors = [sigmoid(tx) - 0.5, sigmoid(ty) - 0.5, tw, th]
                            total += weights.anchors * sum(e * e for e in errors) / 2
                        continue
                    truth = boxes[number]
                    errors = [sigmoid(tx) - (truth[0] * width - column), sigmoid(ty) - (truth[1] * height - row),
                              tw - math.log(truth[2] * width / pw), th - math.log(truth[3] * height / ph)]  # fmt: skip
                    factor = 2 - truth[2] * truth[3] if weights.small else 1
                    total += weights.coordinates * factor * sum(e * e for e in errors) / 2
                    total += weights.objectness * (sigmoid(to) - overlap(box, truth)) ** 2 / 2
                    total += weights.classes * (math.log(sum(map(math.exp, entry[5:]))) - entry[5 + classes[number]])
    return total / len(truths)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weights", [RegionWeights(), RegionWeights(2, 3, 0.5, 0.7, 0.1, 0.3, small=True)])
def test_the_loss_equals_a_slow_count(seed, weights):
    maps, truths = case(seed)
    for seen in (0, WARM_IMAGES):
        found = region_loss(maps, pad_targets(truths), ANCHORS, seen, weights)
        assert found.item() == pytest.approx(slow_loss(maps, truths, seen, weights), rel=1e-5)


def test_the_gradients_are_darknets_deltas():
    maps, truths = case(3, pictures=1)
    maps = maps.float().requires_grad_()
    targets = pad_targets(truths)
    region_loss(maps, targets, ANCHORS, WARM_IMAGES).backward()
    (_, anchor, row, column), (_, number) = match(targets, ANCHORS, SIDES)
    a, y, x, n = (int(v[0]) for v in (anchor, row, column, number))
    entry, gradient = maps.detach()[0, a * 9 : a * 9 + 9, y, x], maps.grad[0, a * 9 : a * 9 + 9, y, x]
    box = targets.boxes[0, n]
    share = sigmoid(entry[0])
    assert gradient[0] == pytest.approx((share - (float(box[0]) * 5 - x)) * share * (1 - share), abs=1e-5)
    assert gradient[2] == pytest.approx(float(entry[2]) - math.log(float(box[2]) * 5 / float(ANCHORS[a, 0])), abs=1e-5)
    expected = entry[5:].softmax(0) - torch.nn.functional.one_hot(targets.classes[0, n], CLASSES)
    torch.testing.assert_close(gradient[5:], expected.float(), atol=1e-5, rtol=1e-5)


def test_of_two_truths_at_one_place_the_later_is_learned_and_padding_changes_nothing():
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.11, 0.1, 0.31, 0.3]], np.float32)
    two = pad_targets([(boxes, np.array([0, 3]), np.zeros(2, bool))])
    place, chosen = match(two, ANCHORS, SIDES)
    assert [len(p) for p in place] == [1, 1, 1, 1] and chosen[1].tolist() == [1]
    maps = torch.randn(1, 27, *SIDES)
    both = pad_targets(
        [(boxes, np.array([0, 3]), np.zeros(2, bool)), (boxes[[0] * 6], np.zeros(6, int), np.ones(6, bool))]
    )
    alone = region_loss(maps, two, ANCHORS, 0)
    padded = type(both)(*(part[:1] for part in both))
    torch.testing.assert_close(region_loss(maps, padded, ANCHORS, 0), alone)


def test_a_picture_without_truths_asks_for_emptiness_only():
    maps = torch.zeros(2, 27, *SIDES)
    nothing = pad_targets([(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool))] * 2)
    assert region_loss(maps, nothing, ANCHORS, WARM_IMAGES).item() == pytest.approx(45 * 0.25 / 2)


def test_descending_the_loss_finds_the_boxes():
    torch.manual_seed(0)
    boxes = np.array([[0.1, 0.1, 0.3, 0.45], [0.5, 0.4, 0.9, 0.8]], np.float32)
    targets = pad_targets([(boxes, np.array([1, 3]), np.zeros(2, bool))])
    maps = torch.zeros(1, 27, *SIDES, requires_grad=True)
    optimizer = torch.optim.Adam([maps], 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        region_loss(maps, targets, ANCHORS, WARM_IMAGES).backward()
        optimizer.step()
    found, scores = decode(maps.detach(), ANCHORS)
    best = scores[0].max(1).values.topk(2).indices
    order = best[found[0, best, 0].argsort()]
    np.testing.assert_allclose(found[0, order], targets.boxes[0], atol=0.02)
    assert scores[0, order].argmax(1).tolist() == [1, 3] and (scores[0].amax(1).sort().values[:-2] < 0.1).all()
