"""Arguments that all methods of a search share, checked before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from partialnet.errors import BudgetError
from partialnet.search.phases import PhaseSchedule
from partialnet.train.recipe import Recipe, only_for_fixed


@dataclass(frozen=True)
class SearchArguments:
    """Arguments of ``learn_split`` that all methods share; see there.

    Raises:
        BudgetError: If one is out of its range; the message gives its name, its value, and what would be right.
    """

    steps: int
    seed: int
    max_ratio: float
    near: float
    recipe: Recipe
    schedule: PhaseSchedule

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise BudgetError(f"seed is {self.seed}, but must be in 0 to 2**32 - 1")
        if self.steps < 1:
            raise BudgetError(f"steps is {self.steps}, but must be at least 1")
        if not 0 < self.max_ratio <= 1:
            raise BudgetError(f"max_ratio is {self.max_ratio}, but must be in (0, 1]")
        if not 0 <= self.near <= 1:
            raise BudgetError(f"near is {self.near}, but must be in 0 to 1")
        unused = only_for_fixed(self.recipe)
        if unused:
            raise BudgetError(
                f"recipe has {', '.join(unused)}, which a search does not use; give recipe.for_search(), and augmented "
                "batches"
            )

    @property
    def horizon(self) -> float:
        """Steps over which the rings' values are averaged: half of those that draw levels at random."""
        return max(1.0, self.schedule.uniform * self.steps / 2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values of the arguments that an interrupted search and its resumption must share."""
        return {**asdict(self), "recipe": self.recipe.decisive()}
