"""The batches of a search: the same for a seed, interrupted or not, whatever other code draws random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from partialnet.errors import DataError
from partialnet.train.loop import seed_generators, seeded
from partialnet.transfer import check_pair

Batches = Iterable[tuple[Tensor, Tensor]]
_PROCESS_SEEDS = 1_000_000_007
_SKIPPED, _END = -1, -2  # in place of a number of images


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step (zero-based) of a search."""
    return seed * 1_000_003 + step


def _start(batches: Batches, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    set_epoch = getattr(batches, "set_epoch", None)
    if callable(set_epoch):
        set_epoch(epoch)
    return iter(batches)


@contextmanager
def first_pass(batches: Batches, seed: int, device: torch.device) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Iterate ``batches`` as at the start of a search, each time the same; the global generators are restored.

    Args:
        batches: Batches of (inputs, targets).
        seed: Seed of a loader's order and augmentation.
        device: Device whose generator is restored as well.
    """
    with seeded(seed, device):
        yield _start(batches, 0)


def check_validation(batches: Batches, seed: int, device: torch.device) -> None:
    """Refuse validation that yields nothing or can be read only once, before hours are spent on training.

    Raises:
        DataError: If it does; the message says which.
    """
    if isinstance(batches, Iterator):
        raise DataError(
            "validation can be iterated only once, but every network is scored on it; give a list or a loader"
        )
    with first_pass(batches, seed, device) as first:
        batch = next(first, None)
        if batch is None:
            raise DataError("validation yields nothing, but networks are scored on it")
        check_pair(batch, "validation")


class BatchStream:
    """Batches without end: iterated again at their end, and the same for a resumed search.

    Torch's global generator is seeded for each step before its batch is taken. The loader's draws from it (order,
    augmentation) therefore depend on the step alone.

    Args:
        batches: Batches of (inputs, targets). Their ``set_epoch``, if any, receives the pass (zero-based).
        seed: Seed of the search.
        left_out: Function that returns whether inputs are too few to train with. Such a batch is skipped, unless a pass
            starts with it.
        divide: Function of this process's number of images in the next batch, negative at the end of a pass, that
            returns those of all processes. A batch is skipped, or a pass ends, in all processes at once.
        index: Index of this process, whose dropout differs from that of others.
    """

    def __init__(
        self,
        batches: Batches,
        seed: int,
        left_out: Callable[[Tensor], bool] = lambda _: False,
        *,
        divide: Callable[[int], Sequence[int]] = lambda images: (images,),
        index: int = 0,
    ) -> None:
        self._batches = batches
        self._seed = seed
        self._left_out = left_out
        self._divide = divide
        self._process = index
        self._iterator: Iterator[tuple[Tensor, Tensor]] | None = None
        self.epoch = 0
        self.index = 0

    def seek(self, epoch: int, index: int, step: int) -> None:
        """Go to the place at which ``step`` takes its batch.

        Raises:
            DataError: If the pass holds fewer batches than were taken.
        """
        self.epoch, self.index = epoch, 0
        self._iterator = None
        for skipped in range(step - index, step):
            self.take(skipped)
        if self.epoch != epoch:
            raise DataError(
                f"batches yields fewer than {index} in a pass, but the search to resume took {index}; give it the "
                "same batches"
            )

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of ``step``; the draws of the step itself do not depend on the loader's draws.

        Raises:
            DataError: If there is no batch or no second pass, or the batch is not a pair of tensors.
        """
        for attempt in range(2):
            seed_generators(step_seed(self._seed, step))
            if self._iterator is None:
                self._iterator = _start(self._batches, self.epoch)
            batch = self._next(self._iterator)
            if batch is not None:
                self.index += 1
                seed_generators(step_seed(self._seed, step) + self._process * _PROCESS_SEEDS)
                return batch
            if attempt == 0 and self.index > 0:
                self.epoch, self.index, self._iterator = self.epoch + 1, 0, None
        if self.epoch:
            raise DataError(
                f"batches ended after {step} and cannot be iterated again; give a list or a loader, not a generator"
            )
        raise DataError("batches yields nothing, but a search needs at least one batch")

    def _next(self, iterator: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        while True:
            batch = next(iterator, None)
            pair = None if batch is None else check_pair(batch, "batches")
            if pair is None:
                images = _END
            else:
                images = len(pair[0]) if self.index == 0 or not self._left_out(pair[0]) else _SKIPPED
            counts = self._divide(images)
            # Where some processes have no share of a last batch, none takes it, or the others would wait for them.
            if all(count == _END for count in counts) or (self.index == 0 and _END in counts):
                return None
            if min(counts) > 0:
                return pair
