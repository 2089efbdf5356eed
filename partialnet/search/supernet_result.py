"""The result of a supernet: its value model, and a network for any budget without further training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from partialnet.errors import BudgetError
from partialnet.export import to_fixed
from partialnet.search.budget import Budget
from partialnet.search.projection import Projection
from partialnet.search.result import SplitResult, budget_note
from partialnet.search.supernet import TrainedSupernet
from partialnet.search.value_model import ValueModel


@dataclass(frozen=True)
class SupernetResult(SplitResult):
    """The result of a search for its budget, with the supernet.

    Its networks have the supernet's weights, which are poor, so they should be retrained.

    Args:
        values: Additive value model of the validation loss.
        supernet: Supernet after its steps.
        budget: Budget of the search.
        batches: Batches from which batch statistics are collected.
    """

    values: ValueModel = field(kw_only=True)
    supernet: TrainedSupernet = field(kw_only=True, repr=False)
    budget: Budget = field(kw_only=True)
    batches: Iterable[tuple[Tensor, Tensor]] = field(kw_only=True, repr=False)

    @classmethod
    def of(
        cls,
        result: SplitResult,
        supernet: TrainedSupernet,
        budget: Budget,
        batches: Iterable[tuple[Tensor, Tensor]],
    ) -> SupernetResult:
        """Complete the result of a search by its supernet."""
        assert supernet.values is not None
        scored = replace(
            result,
            predicted_loss=supernet.values.predict(result.settings),
            validation_loss=supernet.score(supernet.levels_of(result.settings)),
        )
        common = {entry.name: getattr(scored, entry.name) for entry in fields(scored)}
        return cls(**common, values=supernet.values, supernet=supernet, budget=budget, batches=batches)

    def for_budget(self, budget: Budget) -> SplitResult:
        """Return the network of the supernet for another budget, in the unit and scope of the search's.

        The best networks by the value model are truly validated, and the batch statistics of the best of them are
        collected; nothing is trained.

        Raises:
            BudgetError: If the unit, the scope, the input shape or the latency table differs.
        """
        self.budget.check_comparable(budget)
        return self._at(budget.resolve(self.supernet.model), budget)

    def front(self, points: int = 8, low: float | None = None, high: float | None = None) -> tuple[SplitResult, ...]:
        """Return networks for budgets spread evenly by factor, each better than all cheaper ones.

        Args:
            points: Number of budgets.
            low: Lowest budget in the unit; None for the cheapest network.
            high: Highest budget in the unit; None for the most expensive trained network.

        Raises:
            BudgetError: If ``points`` is below 1, or ``low`` is not positive or above ``high``.
        """
        table = self.supernet.table
        low, high = table.minimum if low is None else low, table.maximum if high is None else high
        if points < 1 or not 0 < low <= high:
            raise BudgetError(f"a front needs points >= 1 and 0 < low <= high, but got {points}, {low:g}, {high:g}")
        shares = [step / max(1, points - 1) for step in range(points)]
        targets = [math.exp(math.log(low) * (1 - share) + math.log(high) * share) for share in shares]
        found: dict[tuple[tuple[str, int], ...], SplitResult] = {}
        for target in targets:
            result = self._at(target, replace(self.budget, target=target, b=None))
            found.setdefault(tuple(result.settings.items()), result)
        best, kept = math.inf, []
        for result in sorted(found.values(), key=lambda entry: entry.cost):
            assert result.validation_loss is not None
            if result.validation_loss < best:
                best = result.validation_loss
                kept.append(result)
        return tuple(kept)

    def _at(self, target: float, budget: Budget) -> SplitResult:
        projection: Projection = self.supernet.select(target)
        settings = self.supernet.table.space.settings(projection.levels)
        network = self.supernet.calibrated(projection.levels, self.batches)
        return SplitResult(
            active_channels=self.supernet.table.active_channels(projection.levels),
            settings=settings,
            fixed=to_fixed(network, input_shape=self.budget.input_shape),
            cost=projection.cost,
            target=target,
            within_budget=projection.within_budget,
            note=budget_note(budget, self.supernet.table, target, projection, trained=True),
            history=self.history,
            predicted_loss=self.values.predict(settings),
            validation_loss=self.supernet.score(projection.levels),
        )
