"""A training that failed says so, with the likely cause; one that learned says nothing."""

from dataclasses import replace

import numpy as np
import pytest

from training_case import PLAIN, made_up, network
from vidlet.recipe import Training
from vidlet.training import predict_logits, train_network
from vidlet.training.advice import MIRRORED, opposite_labels, warn_of_background, warn_of_turns
from vidlet.training.diagnosis import Odds, what_failed

ODDS = Odds(0.25, 40, 50)


def log(losses, train=0.2):
    return [{"train_loss": loss, "train_accuracy": train} for loss in losses]


def test_a_training_that_learned_says_nothing():
    assert train_network(network(), made_up(), made_up(seed=1), replace(PLAIN, epochs=12)).warnings == []


def test_labels_that_the_clips_do_not_show_are_learned_by_heart_and_that_is_said(tmp_path):
    noise = made_up(24), made_up(60, seed=1)
    for clips in noise:
        labels = np.random.default_rng(len(clips)).permutation(np.arange(len(clips)) % 2)
        clips.targets[:] = np.eye(2, dtype=np.float32)[labels]
    net = network(hidden=64, units=64)
    progress = train_network(net, *noise, replace(PLAIN, epochs=150, lr=2e-2), tmp_path, "x")
    assert progress.history[-1]["train_accuracy"] >= 0.95
    (line,) = progress.warnings
    assert "of the training clips are answered rightly, but" in line
    assert "of the 60 validation clips, where always naming the commonest class gives 50%" in line
    assert "12 training clips a class are few" in line
    again = train_network(net, *noise, replace(PLAIN, epochs=150, lr=2e-2), tmp_path, "x", resume=True)
    assert again.warnings == progress.warnings


def test_a_rate_of_nothing_leaves_a_loss_that_does_not_fall():
    clips, net = made_up(), network(name="window", frames=4, project=4, hidden=4, dropout=0.0)
    said = predict_logits(net, clips, 8).argmax(1)
    clips.targets[:] = np.eye(2, dtype=np.float32)[1 - said]  # nothing is right to begin with
    progress = train_network(net, clips, made_up(seed=1), replace(PLAIN, epochs=4, lr=1e-9))
    (line,) = progress.warnings
    assert line.startswith("the loss did not fall: ")
    (line,) = what_failed(log([1.4, 1.41, 1.4, 1.4]), replace(PLAIN, lr=1e-9), 400, ODDS, 0.25)
    assert "1.4 in the first epoch, 1.4 in the last; likely training.lr = 1e-09 is too low" in line


@pytest.mark.parametrize(
    ("losses", "updates", "cause"),
    [
        ([1.4, 9.0, 1.5], 400, "it rose to 9 on the way: likely training.lr = 0.01 is too high"),
        ([1.4, 1.4, 1.39], 30, "likely because 30 updates are few: raise training.epochs, or training.least_updates"),
    ],
)
def test_the_likely_cause_of_a_loss_that_does_not_fall(losses, updates, cause):
    (line,) = what_failed(log(losses), PLAIN, updates, ODDS, 0.25)
    assert line.endswith(cause)
    (boxes,) = what_failed([{"train_loss": loss} for loss in losses], PLAIN, updates, None, 0.0)
    assert boxes == line


@pytest.mark.parametrize(
    ("rows", "val"),
    [
        (log([1.4, 1.2, 1.0]), 0.25),  # it falls
        (log([0.1, 0.1, 0.1], train=0.9), 0.8),  # nothing was left to learn
        (log([1.4, 1.4]), 0.25),  # too short to tell
        (log([1.4, 0.4, 0.1], train=1.0), 0.6),  # above chance
        ([], 0.0),
    ],
)
def test_what_is_no_failure(rows, val):
    assert what_failed(rows, PLAIN, 400, ODDS, val) == []


def test_by_heart_with_enough_clips_points_at_the_split():
    (line,) = what_failed(log([1.4, 0.5, 0.01], train=1.0), PLAIN, 400, ODDS, 0.3)
    assert "100% of the training clips are answered rightly, but 30% of the 40 validation clips" in line
    assert "`vidlet data`" in line
    assert what_failed(log([1.4, 0.5, 0.01], train=1.0), PLAIN, 400, Odds(0.98, 40, 50), 0.98) == []  # one class rules


# Labels that are each other's mirror image or reversal.


@pytest.mark.parametrize(
    ("labels", "mirrored", "reversed_"),
    [
        (["swipe left", "swipe right", "wave"], ["swipe left", "swipe right"], ["swipe left", "swipe right"]),
        (["TurnLeft", "TurnRight"], ["TurnLeft", "TurnRight"], ["TurnLeft", "TurnRight"]),
        (["rotate_clockwise", "rotate_counter_clockwise"],) + 2 * (["rotate_clockwise", "rotate_counter_clockwise"],),
        (["left to right", "right to left", "stop"],) + 2 * (["left to right", "right to left"],),
        (["opening a door", "closing a door"], [], ["opening a door", "closing a door"]),
        (["zoom in", "zoom out", "pinch"], [], ["zoom in", "zoom out"]),
        (["fold paper", "unfold paper"], [], ["fold paper", "unfold paper"]),
        (["pushing", "pulling"], [], ["pushing", "pulling"]),
        (["left hand wave", "clap"], [], []),  # nothing that it could be taken for
        (["left-right", "clap"], [], []),
        (["walking", "bright", "uprising", "lefty"], [], []),
    ],
)
def test_opposites_are_found_by_their_words(labels, mirrored, reversed_, capsys):
    assert opposite_labels(labels, MIRRORED) == mirrored
    for key, found in (("flip", mirrored), ("reverse", reversed_)):
        lines = warn_of_turns(Training(augment={key: 0.5}), labels)
        assert len(lines) == bool(found)
        assert capsys.readouterr().err == "".join(f"warning: {line}\n" for line in lines)
        for label in found:
            assert repr(label) in lines[0]


def test_a_class_that_seems_to_mean_none_of_the_others_is_told(capsys):
    (line,) = warn_of_background(["Nothing", "wave"], "")
    assert "class 'Nothing' is announced as any other is" in line
    assert "--none Nothing" in line
    assert capsys.readouterr().err == f"warning: {line}\n"
    assert warn_of_background(["nothing", "wave"], "nothing") == []
    assert warn_of_background(["wave", "stop"], "") == warn_of_background(["none"], "") == []


def test_the_warning_says_what_to_do_and_ends_when_it_was_done(capsys):
    labels, config = ["left", "right", "up"], Training(augment={"flip": 0.5})
    (line,) = warn_of_turns(config, labels)
    assert """--set 'training.one_way=["left", "right"]'""" in line
    assert warn_of_turns(replace(config, one_way=("left", "right")), labels) == []
    assert warn_of_turns(Training(), labels) == []
    (line,) = warn_of_turns(config, labels, "set training.augment.flip = 0")
    assert line.endswith("if they are, set training.augment.flip = 0")
