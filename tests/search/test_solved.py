"""What ``train`` would choose, within a budget: members are chosen by the clips held out, and by what fits together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidlet.features import ClipFeatures, FeatureStore
from vidlet.models import build_head
from vidlet.search.proxy import Pool
from vidlet.search.solved import Solved
from vidlet.search.space import Space, cuts_of, place_of
from vidlet.training import ClipNetwork, FeatureClips, predict_logits

CUTS = cuts_of(cuts=("block3", "block6"), size=96)
SPACE = Space(extractors=CUTS, rates_hz=(8.0,))
SHAPES = {"block3": (6, 4, 4), "block6": (8, 4, 4)}


def pool_of(folder, held, clips=60):
    """Clips of three classes, told by where the peak of one number is: by the order of frames alone."""
    draw, stores = np.random.default_rng(0), {}
    labels = np.arange(clips) % 3
    for plan in CUTS:
        setting = {"shape": list(SHAPES[plan.cut]), "storage": "float32"}
        store = FeatureStore(folder, setting)
        written = []
        for number, label in enumerate(labels):
            x = draw.normal(0, 1.0, (12, *SHAPES[plan.cut])).astype(np.float32)
            x[:, 0] += np.roll(np.repeat([3.0, 0.0, -3.0], 4), 4 * label)[:, None, None]
            written.append((ClipFeatures(f"k{number}", x, np.arange(12.0)), "a.mp4"))
        store.write(written)
        stores[place_of(plan), 8.0] = setting
    keys = tuple(f"k{number}" for number in range(clips))
    return Pool(folder, stores, keys, np.eye(3, dtype=np.float32)[labels], held)


def solved(folder, held, penalty=lambda candidate: 0.0, clips=60):
    return Solved(SPACE, pool_of(folder, held, clips), CUTS, 3, penalty)


def bytes_of(candidate):
    return sum(p.numel() for p in candidate.counted_head(SHAPES["block6"], 3).parameters())


@pytest.mark.parametrize("folds", [1, 3])
def test_members_are_chosen_by_the_clips_that_were_held_out(tmp_path, folds):
    """Of one fold the others have no probabilities: with them in the choice it was made by chance."""
    held = tuple((np.arange(60) // 3) % 4 == i for i in range(folds))
    found = solved(tmp_path, held)
    auto, plain = found.candidates()
    worths = {m.candidate.name: m.accuracy - 0.3 * m.loss for m in found.measured}
    best = max(worths[name] for name in worths if name in auto[0].plan.name)
    assert best >= max(worths.values()) - 0.01 and sorted(worths.values())[len(worths) // 2] < best - 0.01
    assert auto[1].accuracy > 0.95 and auto[1].accuracy > plain[1].accuracy


def test_many_clips_get_the_statistics_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr("vidlet.selection.candidates.LARGE", 50)
    held = (np.arange(60) >= 45,)
    assert any("deviation+change" in m.candidate.name and "steps" in m.candidate.name
               for m in solved(tmp_path, held).measured)  # fmt: skip


def test_members_that_are_too_large_together_leave_some_out(tmp_path):
    held = tuple((np.arange(60) // 3) % 4 == i for i in range(3))
    whole = solved(tmp_path / "a", held).candidates()[0][0]
    assert len(whole.blended) > 1
    limit = bytes_of(whole) - 1
    less = solved(tmp_path / "b", held, lambda c: 0.0 if bytes_of(c) <= limit else None).candidates()[0]
    assert bytes_of(less[0]) <= limit and less[1].accuracy > 0.95
    assert solved(tmp_path / "c", held, lambda candidate: None).candidates() == []


def test_what_a_storage_costs_counts(tmp_path):
    """A blend that needs a storage with a point of loss more must be better by that."""
    held = tuple((np.arange(60) // 3) % 4 == i for i in range(3))
    dear = solved(tmp_path, held, lambda c: 0.5 if len(c.blended) > 1 else 0.0).candidates()[0][0]
    assert len(dear.blended) == 1


def test_the_recurrent_head_is_as_large_as_the_budget_permits(tmp_path):
    held = (np.arange(60) >= 45,)
    first = solved(tmp_path / "a", held).recurrent()
    limit = 30_000
    small = solved(tmp_path / "b", held, lambda c: 0.0 if bytes_of(c) <= limit else None).recurrent()
    assert first.copies == 2 and small.copies == 1 and small.options["hidden"] < 128
    assert solved(tmp_path / "c", held, lambda c: None if "grid-gru" in c.recipe else 0.0).recurrent() is None


def test_a_recurrent_head_is_of_the_deepest_cut_that_has_room_for_it_and_a_small_one_drops_fewer_units(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("vidlet.selection.candidates.LARGE", 50)
    held = (np.arange(60) >= 45,)
    first = solved(tmp_path / "a", held).recurrent()
    assert first.cuts == ("block6",) and first.options["dropout"] == 0.5

    def shallow(candidate):  # the deeper cut has room for a probe alone
        return None if "block6" in candidate.plan.extractor.cut and candidate.is_trained else 0.0

    assert solved(tmp_path / "b", held, shallow).recurrent().cuts == ("block3",)
    sizes = list(solved(tmp_path / "c", held)._sizes())
    own = [member for member in sizes if member.cuts == ("block6",)]
    assert sizes[: len(own)] == own and len({member.name for member in sizes}) == len(sizes)
    drops = [member.options["dropout"] for member in own]
    assert drops == sorted(drops, reverse=True) and drops[-1] < 0.5


@pytest.mark.parametrize(("count", "taken"), [(1, 1), (2, 2), (4, 3)])
def test_where_no_cut_is_that_of_train_the_deepest_three_are_looked_at(tmp_path, monkeypatch, count, taken):
    plans = cuts_of(cuts=("block1", "block2", "block3", "block4"), size=96)[:count]
    monkeypatch.setattr("vidlet.search.solved.measure_probes", lambda *_, **__: [])
    pool = pool_of(tmp_path, (np.arange(60) >= 45,))
    stores = {(place_of(plan), 8.0): pool.stores[place_of(CUTS[0]), 8.0] for plan in plans}
    found = Solved(SPACE, replace(pool, stores=stores), plans, 3, lambda candidate: 0.0)
    assert found.cuts == list(plans[-taken:]) == list(plans)[len(plans) - taken :]


def test_a_recurrent_head_sees_its_cut_alone_with_noise_of_its_channels(tmp_path):
    """As in the training of its file: the unit of the noise is each channel's deviation."""
    found = solved(tmp_path, (np.arange(60) >= 45,))
    pool, (_, std) = found._own(found.recurrent())
    x = np.stack([pool.clips.read(row) for row in range(60)])  # (N, T, C, 4, 4)
    assert x.shape[2:] == SHAPES["block6"] and list(pool.places) == ["block6"]
    np.testing.assert_allclose(pool.clips.spread, x.std((0, 1, 3, 4)), rtol=1e-4)
    np.testing.assert_array_equal(pool.clips.spread, std)


