"""The mean loss of an epoch over its steps and all processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from partialnet.errors import TrainingDiverged
from partialnet.train.processes import Processes
from partialnet.train.readings import Readings


class EpochLoss:
    """The losses of an epoch's steps, which the host reads later; a loss that is not finite ends the training."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._readings = Readings(device)
        self._total = 0.0
        self._count = 0

    def restore(self, total: float, count: int) -> None:
        """Continue from the sum of ``count`` losses."""
        self._total, self._count = total, count

    def add(self, step: int, loss: Tensor) -> None:
        """Record the loss of ``step``."""

        def take(numbers: Sequence[float]) -> None:
            if not math.isfinite(numbers[0]):
                raise TrainingDiverged(step, numbers[0])
            self._total += numbers[0]

        self._count += 1
        self._readings.add(loss.reshape(1), take)
        self._readings.read_if_due()

    def total(self) -> float:
        """Return the sum over all steps so far."""
        self._readings.read()
        return self._total

    def mean(self, processes: Processes) -> float:
        """Return the mean over all steps of the epoch and all processes."""
        total = self.total()
        if processes.several:
            total = float(processes.summed(torch.tensor(total, dtype=torch.float64, device=self._device)))
        return total / (self._count * processes.count)
