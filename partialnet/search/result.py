"""Reports of a running search, and its result."""

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
        step: One-based number of the step.
        steps: Number of all steps.
        phase: Name of the phase: ``"warmup"``, ``"uniform"`` (``"sandwich"`` for a supernet), the method's name, or
            ``"frozen"``.
        loss: Objective that was minimised.
        task_loss: Task part of the objective.
        order_loss: Part that is 0 exactly at deployable levels (equation 8), before the penalty.
        complexity: Factor on the task loss; 1 if the cost does not exceed the target.
        cost: Cost in the budget's unit of the network that the method would choose after this step.
        target: Target cost in the budget's unit.
        learning_rate: Learning rate of the weights.
        active_channels: Active channels by module name that the method would choose after this step.
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
    """A completed step; its record is complete once the device's numbers have been read."""

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

    @property
    def settings(self) -> Mapping[str, int]: ...

    def record(self) -> StepRecord: ...


class SearchProgress:
    """A step of a search with its network, whose layers are at ``active_channels``.

    It has all fields of :class:`StepRecord`. On a GPU each access to a loss reads it, and the host waits for the
    device. To sum losses up, keep the objects and read many at once.

    Args:
        taken: Completed step.
        read: Function that completes its record.
        model: Network in training mode; see the attribute.
        snapshot: Function that returns the state; see :meth:`state`.

    Attributes:
        model: Network in training mode; a callback may evaluate it, but not change it.
        step: One-based number of the step.
        steps: Number of all steps.
        phase: Name of the phase, as in :class:`StepRecord`.
        learning_rate: Learning rate of the weights.
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
        """Record of the step in the history."""
        self._read()
        return self._taken.record()

    @property
    def loss(self) -> float:
        """Objective that was minimised."""
        return self.record.loss

    @property
    def task_loss(self) -> float:
        """Task part of the objective."""
        return self.record.task_loss

    @property
    def order_loss(self) -> float:
        """Part of the objective that is 0 exactly at deployable levels, before the penalty."""
        return self.record.order_loss

    @property
    def complexity(self) -> float:
        """Factor on the task loss."""
        return self.record.complexity

    @property
    def cost(self) -> float:
        """Cost in the budget's unit of the network that the method would choose after this step."""
        return self._taken.cost

    @property
    def target(self) -> float:
        """Target cost in the budget's unit."""
        return self._taken.target

    @property
    def active_channels(self) -> Mapping[str, int]:
        """Active channels by module name that the method would choose after this step."""
        return self._taken.active_channels

    @property
    def settings(self) -> Mapping[str, int]:
        """Values of all choices by module name that the method would choose after this step; see
        :class:`SplitResult`.
        """
        return self._taken.settings

    def state(self) -> SearchState:
        """Return the state from which a search continues with identical decisions; this makes a copy, which takes time.
        """
        return self._snapshot()


@dataclass(frozen=True)
class SplitResult:
    """The result of a search.

    Args:
        active_channels: Active channels by module name, in forward order, without layers of absent blocks.
        settings: Values of all choices by module name: active channels, hidden channels, and presence of blocks (0 or
            1); without those in absent blocks.
        fixed: Plain, trained network with these splits.
        cost: Cost of the network in the budget's unit and scope.
        target: Requested absolute cost.
        within_budget: Whether the cost is within 2 % of the target.
        note: Nearest reachable costs, if the budget was missed.
        history: Records of the steps.
        predicted_loss: Loss that a supernet's value model predicts; None for other methods.
        validation_loss: Validation loss with weights of the supernet; None for other methods.
    """

    active_channels: Mapping[str, int]
    settings: Mapping[str, int]
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
        budget: Budget that gives unit and scope.
        table: Table of all reachable costs; a method may have projected on a part of it.
        target: Target cost in the table's unit.
        projection: Result of the projection.
        trained: Whether the table holds only the splits that a supernet was trained with.
    """
    if projection.within_budget:
        return None
    nearest = project(table, target, [[0.0] * len(row) for row in table.costs]).nearest
    below, above = ("none" if cost is None else _written(cost) for cost in nearest or (None, None))
    kinds = table.space.kinds
    options = ("trained " if trained else "") + ("splits" if kinds == {"active_channels"} else "options")
    options = f"the {options}" if trained else options
    # Between two costs, finer levels of the splits would fit; beyond all of them none would.
    finer = "; a level_step offers finer levels" if "active_channels" in kinds and "none" not in (below, above) else ""
    return (
        f"no choice of {options} costs within 2 % of {_written(target)} {budget.unit} "
        f"(scope {budget.scope}): the nearest below is {below}, the nearest above {above}, all lie in "
        f"{_written(table.minimum)} to {_written(table.maximum)}; settled on {_written(projection.cost)}{finer}"
    )


def _written(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:g}"
