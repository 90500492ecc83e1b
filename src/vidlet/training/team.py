"""Several processes that train one network: ``torchrun --nproc-per-node 2 -m vidlet train DATA``.

Every process draws the same batches and computes its items of each; the sums of gradients are those of one process
with the same batch. Norms see the items of all (``shared_norms``), validation items are dealt out without padding, and
only the first process writes and speaks. Whoever ends early ends all, and one of them says why.

Source of the shared norms: Chan, Golub and LeVeque 1979 (moments of parts); Peng et al. 2018, arXiv:1711.07240.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import TrainingError, VidletError
from ..files import lives
from ..progress import started_by_torchrun
from ..wording import shown
from .statistics import learning_norms

PATIENCE = timedelta(days=7)  # the others wait while the first extracts features; a dead one is noticed at once
P = ParamSpec("P")
R = TypeVar("R")


class Team:
    """The processes that train together, seen by one of them; this class itself is a process alone.

    Attributes:
        rank: this process's number, from 0, of ``size``.
        place: its number among those of its machine.
        idle: the batch has too few items for all; this process computes one that does not count.
    """

    def __init__(self, rank: int = 0, size: int = 1, place: int = 0) -> None:
        self.rank, self.size, self.place, self.idle = rank, size, place, False

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def tell(self, value: R) -> R:
        """The value that the first process has."""
        return value

    def gather(self, value: R) -> list[R]:
        """What each has, in their order."""
        return [value]

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all."""
        return tensor

    def items(self, count: int) -> list[int]:
        """The items of a batch of so many that this process computes, by their numbers; one in any case."""
        return list(range(self.rank, count, self.size)) or [0]

    def deal(self, rows: slice, there: Sequence[int]) -> slice | list[int]:
        """Those of some rows of a batch that this process computes; ``idle`` says that they do not count.

        Args:
            there: all that it has of the batch (``items``).
        """
        if self.size == 1:
            return rows
        own = [row for row in there if rows.start <= row < rows.stop and row % self.size == self.rank]
        self.idle = not own
        return own or [there[0]]

    def add_gradients_(self, network: nn.Module, *figures: float) -> list[float]:
        """Put the sums of all gradients into the network; the sums of ``figures``, in one exchange.

        A parameter that no process has a gradient of keeps none.
        """
        if self.size == 1:
            return list(figures)
        learning = [weight for weight in network.parameters() if weight.requires_grad]
        there = [float(weight.grad is not None) for weight in learning]
        device = learning[0].device
        parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in learning]
        flat = torch.cat([_full(part).flatten() for part in parts])
        total = self.add(torch.cat([flat, flat.new_tensor([*there, *figures])]))
        sizes = [part.numel() for part in parts]
        *sums, found = total.split([*sizes, len(there) + len(figures)])
        told = found.to(device="cpu", dtype=torch.float64).tolist()
        for weight, part, present in zip(learning, sums, told, strict=False):
            weight.grad = part.view_as(weight).to(device, weight.dtype) if present else None
        return [float(figure) for figure in told[len(there) :]]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """What the first process of a machine leaves on its disk, the others of it find."""
        if self.place:
            self.gather(None)
        yield
        if not self.place:
            self.gather(None)


ALONE = Team()


