"""A running search: the network, its budget, and the arguments that all methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from partialnet.export import to_fixed
from partialnet.layers.choice import choices_of
from partialnet.search.arguments import SearchArguments
from partialnet.search.batches import Batches
from partialnet.search.budget import Budget
from partialnet.search.capping import capped
from partialnet.search.choices import in_order
from partialnet.search.cost import all_costs, allowed
from partialnet.search.loop import LossFn, SearchLoop
from partialnet.search.method import SearchMethod
from partialnet.search.projection import Projection
from partialnet.search.result import SearchProgress, SplitResult, StepRecord, budget_note
from partialnet.search.state import SearchState
from partialnet.train.loop import seeded


class SearchTask:
    """The network, the data and the arguments of a search.

    Args:
        model: Network with layers whose split is learned.
        batches: Batches of (inputs, targets).
        loss_fn: Function of (outputs, targets) that returns a scalar.
        budget: Budget of the result.
        arguments: Arguments that all methods share.
        plan: Plain values of the method that an interrupted search and its resumption must share.
        validation: Batches that score networks, for a method that needs them.
        front: Further budgets, for a method that serves several.
        resume: State of an interrupted search.
        callback: Function to call after each step.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        loss_fn: LossFn,
        budget: Budget,
        arguments: SearchArguments,
        *,
        plan: Mapping[str, Any],
        validation: Iterable[tuple[Tensor, Tensor]] | None = None,
        front: Sequence[Budget] = (),
        resume: SearchState | None = None,
        callback: Callable[[SearchProgress], None] | None = None,
    ) -> None:
        self.model = model
        self.batches = batches
        self.loss_fn = loss_fn
        self.budget = budget
        self.arguments = arguments
        self.validation = validation
        every = all_costs(model, budget.input_shape, budget.unit, budget.scope, budget.table)
        self.full = allowed(model, every)
        self.layers = in_order(choices_of(model), self.full.space)
        self.target = budget.target_of(every)
        for other in front:
            budget.check_comparable(other)
        self.targets = [other.target_of(every) for other in front]
        self.table = capped(self.full, self.layers, arguments.max_ratio, [self.target, *self.targets])
        self._plan = plan
        self._resume = resume
        self._callback = callback

    def run(self, learner: SearchMethod) -> tuple[Projection, list[StepRecord]]:
        """Take all steps by a method; return the levels that it settled on, and the records of the steps."""
        arguments = self.arguments
        learner.check(arguments.schedule)
        plan = {
            **arguments.to_dict(),
            **self._plan,
            "target": self.target,
            "front": self.targets,
            "unit": self.budget.unit,
            "scope": self.budget.scope,
            "input_shape": list(self.budget.input_shape),
        }
        loop = SearchLoop(
            self.model,
            learner,
            self.loss_fn,
            recipe=arguments.recipe,
            schedule=arguments.schedule,
            steps=arguments.steps,
            seed=arguments.seed,
            plan=plan,
        )
        try:
            with seeded(arguments.seed, loop.device):
                return loop.run(self.batches, resume=self._resume, callback=self._callback)
        finally:
            loop.release()

    def result(self, projection: Projection, history: list[StepRecord]) -> SplitResult:
        """Return the result of a search that settled on ``projection``, with the fixed network."""
        return SplitResult(
            active_channels=self.table.active_channels(projection.levels),
            settings=self.table.space.settings(projection.levels),
            fixed=to_fixed(self.model, input_shape=self.budget.input_shape),
            cost=projection.cost,
            target=self.target,
            within_budget=projection.within_budget,
            note=budget_note(self.budget, self.full, self.target, projection),
            history=history,
        )
