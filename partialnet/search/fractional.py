"""One number for each layer: a fractional level, sampled at its neighbours, kept on the budget at each step.

At rho between two levels a step runs the upper one with probability p = frac(rho), otherwise the lower one. The
derivative with respect to rho is the value of the ring between them. It is estimated from the drawn side (D+ below, D-
above) and divided by twice the probability of that draw. Its expectation is (D+ + D-) / 2, which is exact for a loss
that is quadratic in the ring's switch. An upper draw needs no growth probe.

Source: the Bernoulli case of the ZGR estimator (submission EN8YE5dkOO to ICLR 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from partialnet.errors import BudgetError
from partialnet.layers.choice import Choice
from partialnet.search.cost import CostTable
from partialnet.search.options import MethodOptions, check_count, check_factor, check_positive
from partialnet.search.phases import MIN_FROZEN, PhaseSchedule
from partialnet.search.probing_method import ProbingMethod, Sides
from partialnet.search.projection import Projection
from partialnet.search.result import SplitResult
from partialnet.search.step_batch import StepBatch, StepLoss
from partialnet.search.task import SearchTask

_LEAST = 0.15  # least probability of either neighbour, so that the weight of a draw stays bounded
_BISECTIONS = 40


class FractionalMethod(ProbingMethod):
    """Fractional levels that follow the rings' values and are shifted onto the budget.

    Args:
        layers: Choices in the order of ``table``.
        table: Costs of the options.
        target: Target cost in the table's unit.
        penalty: Factor of the mean of 4 p (1 - p), which is 0 exactly at whole levels.
        learning_rate: Root mean square step of the levels.
        seed: Seed of the drawn levels.
        near: Share of drawn networks with a cost close to the target.
        probe_every: Interval of probes among the steps with drawn levels.
        horizon: Number of steps over which the rings' values are averaged.

    Attributes:
        rho: Fractional level of each layer.
    """

    name: ClassVar[str] = "fractional"

    def __init__(
        self,
        layers: Sequence[Choice],
        table: CostTable,
        target: float,
        *,
        penalty: float,
        learning_rate: float,
        seed: int,
        near: float = 0.5,
        probe_every: int = 1,
        horizon: float = 100.0,
    ) -> None:
        super().__init__(layers, table, target, seed=seed, near=near, probe_every=probe_every, horizon=horizon)
        self.penalty = penalty
        self.learning_rate = learning_rate
        self.rho = [float(level) for level in self.decision]
        self._gradient = [0.0] * len(layers)
        self._scale = 0.0

    def check(self, schedule: PhaseSchedule) -> None:
        """Refuse a schedule whose last phase is too short for the statistics of the final network."""
        if schedule.frozen < MIN_FROZEN - 1e-9:
            raise BudgetError(f"frozen is {schedule.frozen}, but must be at least {MIN_FROZEN} of the steps")

    def decides(self, phase: str) -> bool:
        """Return whether the levels of a step depend on the numbers of the step before: true in the search."""
        return phase == "search"

    def begin(self, phase: str, steps: int) -> None:
        """Start at the levels that the values estimated so far suggest."""
        del steps
        if phase == "search":
            if self.values.observed:
                self.settle(self.by_value().levels)
            self.rho = [float(level) for level in self.decision]

    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        """Take a step of ``phase``; in the search, :meth:`update` then uses the derivatives of rho."""
        if phase == "uniform":
            return self.drawn(batch, step)
        if phase != "search":
            return self.plain(batch, self.largest if phase == "warmup" else self.decision)
        lower = [min(math.floor(rho), len(row) - 2) for rho, row in zip(self.rho, self.table.levels, strict=True)]
        chances = [min(max(rho - low, _LEAST), 1 - _LEAST) for rho, low in zip(self.rho, lower, strict=True)]
        draws = torch.rand(len(lower), generator=self.generator).tolist()
        upper = [draw < chance for draw, chance in zip(draws, chances, strict=True)]
        levels = [low + up for low, up in zip(lower, upper, strict=True)]
        fractions = [rho - low for rho, low in zip(self.rho, lower, strict=True)]
        distance = sum(4 * p * (1 - p) for p in fractions) / len(fractions)
        loss = StepLoss()

        def take(task: float, found: Sequence[Sides | None]) -> None:
            for index, (up, chance, p) in enumerate(zip(upper, chances, fractions, strict=True)):
                sides = found[index] or (0.0, 0.0)
                seen = sides[0 if up else 1] / (2 * (chance if up else 1 - chance))
                self._gradient[index] = seen + self.penalty * 4 * (1 - 2 * p) / len(fractions)
            loss.fill(task + self.penalty * distance, task, distance)

        self.probed(batch, levels, sides=[(up, not up) for up in upper], then=take)
        return loss

    def update(self, phase: str) -> None:
        """Move the levels along their derivatives, then onto the budget."""
        if phase != "search":
            return
        size = math.sqrt(sum(value**2 for value in self._gradient) / len(self._gradient))
        self._scale = max(size, 0.95 * self._scale)
        step = self.learning_rate / max(self._scale, 1e-12)
        tops = [len(row) - 1 for row in self.table.levels]
        moved = [min(max(rho - step * g, 0.0), top) for rho, g, top in zip(self.rho, self._gradient, tops, strict=True)]
        self.rho = self.shifted(moved)
        self.decision = [round(rho) for rho in self.rho]

    def shifted(self, rho: Sequence[float]) -> list[float]:
        """Return ``rho`` moved along the cost's derivative until the expected cost is the target, as far as possible.

        If attention counts, costs need not grow with the level; the closest cost on the way is then taken.
        """
        slopes = [self._slope(row, value) for row, value in zip(self.table.costs, rho, strict=True)]
        largest = max((abs(slope) for slope in slopes), default=0.0)
        if largest == 0:
            return list(rho)

        def at(shift: float) -> list[float]:
            return [
                min(max(value + shift * slope / largest, 0.0), len(row) - 1.0)
                for value, slope, row in zip(rho, slopes, self.table.costs, strict=True)
            ]

        reach = float(max(len(row) for row in self.table.costs)) * largest / min(abs(s) or largest for s in slopes)
        low, high = -reach, reach
        best = list(rho)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            trial = at(middle)
            if abs(self.expected_cost(trial) - self.target) < abs(self.expected_cost(best) - self.target):
                best = trial
            low, high = (middle, high) if self.expected_cost(trial) < self.target else (low, middle)
        return best

    @staticmethod
    def _slope(costs: Sequence[float], rho: float) -> float:
        below = min(math.floor(rho), len(costs) - 2)
        return costs[below + 1] - costs[below]

    def expected_cost(self, rho: Sequence[float]) -> float:
        """Return the mean cost of the networks that are drawn at ``rho``."""
        total = self.table.constant
        for costs, value in zip(self.table.costs, rho, strict=True):
            below = min(math.floor(value), len(costs) - 2)
            total += costs[below] + (value - below) * (costs[below + 1] - costs[below])
        return total

    def project(self) -> Projection:
        """Settle on the levels within the budget with the best total value of their rings."""
        projection = self.by_value()
        self.settle(projection.levels)
        return projection

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` continues."""
        return {**super().state_dict(), "rho": list(self.rho), "scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another search."""
        super().load_state_dict(state)
        self.rho = list(state["rho"])
        self._scale = state["scale"]

@dataclass(frozen=True)
class FractionalOptions(MethodOptions):
    """Options of the search by fractional levels: one number for each layer, kept on the budget at each step.

    Args:
        penalty: Factor of the distance from whole levels, which is 0 exactly at deployable levels.
        learning_rate: Root mean square step of the levels.
        probe_every: Interval of probes among the steps with drawn levels.

    Raises:
        BudgetError: If a number is out of its range.
    """

    name: ClassVar[str] = "fractional"
    keywords: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"penalty": "penalty", "gate_learning_rate": "learning_rate", "probe_every": "probe_every"}
    )

    penalty: float = 0.9
    learning_rate: float = 2e-2
    probe_every: int = 1

    def __post_init__(self) -> None:
        check_factor("penalty", self.penalty)
        check_positive("gate_learning_rate", self.learning_rate)
        check_count("probe_every", self.probe_every)

    def search(self, task: SearchTask) -> SplitResult:
        """Search by the method.

        Raises:
            BudgetError: If a block is a unit of several choices, which one number cannot express.
        """
        if not task.table.space.is_plain:
            raise BudgetError(
                "method 'fractional' has one number for each choice, so neither the presence of blocks can be searched "
                "together with their layers, nor two choices of a layer; leave depth, kernel and attention out, or "
                "take gates or supernet"
            )
        arguments = task.arguments
        learner = FractionalMethod(
            task.layers,
            task.table,
            task.target,
            penalty=self.penalty,
            learning_rate=self.learning_rate,
            seed=arguments.seed,
            near=arguments.near,
            probe_every=self.probe_every,
            horizon=arguments.horizon,
        )
        return task.result(*task.run(learner))
