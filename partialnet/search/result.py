"""What a search reports while it runs, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from partialnet.search.budget import Budget
from partialnet.search.cost import CostTable
from partialnet.search.projection import Projection, project
from partialnet.search.state import SearchState


@dataclass(frozen=True)
class StepRecord:
    """One step of a search.

    Args:
        step: One-based.
        steps: In all.
        phase: ``"warmup"``, ``"uniform"`` (of a supernet ``"sandwich"``), the method's name, or ``"frozen"``.
        loss: The objective that was minimised.
        task_loss: Its task part.
        order_loss: The part that is 0 exactly where the levels are deployable (equation 8), before the penalty.
        complexity: The factor on the task loss; 1 where the cost does not exceed the target.
        cost: Of the network as the method would choose it after this step, in the budget's unit.
        target: Likewise.
        learning_rate: Of the weights.
        active_channels: Module name to n, as the method would choose it after this step.
    """

    step: int
    steps: int
    phase: str
    loss: float
    task_loss: float
    order_loss: float
    complexity: float
    cost: float
    target: float
    learning_rate: float
    active_channels: Mapping[str, int]


class Taken(Protocol):
    """A step that has been taken; its record is complete once the device's numbers have been read."""

    @property
    def step(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def phase(self) -> str: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def target(self) -> float: ...

    @property
    def cost(self) -> float: ...

    @property
    def active_channels(self) -> Mapping[str, int]: ...

    def record(self) -> StepRecord: ...


class SearchProgress:
    """A step of a search, with the network at hand: its layers stand at ``active_channels``.

    It has all that :class:`StepRecord` has. On a GPU the losses are read when they are asked for, which makes the host
    wait for the device: who sums them up keeps the objects and asks for many at once.

    Args:
        taken: The step.
        read: Makes its record complete.
        model: See the attribute.
        snapshot: See :meth:`state`.

    Attributes:
        model: In training mode; a callback may evaluate it, not change it.
        step: One-based.
        steps: In all.
        phase: As in :class:`StepRecord`.
        learning_rate: Of the weights.
    """

    def __init__(
        self, taken: Taken, read: Callable[[], None], *, model: nn.Module, snapshot: Callable[[], SearchState]
    ) -> None:
        self._taken = taken
        self._read = read
        self._snapshot = snapshot
        self.model = model
        self.step = taken.step
        self.steps = taken.steps
        self.phase = taken.phase
        self.learning_rate = taken.learning_rate

    @property
    def record(self) -> StepRecord:
        """The step as the history has it."""
        self._read()
        return self._taken.record()

    @property
    def loss(self) -> float:
        """The objective that was minimised."""
        return self.record.loss

    @property
    def task_loss(self) -> float:
        """Its task part."""
        return self.record.task_loss

    @property
    def order_loss(self) -> float:
        """The part that is 0 exactly where the levels are deployable, before the penalty."""
        return self.record.order_loss

    @property
    def complexity(self) -> float:
        """The factor on the task loss."""
        return self.record.complexity

    @property
    def cost(self) -> float:
        """Of the network as the method would choose it after this step, in the budget's unit."""
        return self._taken.cost

    @property
    def target(self) -> float:
        """Likewise."""
        return self._taken.target

    @property
    def active_channels(self) -> Mapping[str, int]:
        """Module name to n, as the method would choose it after this step."""
        return self._taken.active_channels

    def state(self) -> SearchState:
        """Return all that a search needs to go on from here with identical decisions; a copy, so not for nothing."""
        return self._snapshot()


@dataclass(frozen=True)
class SplitResult:
    """What a search settled on.

    Args:
        active_channels: Module name to n, in forward order.
        fixed: The network with these splits, plain and trained.
        cost: Its cost in the budget's unit and scope.
        target: What was asked for, absolute.
        within_budget: Whether the cost is within 2 % of the target.
        note: Where not: the nearest reachable costs.
        history: One record per step.
        predicted_loss: Of a supernet's value model; None for other methods.
        validation_loss: Measured with weights of the supernet; None for other methods.
    """

    active_channels: Mapping[str, int]
    fixed: nn.Module = field(repr=False)
    cost: float
    target: float
    within_budget: bool
    note: str | None
    history: list[StepRecord] = field(repr=False)
    predicted_loss: float | None = None
    validation_loss: float | None = None


def budget_note(
    budget: Budget, table: CostTable, target: float, projection: Projection, *, trained: bool = False
) -> str | None:
    """Return why a budget was missed, with the nearest reachable costs; None if it was met.

    Args:
        budget: For its unit and scope.
        table: All that can be reached; a method may have projected on a part of it.
        target: In the table's unit.
        projection: What was settled on.
        trained: Whether the table holds no more than the splits that a supernet was trained with.
    """
    if projection.within_budget:
        return None
    nearest = project(table, target, [[0.0] * len(row) for row in table.costs]).nearest
    below, above = ("none" if cost is None else _written(cost) for cost in nearest or (None, None))
    return (
        f"no choice of {'the trained ' if trained else ''}splits costs within 2 % of {_written(target)} {budget.unit} "
        f"(scope {budget.scope}): the nearest below is {below}, the nearest above {above}, all lie in "
        f"{_written(table.minimum)} to {_written(table.maximum)}; settled on {_written(projection.cost)}"
    )


def _written(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:g}"
