"""A step of a search that has been taken: what is known of it at once, and what the device still owes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partialnet.search.cost import CostTable
from partialnet.search.method import StepLoss
from partialnet.search.result import StepRecord


@dataclass
class Step:
    """A step that has been taken.

    Args:
        step: One-based.
        steps: In all.
        phase: As records call it.
        learning_rate: Of the weights.
        target: Of the cost.
        loss: Filled when it is read.
        table: Of costs.
        chosen: Per layer, the level that the method would choose after this step.
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
        """Of the chosen network."""
        return self.table.total(self.chosen)

    @property
    def active_channels(self) -> Mapping[str, int]:
        """Module name to n of the chosen network."""
        return self.table.active_channels(self.chosen)

    def record(self) -> StepRecord:
        """Return all of it; its loss must have been read."""
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
