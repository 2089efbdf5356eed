"""The processes of one training: each has a part of every batch, and all take the same steps."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from partialnet.errors import PartialNetError
from partialnet.layers.level_norm import LevelBatchNorm2d
from partialnet.layers.norms import batch_norms
from partialnet.train.launching import RENDEZVOUS, launched
from partialnet.train.recipe import Statistics
from partialnet.train.shared_norms import SummedBatchNorm2d, SummedLevelBatchNorm2d


@dataclass(frozen=True)
class Processes:
    """The place of this process among those of a training.

    Args:
        index: Index of this process.
        count: Number of processes.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Return this process's place in torch's process group; that of a single process outside of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.index == 0

    @property
    def part(self) -> tuple[int, int]:
        """Index and number, as ``ImageSource.batches`` takes them."""
        return self.index, self.count

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""
        if not self.several:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def any(self, *flags: bool, device: torch.device) -> list[bool]:
        """Return for each flag whether it is true in some process: all processes decide alike."""
        if not self.several:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def gathered_integers(self, value: int, *, device: torch.device) -> list[int]:
        """Return the integers of all processes, in their order; cheaper than :meth:`gathered`."""
        own = torch.zeros(self.count, dtype=torch.int64, device=device)
        own[self.index] = value
        return [int(number) for number in self.summed(own).tolist()]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.several:
            dist.barrier()


def local_device(name: str | None) -> str | None:
    """Return the device of this process: on several GPUs, each process has one of its own.

    Args:
        name: Name that the user gave, if any.

    Raises:
        PartialNetError: If this machine has fewer GPUs than processes.
    """
    if not launched() or name == "cpu" or not torch.cuda.is_available():
        return name
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise PartialNetError(
            f"process {index} has no GPU: torch sees {torch.cuda.device_count()}; start as many processes, or use "
            "--device cpu"
        )
    return f"cuda:{index}"


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that a launcher has started, if it has: by NCCL on GPUs, by gloo on processors."""
    if not launched():
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        init_method=os.environ.get(RENDEZVOUS, "env://"),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(minutes=30),
    )
    try:
        with warnings.catch_warnings():
            # Kernels of 1x1 have several equal layouts, of which the reducer notices one.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield Processes.current()
    finally:
        dist.destroy_process_group()


@contextmanager
def statistics_of(model: nn.Module, wanted: Statistics, processes: Processes) -> Iterator[None]:
    """Let batch normalisations see the whole batch of all processes inside the block, if that is ``wanted``.

    Raises:
        PartialNetError: If a normalisation is of a kind that cannot.
    """
    if not processes.several or wanted == "reduced":
        yield
        return
    kinds = [(norm, type(norm)) for norm in batch_norms(model.modules())]
    for _, kind in kinds:
        if kind not in (nn.BatchNorm2d, LevelBatchNorm2d):
            raise PartialNetError(f"statistics are synchronized, but {kind.__name__} cannot be; use reduced")
    try:
        for norm, kind in kinds:
            if kind is LevelBatchNorm2d:
                norm.__class__ = SummedLevelBatchNorm2d
            elif next(iter(norm.state_dict().values())).is_cuda:
                norm.__class__ = nn.SyncBatchNorm
                norm.process_group = None  # type: ignore[assignment]
            else:
                norm.__class__ = SummedBatchNorm2d
        yield
    finally:
        for norm, kind in kinds:
            norm.__class__ = kind


def own_statistics(model: nn.Module | None) -> list[Tensor]:
    """Return the running statistics of batch normalisations, which may differ between processes until they are reduced.
    """
    norms = [] if model is None else batch_norms(model.modules())
    return [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]


def reduce_statistics(model: nn.Module, processes: Processes) -> None:
    """Average the running statistics of batch normalisations over all processes."""
    if not processes.several:
        return
    for value in own_statistics(model):
        value.copy_(processes.summed(value) / processes.count)
