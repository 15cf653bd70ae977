"""The processes that train or embed together: `torch.distributed` under `torchrun`, or one process alone.

Every process holds the whole model and, in training, takes whole pages of the same batch. What a process needs of the
others goes through `Peers`; with a single process each of its methods gives back what it was given, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from stage3.errors import ConfigError, Interrupted, PeerGone

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # the others wait while the first process makes features; a dead one is noticed at once


@dataclass(frozen=True)
class Peers:
    """This process among those that train together.

    Attributes:
        rank: 0 to size - 1; process 0 leads: it alone writes the run.
        size: number of processes.
        local_rank: its number on this machine, which is that of its GPU.
        parent: process id of what started it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    parent: int = 0

    @property
    def orphaned(self) -> bool:
        """Whether the process that started this one is gone, so that nobody would end it."""
        return self.size > 1 and os.getppid() != self.parent

    def device(self, kind: str) -> torch.device:
        """Where this process computes: each on a GPU of its own."""
        return torch.device(kind, self.local_rank) if self.size > 1 and kind == "cuda" else torch.device(kind)

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def gather(self, *rows: Tensor) -> tuple[list[Tensor], slice]:
        """Rows (n, …) of all processes in the order of ranks, and where this process's own stand.

        Gradients flow back: each process gets the sum over all processes of what its rows received.

        Args:
            rows: tensors with the same first dimension, which may differ between processes and be 0.
        """
        n = len(rows[0])
        if self.size == 1:
            return list(rows), slice(0, n)
        counts = self._counts(n)
        first = sum(counts[: self.rank])
        return [_gathered(r, counts, first) for r in rows], slice(first, first + n)

    def spans(self, n: int) -> tuple[slice, int]:
        """Where this process's `n` rows stand among those of all, and how many they are."""
        if self.size == 1:
            return slice(0, n), n
        counts = self._counts(n)
        first = sum(counts[: self.rank])
        return slice(first, first + n), sum(counts)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over the processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=_device())
        with _together():
            dist.all_reduce(total)
        return total.tolist()

    def sum_by_name(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums of numbers with names; the leader knows all the names."""
        if self.size == 1:
            return dict(values)
        names = self.share(list(values))
        return dict(zip(names, self.sum([values.get(name, 0.0) for name in names]), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sum([float(flag)])[0] > 0

    def share(self, value: T) -> T:
        """The leader's value, in every process; plain values, which torch pickles on their way and nowhere else."""
        if self.size == 1:
            return value
        held: list[Any] = [value]
        with _together():
            dist.broadcast_object_list(held, src=0, device=_device())
        shared: T = held[0]
        return shared

    def collect(self, value: T) -> list[T]:
        """Every process's value in the order of ranks, in every process; plain values, as with `share`."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Go on once every process has come here."""
        self.sum([0.0])

    def leader_first(self, work: Callable[[], T]) -> T:
        """Do some work in every process, in the others once the leader is done: they find what it left on the disk."""
        made = work() if self.leads else None
        self.wait()
        return work() if made is None else made

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one that no process has stays None.

        So a parameter that the batch did not use is left alone by the optimizer, as with one process.
        """
        if self.size == 1:
            return
        learned = [p for p in parameters if p.requires_grad]
        used = self.sum([float(p.grad is not None) for p in learned])
        reached = [p for p, n in zip(learned, used, strict=True) if n]
        for p in reached:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        for dtype in dict.fromkeys(p.dtype for p in reached):
            grads = [p.grad for p in reached if p.dtype == dtype and p.grad is not None]
            flat = torch.cat([g.flatten() for g in grads])
            with _together():
                dist.all_reduce(flat)
            for grad, summed in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
                grad.copy_(summed.view_as(grad))

    def own_share(self, pages: np.ndarray, panels: np.ndarray) -> np.ndarray:
        """This process's pages of a batch: consecutive ones, with about the same number of panels each.

        Args:
            pages: (n,) page rows of the whole batch.
            panels: (n,) how many panels each has.
        """
        if self.size == 1:
            return pages
        middle = np.cumsum(panels) - panels / 2
        owner = np.minimum(middle * self.size / max(int(panels.sum()), 1), self.size - 1).astype(np.int64)
        own: np.ndarray = pages[owner == self.rank]
        return own

    def _counts(self, n: int) -> list[int]:
        each = torch.zeros(self.size, dtype=torch.int64, device=_device())
        each[self.rank] = n
        with _together():
            dist.all_reduce(each)
        counts: list[int] = each.tolist()
        return counts


ALONE = Peers()


@contextmanager
def joined(device: Callable[[], str] = lambda: "cpu") -> Iterator[Peers]:
    """The processes that `torchrun` started, connected inside; `ALONE` where nothing started several.

    Args:
        device: asked where there are several, gives where the model is; GPUs talk by NCCL, processors by gloo.

    Raises:
        ConfigError: the environment names several processes but not how to reach them, or all are to use one GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {size}, but {missing[0]} is not set. Start several processes with torchrun.")
    peers = Peers(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]), os.getppid())
    where = device()
    if where.startswith("cuda:"):
        raise ConfigError(f"device: {where} is one GPU for {size} processes. Give cuda: each takes one of its own.")
    if where == "cuda":
        torch.cuda.set_device(peers.local_rank)
    store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun may keep its store over a restart: what the processes before left there would be taken for ours
    own = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if where == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, store=own, rank=rank, world_size=size)
    try:
        yield peers
    finally:
        dist.destroy_process_group()


def _device() -> torch.device:
    """Where tensors must be to be sent: NCCL takes those of a GPU alone, gloo those of the processor."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def by_torchrun() -> bool:
    """Whether `torchrun` started this process, and would start it again after any exit code but 0."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def code_of_stop(stopped: Interrupted, say: Callable[[str], None]) -> int:
    """The exit code of work that was stopped as asked: 0 under `torchrun`, which would begin again after any other.

    Args:
        stopped: what ended the work.
        say: prints that it was stopped, where it is not raised.

    Raises:
        Interrupted: itself, without `torchrun`, or where another process is gone: then to begin again is right.
    """
    if isinstance(stopped, PeerGone) or not by_torchrun():
        raise stopped
    say(str(stopped))
    return 0


@contextmanager
def _together() -> Iterator[None]:
    """A collective inside; when another process has died it cannot end.

    Raises:
        PeerGone: another process is gone; what the run has saved is there to resume from.
    """
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PeerGone(f"another of these processes is gone; the same command goes on ({reason})") from error


def _gathered(rows: Tensor, counts: list[int], first: int) -> Tensor:
    if torch.is_grad_enabled() and rows.is_floating_point() and not rows.requires_grad:
        rows = rows.detach().requires_grad_()  # nothing of its own was encoded, but backward needs every process
    found: Tensor = _Gather.apply(rows.to(_device()), counts, first)  # type: ignore[no-untyped-call]
    return found.to(rows.device)


class _Gather(torch.autograd.Function):
    """Concatenation over processes; backward sums the gradients that all processes have for one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], first: int) -> Tensor:
        ctx.own = slice(first, first + len(rows))
        sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows.contiguous()
        padded = sent.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = sent
        received = [torch.empty_like(padded) for _ in counts]
        with _together():
            dist.all_gather(received, padded)
        return torch.cat([r[:n] for r, n in zip(received, counts, strict=True)]).to(rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        total = upstream.contiguous().clone()
        with _together():
            dist.all_reduce(total)
        return total[ctx.own], None, None
