"""What a search is asked to do, checked before anything runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from partialnet.errors import BudgetError
from partialnet.search.phases import PhaseSchedule
from partialnet.search.supernet import SupernetOptions
from partialnet.train.recipe import Recipe

Method = Literal["gates", "fractional", "supernet"]
METHODS: tuple[str, ...] = get_args(Method)
GATE_LEARNING_RATE = 1e-2
LEVEL_LEARNING_RATE = 2e-2


@dataclass(frozen=True)
class SearchArguments:
    """Arguments of ``learn_split`` that are numbers and options; see there.

    Raises:
        BudgetError: If one is out of its range; says which, its value, and what would be right.
    """

    method: Method
    steps: int
    seed: int
    complexity_exponent: float
    penalty: float
    gate_learning_rate: float | None
    probe_every: int
    max_ratio: float
    near: float
    recipe: Recipe = field(default_factory=Recipe)
    schedule: PhaseSchedule | None = None
    supernet: SupernetOptions | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BudgetError(f"method is {self.method!r}, but must be one of {', '.join(METHODS)}")
        if not 0 <= self.seed < 2**32:
            raise BudgetError(f"seed is {self.seed}, but must be in 0 to 2**32 - 1")
        for name in ("steps", "probe_every"):
            if getattr(self, name) < 1:
                raise BudgetError(f"{name} is {getattr(self, name)}, but must be at least 1")
        for name in ("complexity_exponent", "penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BudgetError(f"{name} is {value}, but must be finite and not negative")
        rate = self.gate_learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise BudgetError(f"gate_learning_rate is {rate}, but must be positive and finite")
        if not 0 < self.max_ratio <= 1:
            raise BudgetError(f"max_ratio is {self.max_ratio}, but must be in (0, 1]")
        if not 0 <= self.near <= 1:
            raise BudgetError(f"near is {self.near}, but must be in 0 to 1")
        if self.supernet is not None and self.method != "supernet":
            raise BudgetError(f"supernet options go with method 'supernet', not with {self.method!r}")

    @property
    def phases(self) -> PhaseSchedule:
        """The schedule as given, or the method's."""
        if self.schedule is not None:
            return self.schedule
        return PhaseSchedule(0.0, 1.0, 0.0, 0.0) if self.method == "supernet" else PhaseSchedule()

    @property
    def rate(self) -> float:
        """Of the gates or the fractional levels, as given or the method's."""
        return self.gate_learning_rate or (GATE_LEARNING_RATE if self.method == "gates" else LEVEL_LEARNING_RATE)

    @property
    def horizon(self) -> float:
        """Steps over which the rings' values are averaged: half of those that draw levels at random."""
        return max(1.0, self.phases.uniform * self.steps / 2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: what an interrupted search and the one that goes on must have in common."""
        given = {
            **asdict(self),
            "recipe": self.recipe.decisive(),
            "schedule": asdict(self.phases),
            "gate_learning_rate": self.rate,
        }
        return given if self.method == "supernet" else {**given, "supernet": None}
