"""The batches of a search: the same ones for a seed, interrupted or not, and whatever else draws random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from partialnet.errors import DataError
from partialnet.train.loop import seeded
from partialnet.transfer import check_pair

Batches = Iterable[tuple[Tensor, Tensor]]


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
    """Iterate ``batches`` as at the start of a search, each time the same; the global generators are put back.

    Args:
        batches: Yields (inputs, targets).
        seed: Of a loader's order and augmentation.
        device: Whose generator is put back as well.
    """
    with seeded(seed, device):
        yield _start(batches, 0)


def check_validation(batches: Batches, seed: int, device: torch.device) -> None:
    """Refuse validation that yields nothing or can be read once only, before hours are spent on training.

    Raises:
        DataError: Says which of the two it is.
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
    """Batches without end: iterated again when they end, and the same ones for a search that is resumed.

    Torch's global generator is seeded for each step before its batch is asked for, so that what a loader draws from it
    (order, augmentation) depends on the step alone.

    Args:
        batches: Yields (inputs, targets). Its ``set_epoch``, where it has one, is told the pass (zero-based).
        seed: Of the search.
        left_out: Whether inputs are too few to be trained with. Such a batch is passed over, unless a pass starts with
            it.
    """

    def __init__(
        self, batches: Batches, seed: int, left_out: Callable[[Tensor], bool] = lambda _: False
    ) -> None:
        self._batches = batches
        self._seed = seed
        self._left_out = left_out
        self._iterator: Iterator[tuple[Tensor, Tensor]] | None = None
        self.epoch = 0
        self.index = 0

    def seek(self, epoch: int, index: int, step: int) -> None:
        """Go to the place at which ``step`` takes its batch.

        Raises:
            DataError: If the pass holds fewer batches than were taken of it.
        """
        self.epoch, self.index = epoch, 0
        self._iterator = None
        for skipped in range(step - index, step):
            self.take(skipped)
        if self.epoch != epoch:
            raise DataError(
                f"batches yields fewer than {index} in a pass, but the search to go on with took {index}; give it the "
                "same batches"
            )

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of ``step``; what the step itself draws does not depend on the loader's draws.

        Raises:
            DataError: If there is none, or no second pass, or it is no pair of tensors.
        """
        for attempt in range(2):
            torch.manual_seed(step_seed(self._seed, step))
            if self._iterator is None:
                self._iterator = _start(self._batches, self.epoch)
            batch = self._next(self._iterator)
            if batch is not None:
                self.index += 1
                torch.manual_seed(step_seed(self._seed, step))
                return batch
            if attempt == 0 and self.index > 0:
                self.epoch, self.index, self._iterator = self.epoch + 1, 0, None
        if self.epoch:
            raise DataError(
                f"batches ended after {step} and cannot be iterated again; give a list or a loader, not a generator"
            )
        raise DataError("batches yields nothing, but a search needs at least one batch")

    def _next(self, iterator: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        for batch in iterator:
            inputs, targets = check_pair(batch, "batches")
            if self.index == 0 or not self._left_out(inputs):
                return inputs, targets
        return None