class Joined(Team):
    """The processes that torchrun started: gloo between processors, NCCL between GPUs."""

    def __init__(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        self.store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        own = dist.PrefixStore("group", self.store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
        super().__init__(rank, size, int(os.environ.get("LOCAL_RANK", "0")))
        self.leader = self.tell((platform.node(), os.getpid()))

    def tell(self, value: R) -> R:
        """See Team.tell."""
        box = [value if self.leads else None]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]  # type: ignore[return-value]

    def gather(self, value: R) -> list[R]:
        """See Team.gather."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def add(self, tensor: Tensor) -> Tensor:
        """See Team.add."""
        dist.all_reduce(tensor)
        return tensor

    def first_to_speak(self) -> bool:
        """True once among all processes; where nobody can be asked any more, always."""
        try:
            return bool(self.store.add("said", 1) == 1)
        except Exception:  # the store went with the process that kept it
            return True

    def leader_lives(self) -> bool:
        """Whether the first process is still there, as far as its machine is ours."""
        machine, process = self.leader
        return machine != platform.node() or lives(process)


_team = ALONE


def the_team() -> Team:
    """The processes that run this job with us: just this one, unless torchrun started several (``together``)."""
    return _team


def together(job: Callable[P, R]) -> Callable[P, R]:
    """Let a job run in all processes that torchrun started, and end in all when it fails in one, with one sentence.

    Raises:
        TrainingError: another process ended; and whatever the job raises. Where another one speaks, SystemExit.
    """

    @functools.wraps(job)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        global _team  # noqa: PLW0603
        if not started_by_torchrun() or _team is not ALONE:
            return job(*args, **kwargs)
        _team = team = Joined()
        try:
            try:
                check_alike(team, version("vidlet"), "runs another vidlet ({}, not {})")
                return job(*args, **kwargs)
            except Exception as error:
                raise _ended(error, team) from error
        except KeyboardInterrupt:
            if team.leads and team.first_to_speak():
                raise
            if not team.leader_lives() and team.first_to_speak():
                _say(_gone(team))
            raise SystemExit(130) from None
        finally:
            _team = ALONE
            with suppress(Exception):
                dist.destroy_process_group()

    return run


def _ended(error: Exception, team: Joined) -> BaseException:
    """What this process raises when the job failed in it, or in another one."""
    first = team.first_to_speak()
    if isinstance(error, RuntimeError) and _lost(error):
        error = _gone(team)
    if not isinstance(error, VidletError):
        return error  # our mistake: its trace is shown
    if first and not team.leads:
        _say(error, f"process {team.rank + 1} of {team.size}: ")
    return error if first and team.leads else SystemExit(2)


def _gone(team: Team) -> TrainingError:
    return TrainingError(
        f"another of the {team.size} processes of this training ended; every finished epoch is kept: "
        "go on with --resume"
    )


def _say(error: VidletError, whose: str = "") -> None:
    """The one sentence of a process that is silent otherwise."""
    print(shown(" ".join(f"{type(error).__name__}: {whose}{error}".split())), file=sys.stderr, flush=True)


def _lost(error: RuntimeError) -> bool:
    """Whether an exchange failed because a process is gone."""
    words = ("closed by peer", "connection reset", "broken pipe", "socket", "nccl", "gloo", "timed out", "recvvalue")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def check_device(team: Team, device: str) -> None:
    """Give each process its GPU.

    Raises:
        TrainingError: a machine has more processes than GPUs.
    """
    if team.size == 1 or device != "cuda":
        return
    there = torch.cuda.device_count()
    if team.place >= there:
        raise TrainingError(f"torchrun: more processes than GPUs on this machine ({there}); or train with --device cpu")
    torch.cuda.set_device(team.place)


def check_alike(team: Team, own: str, otherwise: str) -> None:
    """Hold all processes to one value.

    Args:
        otherwise: what a process does whose value is another than the first one's; "{}" in it are both.

    Raises:
        TrainingError: names the process.
    """
    found = team.gather(own)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise TrainingError(f"process {rank + 1} of {team.size} {otherwise.format(other, found[0])} than the first")


def same_weights_(team: Team, network: nn.Module) -> None:
    """Give every process the weights of the first."""
    if team.size > 1:
        network.load_state_dict(team.tell({name: value.cpu() for name, value in network.state_dict().items()}))


def own_rows(team: Team, count: int) -> Sequence[int]:
    """This process's stretch of so many items, for evaluation: each item is one process's, none is padded."""
    return range(count * team.rank // team.size, count * (team.rank + 1) // team.size)


@contextmanager
def shared_norms(network: nn.Module, team: Team) -> Iterator[None]:
    """Inside of this every norm that learns sees the items of all processes, as one process would."""
    norms = learning_norms(network) if team.size > 1 else []
    for norm in norms:
        norm.forward = functools.partial(_shared_norm, norm, team)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _shared_norm(norm: _BatchNorm, team: Team, x: Tensor) -> Tensor:
    """``norm`` of x (B, C, ...) by the mean and deviation of all processes' items."""
    if not norm.training:
        return type(norm).forward(norm, x)
    dims = [0, *range(2, x.ndim)]
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        own = _full(x.detach())
        count = 0 if team.idle else own.numel() // own.shape[1]
        mean = own.mean(dims)
        rest = (own - _wide(mean, own)).square().sum(dims)
        table = own.new_zeros(team.size, 2 * len(mean) + 1)  # a process a row: its mean, squares around it, its count
        if count:
            table[team.rank] = torch.cat([mean, rest, mean.new_tensor([count])])
        table = team.add(table)
        means, squares, counts = table.split([len(mean), len(mean), 1], 1)  # (N, C), (N, C), (N, 1)
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        variance = (squares + counts * (means - mean).square()).sum(0) / total
        _note(norm, mean, variance * total / (total - 1).clamp(min=1))
    found: Tensor = _Normalize.apply(x, norm.weight, norm.bias, mean, variance, norm.eps, total, team)
    return found


def _note(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics, as ``norm`` itself would."""
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None and norm.running_var is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


class _Normalize(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, where mean and deviation follow from the x of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor,
                eps: float, total: Tensor, team: Team) -> Tensor:  # fmt: skip
        scale = (variance + eps).rsqrt()
        normal = (_full(x) - _wide(mean, x)) * _wide(scale, x)
        ctx.save_for_backward(normal, weight, scale, total)
        ctx.team, ctx.idle, ctx.kind, ctx.moved = team, team.idle, x.dtype, bias is not None
        out = normal if weight is None else normal * _wide(weight, x)
        return (out if bias is None else out + _wide(bias, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, scale, total = ctx.saved_tensors
        grad = _full(grads[0])
        dims = [0, *range(2, grad.ndim)]
        own = torch.stack([grad.sum(dims), (grad * normal).sum(dims)])  # (2, C)
        plain, along = ctx.team.add(own.clone()) / total
        inner = grad - _wide(plain, grad) - normal * _wide(along, grad)
        inner = inner * _wide(scale if weight is None else scale * weight, grad) * (not ctx.idle)
        of_weight, of_bias = None if weight is None else own[1], own[0] if ctx.moved else None
        return inner.to(ctx.kind), of_weight, of_bias, None, None, None, None, None


def _full(x: Tensor) -> Tensor:
    """In float32, or in more where it has more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,) as they multiply x (B, C, ...)."""
    return values.view(-1, *[1] * (x.ndim - 2))