def test_a_head_that_was_tried_is_that_of_its_file(tmp_path, monkeypatch):
    """Written, it says of the held out clips what was said when it was tried; the probes beside it are solved."""
    monkeypatch.setattr("vidlet.selection.candidates.LARGE", 50)
    held = (np.arange(60) >= 45,)
    found = solved(tmp_path, held)
    member = found.recurrent()
    paced = found.pace(member, "cpu")
    assert found.keeps(member) and paced.epoch_s > 0 and paced.training.epochs > 1
    found.train(paced, 2, "cpu")
    (tried, config, _) = found.trained[0]
    assert config.epochs == 2
    found.measured = [m for m in found.measured if m.candidate.name == "block6 segments+steps"]
    monkeypatch.setattr("vidlet.search.solved.choose_that_fits", _all_of)
    candidate, _ = found.candidates()[0]
    assert candidate.is_trained and candidate.plan.training.epochs == 2
    found.write_head(candidate, tmp_path / "head.pt")
    shape = (sum(np.prod(SHAPES[cut]) for cut in SHAPES),) if "+" in candidate.plan.extractor.cut else SHAPES["block6"]
    head = build_head(candidate.head, tuple(int(n) for n in shape), 3)
    head.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    clips = found.every.clips
    assert isinstance(clips, FeatureClips)
    wide = clips if len(shape) == 1 else clips.reading(lambda i: clips.read(i)[:, -128:].reshape(-1, *SHAPES["block6"]))
    logits = predict_logits(ClipNetwork(head.eval()), wide.some(np.flatnonzero(held[0])), 8)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    p = odds / odds.sum(1, keepdims=True)
    members = [tried.probabilities[held[0]], found.measured[0].probabilities[held[0]]]
    np.testing.assert_allclose(p, np.mean(members, 0), atol=2e-3)


def _all_of(measured, targets, penalty):
    from vidlet.selection.choose import choice_of, weights_of

    return choice_of(tuple(measured), weights_of(tuple(measured)), targets)
