"""The division of a search's steps into phases, and the final statistics of the batch normalisations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from partialnet.errors import BudgetError
from partialnet.layers.norms import batch_norms
from partialnet.train.evaluation import evaluation_mode

PHASES = ("warmup", "uniform", "search", "frozen")
MIN_FROZEN = 0.3


@dataclass(frozen=True)
class PhaseSchedule:
    """Shares of the phases in the steps of a search.

    Args:
        warmup: Share of steps at the largest network, which train only the weights.
        uniform: Share of steps with random levels, drawn anew at each step, which estimate the rings' values. Every
            other step runs the largest network, which trains all rings. For a supernet: the sandwich steps.
        search: Share of steps that learn the levels as well. A supernet has no such phase: it selects after the steps.
        frozen: Share of steps at the projected levels: weights and batch statistics become those of the final network.

    Raises:
        BudgetError: If a share is negative, or the shares do not add up to 1.
    """

    warmup: float = 0.05
    uniform: float = 0.5
    search: float = 0.15
    frozen: float = 0.3

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in PHASES}
        if not all(math.isfinite(share) and share >= 0 for share in shares.values()):
            raise BudgetError(f"shares of the phases must not be negative, but are {shares}")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise BudgetError(f"shares of the phases must add up to 1, but are {shares}")

    def phase(self, step: int, steps: int) -> str:
        """Return the phase of ``step`` (zero-based) of ``steps``; the last phase gets the steps that rounding leaves.
        """
        end = 0.0
        for name in PHASES[:-1]:
            end += getattr(self, name)
            if step < math.floor(end * steps + 1e-6):
                return name
        return PHASES[-1]


class FreshStatistics:
    """Renewed running statistics of batch normalisation: the mean of the first batches, then the usual decay.

    They apply when the levels freeze, so that no statistics of other networks remain, however few steps are left.

    Args:
        modules: Modules that are searched for batch normalisations.
        batches: Number of batches that a resumed search has already seen; 0 resets the statistics.
    """

    def __init__(self, modules: Iterable[nn.Module], batches: int = 0) -> None:
        self._norms = batch_norms(modules)
        self._momenta = [norm.momentum for norm in self._norms]
        self.batches = batches
        if not batches:
            for norm in self._norms:
                norm.reset_running_stats()

    def before_step(self) -> None:
        """Update the momentum; call before each training step."""
        self.batches += 1
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            # Without a momentum, they are exactly the mean of all batches since the reset.
            if momentum is not None:
                norm.momentum = max(momentum, 1 / self.batches)

    @property
    def settled(self) -> bool:
        """Whether each normalisation has its own momentum again."""
        return all(momentum is None or momentum * self.batches >= 1 for momentum in self._momenta)

    def restore(self) -> None:
        """Restore the momentum of each normalisation."""
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluate ``model`` inside the block with the statistics of each batch: those of training belong to other
    networks.

    Nothing is dropped out, and no statistics are kept.
    """
    norms = batch_norms(model.modules())
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    with evaluation_mode(model):
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
            # Counted on a copy, since buffers must stay unchanged.
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        try:
            yield
        finally:
            for norm, momentum, count in kept:
                norm.momentum = momentum
                norm.num_batches_tracked = count
