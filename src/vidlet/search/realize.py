"""From a candidate to files: train it whole, write it in several storages, score and measure each as a file."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compression import CLIP_STEPS, Chain, Step, Trained, chain_text, find_chain, shrink_network, split_chain
from ..compression.shrink import sized_as
from ..datasets import ClipTable
from ..models import build_extractor, build_head
from ..models.ensemble import Ensemble, heads_of
from ..models.head import Head
from ..runtime import benchmark, load
from ..tasks.clip_networks import Workshop
from ..tasks.clips import score_together, summarize
from ..tasks.prepare import prepare_features
from ..training import ClipNetwork, predict_logits, save_tensors, train_network
from .proxy import outcome_of, worth
from .space import Candidate, Space


@dataclass(frozen=True)
class Point:
    """A file that exists, and what was measured of it on the validation clips."""

    candidate: Candidate
    chain: str
    file: str  # under the search's folder
    bytes: int
    accuracy: float
    loss: float  # mean cross-entropy of its scores
    interval: tuple[float, float]
    clips: int
    measured: dict[str, Any]  # frame_ms, clip_ms, peak_rss_bytes
    temperature: float | None
    seconds: float  # to train what was not yet trained, and to write it
    head_worth: float | None = None  # of the trained head on the same clips, before the chain
    judged: float | None = None  # of the candidate on all folds, trained as long as for a file

    @property
    def score(self) -> float:
        """What files are chosen by: as trials are (proxy.py).

        Where the candidate was judged on all folds, that and what the chain cost on this file's clips: one fold alone
        is a few clips.
        """
        own = worth(self.accuracy, self.loss)
        return own if self.judged is None or self.head_worth is None else self.judged + own - self.head_worth

    def describe(self) -> str:
        """The candidate and how it is stored."""
        return f"{self.candidate.describe()}, {self.chain or 'float32'}"


def realize(
    space: Space,
    table: ClipTable,
    candidate: Candidate,
    epochs: int,
    chains: Sequence[str],
    folder: Path,
    judged: float | None = None,
    workers: int = 1,
    device: str = "cpu",
) -> list[Point]:
    """Train a candidate as ``vidlet train`` would by its recipe; write, score and measure a file for each chain.

    A head that was trained for an earlier file is taken from ``folder``/KEY.head.pt.

    Args:
        judged: what the candidate is worth on all folds, where that is known (``Point.judged``).
        workers: threads that score the files.
        device: where it is trained.

    Returns:
        a point a chain; the files are ``folder``/KEY.CHAIN.onnx.
    """
    started = time.monotonic()
    torch.set_num_threads(1)
    workshop, trained = _trained(space, table, candidate, epochs, chains, folder / f"{candidate.key}.head.pt", device)
    points: list[Point] = []
    if not chains:
        return points
    val = workshop.features(trained.extractor)[1]
    figures = outcome_of(predict_logits(ClipNetwork(trained.head), val, space.batch), val.targets)
    files: list[tuple[Path, str, float]] = []
    for chain in chains:
        path = folder / f"{candidate.key}.{file_label(chain)}.onnx"
        network, graph = _parts(chain)
        shrunk = _shrunk(workshop, trained, network, candidate.key, folder)
        workshop.write(shrunk, graph, path, taken=network)
        files.append((path, chain, time.monotonic() - started))
        started = time.monotonic()
    for point in measure(files, candidate, table, workers):
        points.append(replace(point, head_worth=worth(*figures), judged=judged))
    return points


def refit(
    space: Space,
    table: ClipTable,
    point: Point,
    epochs: int,
    path: Path,
    folder: Path,
    seconds: float,
    device: str = "cpu",
) -> tuple[int, int]:
    """Train a point's candidate once more on all clips of a table, train and val, and write it as the point is stored.

    Steps that train do so on the float32 features, as for the point: no further pass over the clips. The temperature
    stays that of the point, which was fitted on clips that it had not seen. Of several heads the first is trained once
    more, the others while the time lasts; the rest stays as it was trained for the point.

    Args:
        folder: of the files of the search, with the heads of the point.
        seconds: the time that is left; one training is made in any case.

    Returns:
        How many heads were trained once more, and how many there are.
    """
    started = time.monotonic()
    everything = [replace(clip, split="train") for clip in table]
    watched = [clip for clip in table if clip.split == "val"]  # for the log only
    whole = table.with_clips([*everything, *watched])
    workshop, trained = _trained(space, whole, point.candidate, epochs, [point.chain], None, device)
    network, graph = _parts(point.chain)
    members = members_of(network)
    took = time.monotonic() - started
    again = min(members, max(1, int(seconds / took)))
    if again == members:
        done = shrink_network(network, trained, workshop.material)
    else:
        fewer = (*network[:-1], *([Step("ensemble", again)] if again > 1 else []))
        new = shrink_network(fewer, trained, workshop.material).head
        old = _load_heads(trained.head, members, _kept_network(folder, point.candidate.key, network))
        done = Trained(trained.extractor, Ensemble([*heads_of(new), *heads_of(old)[again:]]).eval())
    workshop.write(done, graph, path, point.temperature, taken=network)
    return again, members


def trained_parts(folder: Path, candidate: Candidate, chain: str) -> tuple[bool, bool]:
    """Whether a candidate's head is already trained, and whether the steps of a chain that train are taken, too."""
    network, _ = _parts(chain)
    head = (folder / f"{candidate.key}.head.pt").exists()
    return head, head and (not network or _kept_network(folder, candidate.key, network).exists())


