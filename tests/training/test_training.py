"""Training: it learns, gives the same weights for the same seed, and a killed run ends where an unbroken one does."""

import csv
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vidlet.errors import DataError, TrainingError
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Averaging, Extractor, Head, Schedule, Training
from vidlet.training import ClipNetwork, Draw, FeatureClips, FrameClips, Teacher, predict_logits, train_network
from vidlet.training.losses import batch_loss, class_weights, clip_weights, teacher_losses
from vidlet.training.optimizers import make_optimizer, rate_at

PLAIN = Training(epochs=6, batch=8, lr=1e-2, schedule=Schedule("constant"), class_weights=False, weight_decay=0.0)
AUGMENT = {"speed": 0.2, "crop": 0.2, "drop": 0.1, "noise": 0.2, "mixup": 0.3}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made_up(count: int = 40, seed: int = 0, classes: int = 2, bad: int | None = None) -> FeatureClips:
    """Clips of 3 to 8 frames of 6 numbers, of which number k is larger in class k. Clip ``bad`` holds a NaN."""
    draw = rng(seed)
    labels = np.arange(count) % classes
    clips = []
    for label in labels:
        clip = draw.normal(0, 0.5, (int(draw.integers(3, 9)), 6)).astype(np.float32)
        clip[:, label] += 1.5
        clips.append(clip)
    if bad is not None:
        clips[bad][1, 2] = np.nan
    names = [f"clip{n}.mp4" for n in range(count)]
    return FeatureClips(clips.__getitem__, np.eye(classes, dtype=np.float32)[labels], names, np.ones(6, np.float32))


def grids(count: int = 24, seed: int = 0) -> FeatureClips:
    """Clips of 3 to 8 frames of a grid (3, 2, 2), of three classes: number k grows in class k."""
    draw = rng(seed)
    labels = np.arange(count) % 3
    clips = []
    for label in labels:
        clip = draw.normal(0, 0.3, (int(draw.integers(3, 9)), 3, 2, 2)).astype(np.float32)
        clip[:, label] += np.linspace(0, 2, len(clip), dtype=np.float32)[:, None, None]
        clips.append(clip)
    names = [f"clip{n}.mp4" for n in range(count)]
    return FeatureClips(clips.__getitem__, np.eye(3, dtype=np.float32)[labels], names, np.ones(3, np.float32))


def network(seed: int = 0, classes: int = 2, name: str = "gru", **options) -> ClipNetwork:
    torch.manual_seed(seed)
    shape = (3, 2, 2) if name == "grid-gru" else (6,)
    return ClipNetwork(build_head(Head(name, options or {"hidden": 8, "units": 8}), shape, classes))


