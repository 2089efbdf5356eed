"""How the steps of a search are divided, and whose statistics the batch normalisations hold at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from partialnet.errors import BudgetError
from partialnet.layers.searchable_rest import LevelBatchNorm2d

PHASES = ("warmup", "uniform", "gates", "frozen")
MIN_FROZEN = 0.3


@dataclass(frozen=True)
class PhaseSchedule:
    """Shares of the steps of a search.

    Args:
        warmup: At the uniform ratio nearest to the target: weights only.
        uniform: Every layer at a random level, a new one at each step. Without it rings that were never trained look
            harmful, and layers collapse.
        gates: The gates learn as well.
        frozen: At the projected levels: weights and batch statistics become those of the final network.

    Raises:
        BudgetError: If a share is negative, they do not add up to 1, or less than 0.3 is left to the last one.
    """

    warmup: float = 0.1
    uniform: float = 0.3
    gates: float = 0.3
    frozen: float = 0.3

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in PHASES}
        if not all(math.isfinite(share) and share >= 0 for share in shares.values()):
            raise BudgetError(f"shares of the phases must not be negative, but are {shares}")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise BudgetError(f"shares of the phases must add up to 1, but are {shares}")
        if self.frozen < MIN_FROZEN - 1e-9:
            raise BudgetError(f"frozen is {self.frozen}, but must be at least {MIN_FROZEN} of the steps")

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
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._norms = [
            module
            for module in modules
            if isinstance(module, LevelBatchNorm2d)
            or (isinstance(module, _BatchNorm) and module.track_running_stats and module.momentum is not None)
        ]
        self._momenta = [norm.momentum for norm in self._norms]
        self._batches = 0
        for norm in self._norms:
            norm.reset_running_stats()

    def before_step(self) -> None:
        """Call before every training step."""
        self._batches += 1
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            assert momentum is not None
            norm.momentum = max(momentum, 1 / self._batches)

    def restore(self) -> None:
        """Give every normalisation its own momentum back."""
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            norm.momentum = momentum
