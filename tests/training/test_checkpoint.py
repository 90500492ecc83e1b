"""A killed run ends where an unbroken one does; a checkpoint that is not whole is refused."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training_case import AUGMENT, PLAIN, assert_same, made_up, network, weights
from vidlet.errors import TrainingError
from vidlet.recipe import Averaging, Schedule
from vidlet.training import checkpoint, train_network


class Killed(BaseException):
    """Stands for kill -9: nothing of the loop catches it."""


def kill_after(epoch: int):
    def report(row, _):
        if row["epoch"] == epoch:
            raise Killed

    return report


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
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from training_case import PLAIN, made_up, network
        from vidlet.training import train_network
        clips = made_up()
        read = clips.read
        clips.read = lambda i: (time.sleep(0.004), read(i))[1]
        train_network(network(), clips, made_up(seed=1), PLAIN, Path({str(tmp_path / "run")!r}), "x")
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    log, deadline = tmp_path / "run" / "log.csv", time.monotonic() + 60  # its third row: two checkpoints are whole
    while not (log.exists() and log.read_text().count("\n") >= 4) and time.monotonic() < deadline:
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


@pytest.mark.parametrize("name", ["log.csv", "checkpoint.pt"])
def test_a_full_disk_leaves_the_checkpoint_of_the_epoch_before(name, tmp_path, monkeypatch):
    import errno

    clips, val, config = made_up(), made_up(seed=1), replace(PLAIN, epochs=2)
    train_network(network(), clips, val, replace(config, epochs=1), tmp_path, "x")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patched:

        def full(number):
            drafts = list(tmp_path.glob(f".{Path(name).stem}.*.part*"))
            if any(path.stat().st_ino == os.fstat(number).st_ino for path in drafts):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr("vidlet.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left") as told:
            train_network(network(), clips, val, config, tmp_path, "x", resume=True)
    assert told.value.filename == str(tmp_path / name)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*part*"))


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
    for key, value in (("betas", (1e300, 0.999)), ("eps", 1e-7), ("lr", float("nan"))):
        groups = [{**optimizer["param_groups"][0], key: value}]
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


def test_the_log_of_an_epoch_is_there_before_its_checkpoint(tmp_path, monkeypatch):
    """Killed in between, the epoch is trained again; the other way round its row would be lost."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        train_network(network(), made_up(), made_up(seed=1), PLAIN, tmp_path, "x")
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "checkpoint.pt").exists()
