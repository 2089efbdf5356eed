"""One search in several processes: each has a part of every batch, and all make the decisions of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch import distributed as dist

from partialnet.train.processes import Processes, reduce_statistics, statistics_of
from partialnet.train.recipe import Recipe, Statistics
from partialnet.transfer import batch_on


class Sharing:
    """The sums over all processes in the steps of a search; with one process nothing happens.

    Each process weights its loss by its share of the batch. Sums of gradients and of numbers are then those of the
    whole batch, also if a last batch cannot be divided evenly.

    Args:
        model: Network to train in place.
        recipe: Recipe of the weights' training.
        device: Device of the network.

    Attributes:
        share: Share of this process in the images of the present batch.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self._model = model
        self._recipe = recipe
        self._device = device
        self._processes = Processes.current()
        self.share = 1.0

    def start(self) -> None:
        """Give all processes the weights and buffers of the first one."""
        if self._processes.several:
            for value in self._model.state_dict().values():
                dist.broadcast(value, 0)

    def divide(self, images: int) -> Sequence[int]:
        """Return the number of images of the next batch in each process, and set the share of this one.

        Args:
            images: Number of images of this process; negative at the end of its batches.
        """
        if not self._processes.several:
            return (images,)
        # The host needs the numbers, since all processes must leave out the same batches.
        counts = self._processes.gathered_integers(images, device=self._device)
        self.share = max(images, 0) / max(1, sum(max(count, 0) for count in counts))
        return counts

    def loss(self, loss_fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return ``loss_fn``, weighted by the share of this process."""
        share = self.share
        if not self._processes.several:
            return loss_fn
        return lambda outputs, targets: share * loss_fn(outputs, targets)

    def total(self, numbers: Tensor) -> Tensor:
        """Return the sum of ``numbers`` over all processes: equal in each of them."""
        return self._processes.summed(numbers)

    def statistics(self) -> AbstractContextManager[None]:
        """Return a context in which batch normalisations see the whole batch, if the recipe wants it."""
        return statistics_of(self._model, self._recipe.statistics, self._processes)

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Replace the gradients of ``weights`` by their sums over all processes, in one transfer for each type."""
        if not self._processes.several:
            return
        # All processes ran the same levels, so the same weights have gradients.
        found = [weight.grad for weight in weights if weight.grad is not None]
        for dtype in dict.fromkeys(gradient.dtype for gradient in found):
            parts = [gradient for gradient in found if gradient.dtype == dtype]
            total = self.total(torch.cat([part.flatten() for part in parts]))
            for part, values in zip(parts, torch.split(total, [part.numel() for part in parts]), strict=True):
                part.copy_(values.view_as(part))

    def end(self) -> None:
        """Average the running statistics of all processes."""
        reduce_statistics(self._model, self._processes)


def normalised_batches(
    batches: Iterable[tuple[Tensor, Tensor]], statistics: Statistics, device: torch.device, name: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches on ``device`` that batch statistics can normalise; after the first, not those of one image.

    Where processes synchronize their statistics, all take the same batches, up to the first that some have no part of.

    Args:
        batches: Batches of (inputs, targets), or this process's part of them.
        statistics: Way in which several processes compute batch statistics.
        device: Device to move to.
        name: Name of the argument that they come from, for messages.
    """
    processes, first = Processes.current(), True
    together = processes.several and statistics == "synchronized"
    iterator = iter(batches)
    while True:
        batch = next(iterator, None)
        pair = None if batch is None else batch_on(batch, device, name)
        images = 0 if pair is None else len(pair[0])
        if together and 0 in processes.gathered_integers(images, device=device):
            return
        if pair is None:
            return
        if together or first or images > 1:
            yield pair
        first = False
