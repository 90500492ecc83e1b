"""Distillation: the pupil learns what its teachers say, on clips with labels, without, and from other extractors."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from steps_material import CLASSES, EXTRACTOR, SHAPE, accuracy, made_up, material, moving, small_extractor, trained
from vidlet.compression import Trained
from vidlet.compression.average import fresh_start
from vidlet.compression.distill import Part, beside, distill, ensemble_teacher, with_unlabelled
from vidlet.errors import RecipeError
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Head
from vidlet.training import ClipNetwork, predict_logits, train_network


def pupil() -> Trained:
    return Trained(small_extractor(), fresh_start(trained("grid-gru").head, 5))


def mislabelled():
    """Material whose labels are all of the next class."""
    train, val = made_up(48, 0), made_up(24, 1)
    train.targets = np.roll(train.targets, 1, axis=1)
    return replace(material(epochs=12), features=lambda _: (train, val))


def test_where_labels_and_teacher_disagree_the_share_decides():
    teacher = trained("mean")
    told = distill(pupil(), 1.0, mislabelled(), [teacher])
    untold = distill(pupil(), 0.01, mislabelled(), [teacher])
    assert accuracy(teacher) >= 0.95
    assert accuracy(told) >= 0.95
    assert accuracy(untold) <= 0.1


def test_clips_without_a_label_teach_what_the_teacher_says():
    clips, few = made_up(48, 0), made_up(2, 3)  # two labelled clips: of the third class none has a label
    joined = with_unlabelled(few, [clips.read(i) for i in range(48)])
    assert len(joined) == 50
    assert np.isnan(joined.targets[2:]).all()
    config = replace(material().config, epochs=12)
    alone, together = pupil(), pupil()
    train_network(ClipNetwork(alone.head), few, made_up(24, 1), config)
    teacher = ensemble_teacher([ClipNetwork(trained("mean").head)], 0.5)
    train_network(ClipNetwork(together.head), joined, made_up(24, 1), config, teacher=teacher)
    assert accuracy(alone) <= 0.7
    assert accuracy(together) >= 0.95


@torch.no_grad()
def test_an_ensemble_teaches_the_mean_of_its_probabilities():
    networks = [ClipNetwork(trained(name).head).eval() for name in ("mean", "gru")]
    x, mask = torch.randn(3, 5, *SHAPE), torch.arange(5) < torch.tensor([[5], [3], [1]])
    found = ensemble_teacher(networks, 0.5).answer(x, mask).softmax(1)
    torch.testing.assert_close(found, sum(network(x, mask).softmax(1) for network in networks) / 2)


def test_features_lie_side_by_side_as_each_head_would_read_them():
    one, two = made_up(6, 0), made_up(6, 0, (5,))
    for clips in (one, two):
        clips.read = lambda i, read=clips.read: read(i)[:3]
    pair = beside([one, two])
    assert pair.read(2).shape[1] == int(np.prod(SHAPE)) + 5
    assert pair.spread.shape == (int(np.prod(SHAPE)) + 5,)
    head = trained("grid-gru").head
    assert predict_logits(ClipNetwork(Part(head, 0, SHAPE)), pair, 6) == pytest.approx(
        predict_logits(ClipNetwork(head), one, 6), abs=1e-6
    )
    torch.manual_seed(0)
    small = build_head(Head("mean", {"units": 4}), (5,), CLASSES)
    assert predict_logits(ClipNetwork(Part(small, int(np.prod(SHAPE)), (5,))), pair, 6) == pytest.approx(
        predict_logits(ClipNetwork(small), two, 6), abs=1e-6
    )
    with pytest.raises(RecipeError, match="could not read the same clips"):
        beside([one, made_up(7, 0)])


def on_squares(extractor, seed: int, learned: bool) -> Trained:
    torch.manual_seed(seed)
    options = {"channels": 8, "project": 32, "hidden": 32, "dropout": 0.0, "appearance": True}
    head = build_head(Head("grid-gru", options), extractor.feature_shape, CLASSES)
    found = Trained(extractor, head)
    if learned:
        clips = material(on_frames=True).features(extractor)
        head.calibrate(*_moments(clips[0]))
        train_network(ClipNetwork(head), *clips, replace(material().config, epochs=15))
    return found


def _moments(clips):
    rows = np.concatenate([clips.read(i) for i in range(len(clips))])  # (frames, C, 2, 2)
    return (torch.from_numpy(f(rows, axis=(0, 2, 3))) for f in (np.mean, np.std))


def agreement(a: Trained, b: Trained) -> float:
    here = material(on_frames=True)
    answers = [predict_logits(ClipNetwork(t.head), here.features(t.extractor)[1], 8).argmax(1) for t in (a, b)]
    return float((answers[0] == answers[1]).mean())


@pytest.mark.parametrize("more", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_pupil_learns_from_a_teacher_with_another_extractor(more):
    torch.manual_seed(11)
    other = build_extractor(replace(EXTRACTOR, cut="block3", grid=4)).eval()
    teacher, start = on_squares(other, 0, True), on_squares(small_extractor(), 1, False)
    here = material(on_frames=True, epochs=15)
    start.head.calibrate(*_moments(here.features(start.extractor)[0]))
    unlabelled = [moving(30, 9).read(i) for i in range(30)] if more else []
    after = distill(start, 1.0, here, [teacher], unlabelled)
    assert type(after.head) is type(start.head)
    assert agreement(after, teacher) >= max(0.75, agreement(start, teacher) + 0.2)


def test_on_frames_the_teacher_sees_the_pupils_clips():
    extractor = copy.deepcopy(small_extractor())
    extractor.freeze_norm = True  # statistics of two epochs would be none
    start = on_squares(extractor, 1, True)
    here = material("finetune", on_frames=True, epochs=1)
    after = distill(start, 1.0, here, [start], [moving(2, 9).read(0)])
    assert after.extractor is not start.extractor
    assert agreement(after, start) >= 0.75
    wider = build_extractor(replace(EXTRACTOR, input_size=(48, 48)))
    with pytest.raises(RecipeError, match=r"the teacher takes frames of \(48, 48\)"):
        distill(start, 1.0, here, [Trained(wider, start.head)])


def test_a_share_above_one_is_refused():
    with pytest.raises(RecipeError, match="teachers' share of the loss"):
        distill(trained(), 1.5, material())
