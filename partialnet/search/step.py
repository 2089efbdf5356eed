"""A completed step of a search: the values known at once, and those that the device still computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partialnet.search.cost import CostTable
from partialnet.search.result import StepRecord
from partialnet.search.step_batch import StepLoss


@dataclass
class Step:
    """A completed step.

    Args:
        step: One-based number of the step.
        steps: Number of all steps.
        phase: Name of the phase in records.
        learning_rate: Learning rate of the weights.
        target: Target cost.
        loss: Losses, which are filled when they are read.
        table: Table of costs.
        chosen: Level of each layer that the method would choose after this step.
    """

    step: int
    steps: int
    phase: str
    learning_rate: float
    target: float
    loss: StepLoss
    table: CostTable
    chosen: Sequence[int]

    @property
    def cost(self) -> float:
        """Cost of the chosen network."""
        return self.table.total(self.chosen)

    @property
    def active_channels(self) -> Mapping[str, int]:
        """Active channels of the chosen network, by module name."""
        return self.table.active_channels(self.chosen)

    @property
    def settings(self) -> Mapping[str, int]:
        """Values of all choices of the chosen network, by module name."""
        return self.table.space.settings(self.chosen)

    def record(self) -> StepRecord:
        """Return the record of the step; its loss must have been read."""
        assert self.loss.known
        return StepRecord(
            step=self.step,
            steps=self.steps,
            phase=self.phase,
            loss=self.loss.total,
            task_loss=self.loss.task,
            order_loss=self.loss.order,
            complexity=self.loss.complexity,
            cost=self.cost,
            target=self.target,
            learning_rate=self.learning_rate,
            active_channels=self.active_channels,
        )
