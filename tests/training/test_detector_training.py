"""A detector learns bright squares in seconds, and a run that was cut off goes on to the same weights."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from vidlet.datasets import read_boxes, with_box_splits
from vidlet.errors import TrainingError
from vidlet.metrics import overlaps
from vidlet.models.detector import build_detector
from vidlet.models.region import kmeans_anchors
from vidlet.recipe import Averaging, Extractor, Training
from vidlet.training.box_batches import BoxClips
from vidlet.training.detection import fit_detector, validation_loss

CONFIG = Training(epochs=3, batch=8, lr=3e-3, weight_decay=1e-4, averaging=Averaging(0.9), clip_norm=10,
                  augment={"jitter": 0.1, "flip": 0.5, "exposure": 1.3})  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """32 pictures with a red or a green rectangle on noise."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for i in range(32):
        picture = rng.integers(40, 90, (64, 64, 3), dtype=np.uint8)
        x, y, side = rng.integers(4, 36), rng.integers(4, 36), rng.integers(16, 26)
        picture[y : y + side, x : x + side] = ((230, 30, 30), (30, 230, 30))[i % 2]
        Image.fromarray(picture).save(root / f"{i:02}.png")
        center = [(x + side / 2) / 64, (y + side / 2) / 64, side / 64, side / 64]
        (root / f"{i:02}.txt").write_text(f"{i % 2} {' '.join(map(str, center))}\n")
    (root / "classes.txt").write_text("red\ngreen\n")
    return with_box_splits(read_boxes(root), val=0.1, test=0.2)


def parts(table):
    torch.manual_seed(0)
    corners = np.concatenate([table.truth(image)[0] for image in table])
    anchors = kmeans_anchors(corners[:, 2:] - corners[:, :2], 2)
    detector = build_detector(Extractor("tiny-yolov2", 0.1, (64, 64), weights="none"), table.labels, anchors)
    return detector, BoxClips(table.of_split("train"), (64, 64), larger=True), BoxClips(table.of_split("val"), (64, 64))


def test_a_detector_learns_to_find_and_name_squares(table):
    detector, train, val = parts(table)
    before = validation_loss(detector, val, 8)
    rows = []
    fit_detector(detector, train, val, dataclasses.replace(CONFIG, epochs=40, averaging=Averaging(0.95)),
                 report=lambda row, _: rows.append(row))  # fmt: skip
    assert len(rows) == 40 and rows[-1]["val_loss"] < 0.3 * before
    assert rows[-1]["val_loss"] == pytest.approx(validation_loss(detector, val, 8), rel=1e-5)
    test = BoxClips(table, (64, 64))
    frames = torch.from_numpy(np.stack([test.picture(i) for i in range(len(test))]))
    with torch.no_grad():
        boxes, scores = detector(frames)
    hits = []
    for i, image in enumerate(test.images):
        at, label = divmod(int(scores[i].argmax()), 2)
        truth, classes, _ = table.truth(image)
        hits.append(overlaps(boxes[i, at : at + 1].numpy(), truth)[0, 0] > 0.4 and label == classes[0])
    assert np.mean(hits) >= 0.7  # at random: less than a tenth


def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(table, tmp_path):
    whole, train, val = parts(table)
    fit_detector(whole, train, val, CONFIG, tmp_path / "whole", "a")
    cut = parts(table)[0]

    def stop(row, _):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_detector(cut, train, val, CONFIG, tmp_path / "cut", "a", report=stop)
    again = parts(table)[0]
    progress = fit_detector(again, train, val, CONFIG, tmp_path / "cut", "a", resume=True)
    assert progress.epoch == 3 and len(progress.history) == 3
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(TrainingError, match="another recipe or other data"):
        fit_detector(parts(table)[0], train, val, CONFIG, tmp_path / "cut", "b", resume=True)


def test_a_loss_that_is_not_finite_names_the_batch(table):
    detector, train, val = parts(table)
    with torch.no_grad():
        detector.network.predict.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss became nan in epoch 1, batch 1 \(images \d\d\.png"):
        fit_detector(detector, train, val, CONFIG)


def test_the_pretrained_backbone_has_a_rate_of_its_own(table):
    torch.manual_seed(0)
    config = Extractor("mobilenetv2", 0.35, (64, 64), "block6", weights="none")
    detector = build_detector(config, table.labels, np.array([[0.3, 0.3]]))
    before = {name: value.clone() for name, value in detector.named_parameters()}
    _, train, val = parts(table)
    fit_detector(
        detector,
        train,
        val,
        dataclasses.replace(CONFIG, epochs=1, extractor_lr=0.0, weight_decay=0, averaging=Averaging(0)),
    )
    moved = {name.split(".")[1] for name, value in detector.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"neck", "predict"}