def members_of(network: Chain) -> int:
    """How many heads steps of training give: 1, unless the last of them makes an ensemble."""
    heads = CLIP_STEPS[network[-1].name].heads if network else 1
    return heads if heads == 1 else int(network[-1].amount or heads)


def _parts(chain: str) -> tuple[Chain, Chain]:
    """The steps of a chain that train the network, and those that store its graph."""
    return split_chain(find_chain(chain) if chain else (), CLIP_STEPS)


def _shrunk(workshop: Workshop, trained: Trained, network: Chain, key: str, folder: Path) -> Trained:
    """The network after its steps of training, which are taken once: heads are kept beside the files."""
    if not network:
        return trained
    kept = _kept_network(folder, key, network)
    if not kept.exists():
        shrunk = shrink_network(network, trained, workshop.material)
        save_tensors(shrunk.head.state_dict(), kept)
        return shrunk
    return Trained(trained.extractor, _load_heads(trained.head, members_of(network), kept))


def _kept_network(folder: Path, key: str, network: Chain) -> Path:
    return folder / f"{key}.{file_label(chain_text(network))}.pt"


def _load_heads(like: Head, members: int, kept: Path) -> Head:
    """A head as it was kept, with fewer units if some were removed, or several in one."""
    state = torch.load(kept, weights_only=True)
    if members > 1:
        head: Head = Ensemble([copy.deepcopy(like) for _ in range(members)])
    elif {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in like.state_dict().items()}:
        head = copy.deepcopy(like)
    else:
        head = sized_as(like, state)
    head.load_state_dict(state)
    return head.eval()


def _trained(
    space: Space,
    table: ClipTable,
    candidate: Candidate,
    epochs: int,
    chains: Sequence[str],
    kept: Path | None,
    device: str,
) -> tuple[Workshop, Trained]:
    plan = space.recipe(candidate, f"fit-{candidate.key}", chains, epochs)
    torch.manual_seed(plan.training.seed)
    extractor = build_extractor(plan.extractor)
    head = build_head(plan.head, extractor.feature_shape, len(table.labels))
    prepared = prepare_features(plan, table, extractor, strict=False)
    if kept is not None and kept.exists():
        head.load_state_dict(torch.load(kept, weights_only=True))
        head.eval()
    else:
        clips, config = (prepared.train, prepared.val), plan.training
        train_network(ClipNetwork(head), *clips, config, device=device, moments=prepared.moments)
        if kept is not None:
            save_tensors(head.state_dict(), kept)
    return Workshop(plan, table, prepared, extractor, device), Trained(extractor, head)


def measure(
    files: Sequence[tuple[Path, str, float]], candidate: Candidate, table: ClipTable, workers: int = 1
) -> list[Point]:
    """Score a candidate's files on the validation clips of a table, and time them, from the files alone.

    Args:
        files: path, chain, and the seconds that making it took.
    """
    models = [load(path, threads=1) for path, _, _ in files]
    points = []
    scores = score_together(models, table.of_split("val"), workers=workers)
    for (path, chain, seconds), model, scored in zip(files, models, scores, strict=True):
        figures = summarize(scored, model)
        given = scored.scores[np.arange(len(scored.labels)), scored.labels]  # the probability of each clip's label
        timed = benchmark(path, seconds=1.0, threads=1)
        point = Point(
            candidate,
            chain,
            path.name,
            path.stat().st_size,
            figures["accuracy"],
            float(-np.log(np.maximum(given, 1e-6)).mean()),
            (float(figures["accuracy_interval"][0]), float(figures["accuracy_interval"][1])),
            figures["clips"],
            {key: timed[key] for key in ("frame_ms", "clip_ms", "peak_rss_bytes", "load_ms")},
            model.metadata.get("temperature"),
            round(seconds, 2),
        )
        points.append(point)
    return points


def file_label(chain: str) -> str:
    """A chain as part of a file's name."""
    return chain.replace(":", "").replace("+", "-") or "float32"


def point_record(point: Point) -> dict[str, Any]:
    """A point as the log keeps it."""
    return asdict(point)


def point_of(record: dict[str, Any]) -> Point:
    """A point from its record."""
    values = {k: v for k, v in record.items() if k != "kind"}
    return Point(**{**values, "candidate": Candidate(**values["candidate"]), "interval": tuple(values["interval"])})
