"""How the steps of a search are divided, and whose statistics the batch normalisations hold at the end."""

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
    """Shares of the steps of a search.

    Args:
        warmup: The largest network: weights only.
        uniform: Levels are drawn at random, anew at each step, and their rings' values are estimated; every other step
            runs the largest network, which trains all rings. Of a supernet: the sandwich steps.
        search: The levels are learned as well. A supernet has no such phase: it selects once the steps are done.
        frozen: At the projected levels: weights and batch statistics become those of the final network.

    Raises:
        BudgetError: If a share is negative, or they do not add up to 1.
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
        """Return the phase of ``step`` (zero-based) of ``steps``; the last one gets what rounding leaves."""
        end = 0.0
        for name in PHASES[:-1]:
            end += getattr(self, name)
            if step < math.floor(end * steps + 1e-6):
                return name
        return PHASES[-1]


class FreshStatistics:
    """Running statistics of batch normalisation, started anew: the mean of the first batches, then the usual decay.

    Used when the levels freeze, so that nothing of other networks is left in the statistics, however few steps remain.

    Args:
        modules: Where to look for batch normalisations.
        batches: Seen already, by a search that is resumed; 0 resets the statistics.
    """

    def __init__(self, modules: Iterable[nn.Module], batches: int = 0) -> None:
        self._norms = batch_norms(modules)
        self._momenta = [norm.momentum for norm in self._norms]
        self.batches = batches
        if not batches:
            for norm in self._norms:
                norm.reset_running_stats()

    def before_step(self) -> None:
        """Call before every training step."""
        self.batches += 1
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            # Without a momentum they are the mean of all batches since the reset, as it is.
            if momentum is not None:
                norm.momentum = max(momentum, 1 / self.batches)

    @property
    def settled(self) -> bool:
        """Whether every normalisation has its own momentum again."""
        return all(momentum is None or momentum * self.batches >= 1 for momentum in self._momenta)

    def restore(self) -> None:
        """Give every normalisation its own momentum back."""
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluate ``model`` for a while with the statistics of each batch: those of training belong to other networks.

    Nothing is dropped out, and no statistics are kept.
    """
    norms = batch_norms(model.modules())
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    with evaluation_mode(model):
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
            # Counted on a copy, since buffers must be as they were.
            norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        try:
            yield
        finally:
            for norm, momentum, count in kept:
                norm.momentum = momentum
                norm.num_batches_tracked = count