def weights(net: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


class Killed(BaseException):
    """Stands for kill -9: nothing of the loop catches it."""


def kill_after(epoch: int):
    def report(row, _):
        if row["epoch"] == epoch:
            raise Killed

    return report


# The loop.


def test_a_separable_problem_is_learned(tmp_path):
    net = network()
    progress = train_network(net, made_up(), made_up(seed=1), replace(PLAIN, epochs=12), tmp_path, "x")
    assert progress.history[-1]["val_accuracy"] >= 0.95
    assert progress.history[-1]["val_loss"] < progress.history[0]["val_loss"]
    assert not net.training
    clips = made_up(seed=2)
    assert (predict_logits(net, clips, 8).argmax(1) == clips.targets.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize(
    "config", [PLAIN, replace(PLAIN, augment=AUGMENT, averaging=Averaging(0.9), schedule=Schedule("cosine"))]
)
def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(config, tmp_path):
    found = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        net = network()
        train_network(net, made_up(), made_up(seed=1), replace(config, epochs=2, seed=seed), tmp_path / place, "x")
        found.append(weights(net))
    assert_same(found[0], found[1])
    assert any((found[0][name] != found[2][name]).any() for name in found[0])


@pytest.mark.parametrize("killed_after", [1, 3, 5])
@pytest.mark.parametrize(
    "config",
    [
        replace(PLAIN, schedule=Schedule("cosine"), augment=AUGMENT),
        replace(PLAIN, averaging=Averaging(0.9), augment=AUGMENT),
        replace(PLAIN, early_stopping=2, lr=5e-2, epochs=8),
        replace(PLAIN, early_stopping=2, averaging=Averaging(0.9), epochs=7),
        replace(PLAIN, optimizer="sgd", schedule=Schedule("step", 2), micro_batch=3),
    ],
    ids=["augmented", "averaged", "stopped early", "both", "momentum"],
)
def test_a_killed_run_goes_on_to_the_weights_of_an_unbroken_one(config, killed_after, tmp_path):
    unbroken = network()
    whole = train_network(unbroken, made_up(), made_up(seed=1), config, tmp_path / "whole", "x")
    try:
        train_network(
            network(), made_up(), made_up(seed=1), config, tmp_path / "k", "x", report=kill_after(killed_after)
        )
    except Killed:
        pass
    else:
        assert whole.epoch < killed_after  # it had stopped early before
    resumed = network(seed=9)  # its start does not matter
    progress = train_network(resumed, made_up(), made_up(seed=1), config, tmp_path / "k", "x", resume=True)
    assert_same(weights(resumed), weights(unbroken))
    assert vars(progress) == vars(whole)
    assert (tmp_path / "k" / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()


def test_a_process_killed_with_minus_nine_in_an_epoch_loses_that_epoch_only(tmp_path):
    script = f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_training import PLAIN, train_network, made_up, network
        clips = made_up()
        read = clips.read
        clips.read = lambda i: (time.sleep(0.004), read(i))[1]
        train_network(network(), clips, made_up(seed=1), PLAIN, Path({str(tmp_path / "run")!r}), "x")
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    log, deadline = tmp_path / "run" / "log.csv", time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed, unbroken = network(seed=9), network()
    epochs: list[int] = []
    train_network(
        resumed,
        made_up(),
        made_up(seed=1),
        PLAIN,
        tmp_path / "run",
        "x",
        resume=True,
        report=lambda row, _: epochs.append(int(row["epoch"])),
    )
    train_network(unbroken, made_up(), made_up(seed=1), PLAIN, tmp_path / "whole", "x")
    assert epochs[0] >= 3
    assert epochs[-1] == PLAIN.epochs
    assert_same(weights(resumed), weights(unbroken))


def test_early_stopping_keeps_the_weights_of_the_lowest_validation_loss(tmp_path):
    net = network(name="window", frames=8, project=8, hidden=8, dropout=0.0)  # no norm: as it was judged, it is kept
    config = replace(PLAIN, epochs=30, lr=0.1, early_stopping=3)
    val = made_up(20, seed=5)
    val.targets[::5] = 1 - val.targets[::5]  # labels that training contradicts: the loss rises with confidence
    progress = train_network(net, made_up(), val, config, tmp_path, "x")
    losses = [row["val_loss"] for row in progress.history]
    assert progress.epoch == progress.best_epoch + 3 < 30
    assert progress.best_loss == min(losses) == losses[progress.best_epoch - 1]
    kept = functional.cross_entropy(torch.from_numpy(predict_logits(net, val, 8)), torch.from_numpy(val.targets))
    assert kept.item() == pytest.approx(progress.best_loss, rel=1e-5)


def test_the_log_has_a_row_an_epoch(tmp_path):
    progress = train_network(network(), made_up(), made_up(seed=1), replace(PLAIN, epochs=3), tmp_path, "x")
    with (tmp_path / "log.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["val_loss"]) == pytest.approx(progress.history[2]["val_loss"], rel=1e-5)
    assert progress.updates == 3 * math.ceil(40 / 8)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    train_network(network(), made_up(), made_up(seed=1), replace(PLAIN, epochs=1), tmp_path, "one")
    with pytest.raises(TrainingError, match="another recipe or other data") as told:
        train_network(network(), made_up(), made_up(seed=1), PLAIN, tmp_path, "two", resume=True)
    assert str(tmp_path / "checkpoint.pt") in str(told.value)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "hostile", "empty"])
def test_a_damaged_or_foreign_checkpoint_is_refused_and_runs_nothing(damage, tmp_path):
    train_network(network(), made_up(), made_up(seed=1), replace(PLAIN, epochs=1), tmp_path, "x")
    path, touched = tmp_path / "checkpoint.pt", tmp_path / "touched"
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif damage == "hostile":

        class Hostile:
            def __reduce__(self):
                return (Path.touch, (touched,))

        torch.save({"identity": "x", "progress": Hostile()}, path)
    else:
        path.write_bytes(path.read_bytes()[: 1000 if damage == "truncated" else 0])
    with pytest.raises(TrainingError) as told:
        train_network(network(), made_up(), made_up(seed=1), PLAIN, tmp_path, "x", resume=True)
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)
    assert not touched.exists()


def test_a_loss_that_is_not_finite_says_where(tmp_path):
    config, bad = replace(PLAIN, batch=8), 13
    order = np.random.default_rng([0, 0]).permutation(40).tolist()
    batch = order.index(bad) // 8
    with pytest.raises(TrainingError) as told:
        train_network(network(), made_up(bad=bad), made_up(seed=1), config, tmp_path, "x")
    assert f"the loss became nan in epoch 1, batch {batch + 1} " in str(told.value)
    assert f"clip{order[8 * batch]}.mp4" in str(told.value)
    assert "training.lr" in str(told.value)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_full_disk_leaves_the_checkpoint_of_the_epoch_before(tmp_path, monkeypatch):
    import errno

    clips, val, config = made_up(), made_up(seed=1), replace(PLAIN, epochs=2)
    train_network(network(), clips, val, replace(config, epochs=1), tmp_path, "x")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patched:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr("vidlet.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left") as told:
            train_network(network(), clips, val, config, tmp_path, "x", resume=True)
    assert told.value.filename == str(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*part*"))


def test_without_a_folder_nothing_is_written_and_the_weights_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, held, free = replace(PLAIN, epochs=2, averaging=Averaging(0.9)), network(), network()
    train_network(held, made_up(), made_up(seed=1), config, tmp_path / "run", "x")
    train_network(free, made_up(), made_up(seed=1), config)
    assert_same(weights(free), weights(held))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("of_class", [False, True])
def test_a_batch_in_parts_moves_the_weights_as_the_whole_batch_does(of_class):
    found = []
    for size in (0, 1, 3, 100):
        net = network(name="grid-gru", channels=3, project=6, hidden=5, dropout=0.0, classes=3)
        config = replace(PLAIN, epochs=2, batch=7, micro_batch=size, class_weights=of_class, label_smoothing=0.1)
        teacher = Teacher(lambda x, mask: x.sum((1, 3, 4))[:, :3], share=0.3)
        train_network(net, grids(), grids(seed=1), config, teacher=teacher)
        found.append(weights(net))
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_allclose(other[name], value, atol=1e-5, err_msg=name)
    start = weights(network(name="grid-gru", channels=3, project=6, hidden=5, dropout=0.0, classes=3))
    assert abs(found[0]["head.project.weight"] - start["head.project.weight"]).max() > 1e-2


def test_hold_is_called_after_every_update_before_the_average_moves():
    net, calls = network(name="mean", units=0), []

    def hold() -> None:
        net.head.classifier[1].weight.data[:, 0] = 0
        calls.append(1)

    progress = train_network(net, made_up(), made_up(seed=1), replace(PLAIN, epochs=2), hold=hold)
    assert len(calls) == progress.updates
    assert (net.head.classifier[1].weight[:, 0] == 0).all()
    assert (net.head.classifier[1].weight[:, 1:] != 0).all()


def test_a_teacher_alone_teaches_what_the_labels_do_not_say():
    clips, truth = made_up(60), made_up(60).targets
    clips.targets = np.full_like(truth, np.nan)  # no clip has a label
    net = network()
    teacher = Teacher(lambda x, mask: 4 * (x * mask[..., None]).sum(1)[:, :2], temperature=2.0, share=0.5)
    progress = train_network(net, clips, made_up(seed=1), replace(PLAIN, epochs=10), teacher=teacher)
    assert progress.history[-1]["val_accuracy"] >= 0.95
    assert progress.history[-1]["train_accuracy"] == 0  # of no clip it is known what is right


# Schedules and losses, by hand.


def test_sgd_has_momentum_and_decays_matrices_only():
    net, config = network(name="mean", units=0), replace(PLAIN, optimizer="sgd", lr=0.5, weight_decay=0.1)
    optimizer = make_optimizer(net.head, None, config)
    layer = net.head.classifier[1]
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        layer.weight.grad, layer.bias.grad = torch.ones_like(weight), torch.ones_like(bias)
        optimizer.step()
        velocity = [0.9 * velocity[0] + 1 + 0.1 * weight, 0.9 * velocity[1] + 1]
        weight, bias = weight - 0.5 * velocity[0], bias - 0.5 * velocity[1]
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer.bias.detach(), bias)


def test_the_step_schedule_falls_to_a_tenth_every_so_many_epochs():
    config = replace(PLAIN, schedule=Schedule("step", 30))
    assert [rate_at(config, n, 4) for n in (0, 119, 120, 239, 240, 360)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_the_teachers_loss_is_torchs_divergence_and_nothing_where_both_agree():
    draw = torch.Generator().manual_seed(0)
    said, answer = torch.randn(5, 3, generator=draw), torch.randn(5, 3, generator=draw)
    p, q = (answer / 3).softmax(1), (said / 3).softmax(1)
    torch.testing.assert_close(teacher_losses(said, answer, 3.0), 9 * (p * (p / q).log()).sum(1))
    torch.testing.assert_close(teacher_losses(said, said + 7, 3.0), torch.zeros(5), atol=1e-5, rtol=0)
    gradient = torch.autograd.functional.jacobian(lambda x: teacher_losses(x, answer, 1.0, True).sum(), answer)
    torch.testing.assert_close(gradient, torch.zeros(5, 3), atol=1e-6, rtol=0)


def test_a_clip_without_a_label_counts_nothing_in_the_labels_loss():
    logits, y = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    partly = y.clone()
    partly[2] = torch.nan
    of_class = torch.tensor([0.5, 1.0, 1.5])
    assert clip_weights(partly, of_class).tolist() == [0.5, 1.0, 0.0, 0.5]
    kept = [0, 1, 3]
    for of in (None, of_class):
        expected = batch_loss(logits[kept], y[kept], 0.1, of, False)
        torch.testing.assert_close(batch_loss(logits, partly, 0.1, of, False), expected)
    assert batch_loss(logits, torch.full_like(y, torch.nan), 0.1, None, False).item() == 0


def test_the_keras_decay_divides_by_one_plus_a_millionth_of_the_updates():
    config = replace(PLAIN, schedule=Schedule("keras-decay"))
    assert [rate_at(config, n, 5) for n in (0, 1000, 1_000_000)] == pytest.approx([1.0, 1 / 1.001, 0.5])


def test_the_cosine_warms_up_over_a_tenth_and_ends_at_zero():
    config = replace(PLAIN, schedule=Schedule("cosine"), epochs=10)  # 10 updates an epoch: 100 in all, 10 of them warm
    assert [rate_at(config, n, 10) for n in range(10)] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert rate_at(config, 10, 10) == pytest.approx(1.0)
    assert rate_at(config, 55, 10) == pytest.approx(0.5)
    assert rate_at(config, 40, 10) == pytest.approx(0.75)
    assert rate_at(config, 100, 10) == pytest.approx(0.0)
    assert rate_at(replace(config, schedule=Schedule("constant")), 77, 10) == 1.0


def test_the_learning_rate_of_the_log_is_the_schedules(tmp_path):
    config = replace(PLAIN, schedule=Schedule("cosine"), epochs=4, lr=0.02)
    progress = train_network(network(), made_up(), made_up(seed=1), config, tmp_path, "x")
    assert [row["lr"] for row in progress.history] == pytest.approx(
        [0.02 * rate_at(config, 5 * epoch + 4, 5) for epoch in range(4)]
    )


def test_class_weights_are_the_inverse_roots_of_the_counts_with_mean_one():
    found = class_weights(np.repeat(np.eye(4, dtype=np.float32), [1, 4, 16, 0], axis=0))
    np.testing.assert_allclose(found, [1 / (7 / 12), 0.5 / (7 / 12), 0.25 / (7 / 12), 0], rtol=1e-6)
    np.testing.assert_allclose(class_weights(np.eye(3, dtype=np.float32)), 1.0)


def test_the_weighted_loss_is_torchs_cross_entropy():
    draw = rng()
    logits = torch.from_numpy(draw.normal(size=(6, 3)).astype(np.float32))
    labels = torch.from_numpy(draw.integers(0, 3, 6))
    y, of_class = functional.one_hot(labels, 3).float(), torch.tensor([0.5, 1.0, 2.0])
    for smoothing, of in ((0.0, None), (0.1, None), (0.0, of_class)):
        expected = functional.cross_entropy(logits, labels, weight=of, label_smoothing=smoothing)
        assert batch_loss(logits, y, smoothing, of, False).item() == pytest.approx(expected.item(), rel=1e-6)


def test_with_many_labels_each_is_a_question_of_its_own():
    logits, y = torch.tensor([[0.0, 2.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    by_hand = [math.log(2) + math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)) + math.log(2)]
    assert batch_loss(logits, y, 0.0, None, True).item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


def test_many_labels_a_clip_are_learned(tmp_path):
    clips = made_up(60, classes=3)
    clips.targets = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    features = [clips.read(i) for i in range(60)]
    for i in range(0, 60, 2):  # every second clip shows the next class too
        features[i][:, (i + 1) % 3] += 1.5
        clips.targets[i, (i + 1) % 3] = 1
    net = network(classes=3, hidden=16, units=64)
    train_network(net, clips, clips, replace(PLAIN, epochs=15), tmp_path, "x", multi_label=True)
    assert ((predict_logits(net, clips, 8) > 0) == (clips.targets > 0)).mean() >= 0.9


# Batches.


def test_a_clip_has_the_same_logits_whatever_it_is_padded_with(tmp_path):
    clips = made_up(12)
    for name, options in (
        ("gru", {"hidden": 8, "units": 8}),
        ("lstm", {"hidden": 8, "units": 8}),
        ("mean", {"units": 8}),
        ("single", {"units": 8}),
    ):
        net = network(name=name, **options).eval()
        alone, together = predict_logits(net, clips, 1), predict_logits(net, clips, 12)
        np.testing.assert_allclose(alone, together, atol=1e-5)
        batch = next(iter(clips.batches(Draw(12, range(12)))))
        spoiled = torch.where(batch.mask[..., None], batch.x, 1e3)
        with torch.no_grad():
            np.testing.assert_allclose(net(spoiled, batch.mask), together, atol=1e-5)


def test_frames_have_the_same_logits_whatever_they_are_padded_with():
    torch.manual_seed(0)
    extractor = build_extractor(Extractor(width=0.35, input_size=(32, 32), cut="block3", grid=2, weights="none"))
    options = {"channels": 4, "project": 8, "hidden": 8}
    net = ClipNetwork(build_head(Head("grid-gru", options), extractor.feature_shape, 2), extractor).eval()
    frames = [rng(n).integers(0, 256, (n + 2, 32, 32, 3), dtype=np.uint8) for n in range(4)]
    clips = FrameClips(frames.__getitem__, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], list("abcd"))
    np.testing.assert_allclose(predict_logits(net, clips, 1), predict_logits(net, clips, 4), atol=1e-5)


def frame_clips(delay: bool = False) -> FrameClips:
    frames = [rng(n).integers(0, 256, (5 + n % 3, 16, 16, 3), dtype=np.uint8) for n in range(10)]

    def read(index: int) -> np.ndarray:
        if delay:
            time.sleep(float(np.random.default_rng().uniform(0, 0.01)))
        return frames[index]

    return FrameClips(read, np.eye(10, dtype=np.float32), [str(n) for n in range(10)], max_frames=4)


PICTURES = {"speed": 0.2, "drop": 0.2, "zoom": 0.1, "shift": 0.1, "rotate": 5.0, "light": 0.2, "flip": 0.5}


def test_an_epoch_of_frames_is_the_same_whatever_the_timing_of_the_threads():
    order = rng().permutation(10).tolist()
    quick = list(frame_clips().batches(Draw(4, order, PICTURES, (0, 3))))
    slow = list(frame_clips(delay=True).batches(Draw(4, order, PICTURES, (0, 3))))
    assert [batch.names for batch in quick] == [tuple(str(i) for i in order[k : k + 4]) for k in (0, 4, 8)]
    for a, b in zip(quick, slow, strict=True):
        assert a.names == b.names
        for one, other in ((a.x, b.x), (a.mask, b.mask), (a.y, b.y)):
            assert torch.equal(one, other)
    another = next(iter(frame_clips().batches(Draw(4, order, PICTURES, (0, 4)))))
    assert another.x.shape != quick[0].x.shape or not torch.equal(another.x, quick[0].x)


def test_an_epoch_of_features_is_the_same_each_time_and_every_clip_is_in_it_once():
    order = rng(1).permutation(40).tolist()
    first, second = (list(made_up().batches(Draw(16, order, AUGMENT, (5, 2)))) for _ in range(2))
    assert [name for batch in first for name in batch.names] == [f"clip{i}.mp4" for i in order]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_clips_as_they_are_are_untouched_by_length_limit_and_augmentation():
    batch = next(iter(frame_clips().batches(Draw(10, range(10)))))
    read = frame_clips().read
    for i in range(10):
        frames = torch.from_numpy(read(i)).permute(0, 3, 1, 2).float()
        assert torch.equal(batch.x[i, : len(frames)], frames)
        assert batch.mask[i].tolist() == [t < len(frames) for t in range(batch.x.shape[1])]
        assert (batch.x[i, len(frames) :] == 0).all()


def test_training_sees_at_most_the_recipes_frames():
    clips = made_up(4)
    clips.max_frames = 3
    assert next(iter(clips.batches(Draw(4, range(4), {})))).x.shape == (4, 3, 6)
    assert next(iter(frame_clips().batches(Draw(10, range(10), {})))).x.shape[1] == 4


def test_a_clip_that_becomes_unreadable_stops_training_with_its_reason():
    def read(index):
        raise DataError("a.mp4: no such file")

    clips = FrameClips(read, np.eye(2, dtype=np.float32), ["a", "b"])
    with pytest.raises(TrainingError, match=r"became unreadable during training: a\.mp4: no such file"):
        list(clips.batches(Draw(2, [0, 1])))


def damaged_states(saved):
    """Checkpoints that lack something, or have something else in its place."""
    for key in ("progress", "network", "optimizer", "best"):
        yield {name: value for name, value in saved.items() if name != key}
        for value in (None, 3, [], {}, {"a": "b"}):
            if not (key == "best" and value is None):
                yield {**saved, key: value}
    optimizer = saved["optimizer"]
    yield {**saved, "optimizer": {**optimizer, "state": {0: {"step": torch.tensor(1.0)}}}}
    groups = [{key: value for key, value in optimizer["param_groups"][0].items() if key != "weight_decay"}]
    yield {**saved, "optimizer": {**optimizer, "param_groups": groups}}
    yield {**saved, "progress": {**saved["progress"], "zzz": 1}}
    yield {**saved, "progress": {**saved["progress"], "epoch": "x"}}
    yield {**saved, "progress": {**saved["progress"], "history": [1]}}


def test_a_checkpoint_that_lacks_something_is_one_line(tmp_path):
    from vidlet.training.checkpoint import Checkpoints, Progress

    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    folder = Checkpoints(tmp_path, "id")
    folder.save(Progress(epoch=1, history=[{"loss": 1.0}]), network, optimizer, None, dict(network.state_dict()))
    folder.load(network, optimizer, None)
    saved = torch.load(folder.checkpoint, weights_only=True)
    for changed in damaged_states(saved):
        torch.save(changed, folder.checkpoint)
        fresh = torch.nn.Linear(3, 2)
        with pytest.raises(TrainingError, match=r"checkpoint\.pt: not a whole checkpoint") as caught:
            folder.load(fresh, torch.optim.AdamW(fresh.parameters()), None)
        assert "\n" not in str(caught.value)
