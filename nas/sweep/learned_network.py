"""A learned network that a final comparison retrains. Loads neither torch nor ray."""

from __future__ import annotations

from dataclasses import dataclass

from nas.candidate import Candidate


@dataclass(frozen=True)
class LearnedNetwork:
    """A learned network to retrain.

    Args:
        of: Number of its trial.
        position: Index among the trial's candidates.
        several: Whether the trial has more than one candidate.
        candidate: Candidate to retrain.
        cost: Cost of the exported network, in the unit of the budget.
    """

    of: int
    position: int
    several: bool
    candidate: Candidate
    cost: float

    @property
    def place(self) -> tuple[int, int | None, float]:
        """Fields ``of``, ``position`` and ``target`` of the finalists beside it."""
        return self.of, self.position if self.several else None, self.cost
