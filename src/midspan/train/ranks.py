"""The processes of a run: one, or as many as `torchrun` started.

    midspan train RECIPE                                          one process, no process group
    torchrun --nproc-per-node 8 -m midspan train RECIPE           eight, nccl where there are GPUs, gloo elsewhere
    torchrun --nproc-per-node 8 -m midspan run LINEAGE            joined once, for all stages

Rank 0 alone prints, compiles rows and writes what is not a shard. The others wait for it on a group of its own,
which has no timeout to speak of: compiling the rows of a long stage takes hours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed as dist

from midspan.errors import InputError

T = TypeVar("T")

_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world: int
    device: torch.device
    """Where this process computes."""
    control: dist.ProcessGroup | None
    """A group on the host for everything that is not training; None in a run of one process."""

    def with_own_group(self) -> Ranks:
        """The same processes with a host group of their own, for a thread; every rank must ask for it."""
        if self.control is None:
            return self
        return replace(self, control=dist.new_group(backend="gloo", timeout=_PATIENCE))

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for the run."""
        return self.rank == 0

    def sums(self, *values: float) -> list[float]:
        """Each value added up over all ranks; exact for whole numbers."""
        if self.control is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return total.tolist()

    def first(self, work: Callable[[], T]) -> T | None:
        """Let rank 0 work while the others wait; what it raises ends them all, and only rank 0 says why."""
        if self.control is None:
            return work()
        result: T | None = None
        failure: BaseException | None = None
        if self.is_first:
            try:
                result = work()
            except BaseException as error:
                failure = error
        code = self.agreed(None if failure is None else 2 if isinstance(failure, InputError) else 1)
        if failure is not None:
            raise failure
        if code is not None:
            raise SystemExit(code)
        return result

    def agreed(self, value: T) -> T:
        """What rank 0 says."""
        if self.control is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def everyone(self, value: T) -> list[T]:
        """What each rank says, in their order."""
        if self.control is None:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values  # type: ignore[return-value]


def is_first() -> bool:
    """Whether this process speaks for all that `torchrun` started."""
    return int(os.environ.get("RANK", 0)) == 0


_joined: Ranks | None = None
"""Of the outermost `joined_ranks` that this process is in."""


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, or be alone; who has joined already stays so."""
    global _joined
    if _joined is not None:
        yield _joined
        return
    with _join() as _joined:
        try:
            yield _joined
        finally:
            _joined = None


@contextmanager
def _join() -> Iterator[Ranks]:
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(0, 1, device, None)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world, device, dist.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        dist.destroy_process_group()
