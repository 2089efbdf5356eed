"""One number for each choice: a fractional level, sampled at its neighbours, kept on the budget at each step.

At rho between two levels a step runs the upper one with probability p = frac(rho), otherwise the lower one. The
derivative with respect to rho is the value of the ring between them. It is estimated from the drawn side (D+ below, D-
above) and divided by twice the probability of that draw. Its expectation is (D+ + D-) / 2, which is exact for a loss
that is quadratic in the ring's switch. An upper draw needs no growth probe.

Choices are drawn independently, and the loss of a draw may depend on several, such as split and kernel of a layer, or a
block's presence and its hidden width. The estimate then has the mean of the ring's value over the draws of the others:
the derivative of the mean loss. In a block that is absent it is 0.

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
from partialnet.search.mean_costs import MeanCosts, lower_level
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
        rho: Fractional level of each choice.
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
        self._costs = MeanCosts(table)
        self._tops = [len(row) - 1 for row in table.space.values]
        self.rho = [float(min(layer.level, top)) for layer, top in zip(layers, self._tops, strict=True)]
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
            decided = self.assignment.levels(self.decision)
            # Those in an absent block stay where they were.
            self.rho = [old if level is None else float(level) for old, level in zip(self.rho, decided, strict=True)]

    def backward(self, phase: str, step: int, batch: StepBatch) -> StepLoss:
        """Take a step of ``phase``; in the search, :meth:`update` then uses the derivatives of rho."""
        if phase == "uniform":
            return self.drawn(batch, step)
        if phase != "search":
            return self.plain(batch, self.largest if phase == "warmup" else self.decision)
        lower = [lower_level(rho, top + 1) for rho, top in zip(self.rho, self._tops, strict=True)]
        chances = [min(max(rho - low, _LEAST), 1 - _LEAST) for rho, low in zip(self.rho, lower, strict=True)]
        upper, options = self._draw(lower, chances)
        fractions = [rho - low for rho, low in zip(self.rho, lower, strict=True)]
        distance = sum(4 * p * (1 - p) for p in fractions) / len(fractions)
        loss = StepLoss()

        def take(task: float, found: Sequence[Sides | None]) -> None:
            for index, (up, chance, p) in enumerate(zip(upper, chances, fractions, strict=True)):
                sides = found[index] or (0.0, 0.0)
                seen = sides[0 if up else 1] / (2 * (chance if up else 1 - chance))
                pull = self.penalty * 4 * (1 - 2 * p) / len(fractions)
                self._gradient[index] = seen + pull if self._tops[index] else 0.0
            loss.fill(task + self.penalty * distance, task, distance)

        levels = [low + up for low, up in zip(lower, upper, strict=True)]
        self.probed(batch, options, sides=[(up, not up) for up in upper], then=take, inside=levels)
        return loss

    def _draw(self, lower: Sequence[int], chances: Sequence[float]) -> tuple[list[bool], list[int]]:
        """Return whether each choice is at the upper one of its levels, and the options of the units."""
        space = self.table.space
        while True:
            draws = torch.rand(len(lower), generator=self.generator).tolist()
            upper = [draw < chance and top > 0 for draw, chance, top in zip(draws, chances, self._tops, strict=True)]
            options = self.assignment.options([low + up for low, up in zip(lower, upper, strict=True)])
            # A chain without any block has nothing to train.
            if any(space.is_whole(unit, space.options[unit][place]) for unit, place in enumerate(options)):
                return upper, options

    def update(self, phase: str) -> None:
        """Move the levels along their derivatives, then onto the budget."""
        if phase != "search":
            return
        size = math.sqrt(sum(value**2 for value in self._gradient) / len(self._gradient))
        self._scale = max(size, 0.95 * self._scale)
        step = self.learning_rate / max(self._scale, 1e-12)
        moved = zip(self.rho, self._gradient, self._tops, strict=True)
        self.rho = self.shifted([min(max(rho - step * g, 0.0), top) for rho, g, top in moved])
        self.decision = self.assignment.options([round(rho) for rho in self.rho])

    def shifted(self, rho: Sequence[float]) -> list[float]:
        """Return ``rho`` moved along the cost's derivative until the expected cost is the target, as far as possible.

        If attention counts, costs need not grow with the level; the closest cost on the way is then taken.
        """
        slopes = self._costs.slopes(rho)
        largest = max((abs(slope) for slope in slopes), default=0.0)
        if largest == 0:
            return list(rho)

        def at(shift: float) -> list[float]:
            return [
                min(max(value + shift * slope / largest, 0.0), float(top))
                for value, slope, top in zip(rho, slopes, self._tops, strict=True)
            ]

        reach = float(max(self._tops) + 1) * largest / min(abs(s) or largest for s in slopes)
        low, high = -reach, reach
        best, off = list(rho), abs(self.expected_cost(rho) - self.target)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            trial = at(middle)
            cost = self.expected_cost(trial)
            if abs(cost - self.target) < off:
                best, off = trial, abs(cost - self.target)
            low, high = (middle, high) if cost < self.target else (low, middle)
        return best

    def expected_cost(self, rho: Sequence[float]) -> float:
        """Return the mean cost of the networks that are drawn at ``rho``."""
        return self._costs.total(rho)

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
    """Options of the search by fractional levels: one number for each choice, kept on the budget at each step.

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
        """Search by the method."""
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
