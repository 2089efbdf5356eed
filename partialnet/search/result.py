"""What a search reports while it runs, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class StepRecord:
    """One step of a search.

    Args:
        step: One-based.
        steps: In all.
        phase: ``"warmup"``, ``"uniform"``, ``"gates"`` or ``"frozen"``.
        loss: The objective that was minimised.
        task_loss: Its task part.
        order_loss: Its order part (equation 8), before the penalty.
        complexity: The factor on the task loss; 1 where the cost does not exceed the target.
        cost: Of the network as the gates have it after this step, in the budget's unit.
        target: Likewise.
        learning_rate: Of the weights.
        active_channels: Module name to n, as the gates have it after this step.
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


@dataclass(frozen=True)
class SearchProgress(StepRecord):
    """A step of a search, with the network at hand: its layers stand at ``active_channels``.

    Args:
        model: In training mode; a callback may evaluate it, not change it.
    """

    model: nn.Module = field(repr=False, compare=False, kw_only=True)


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
    """

    active_channels: Mapping[str, int]
    fixed: nn.Module = field(repr=False)
    cost: float
    target: float
    within_budget: bool
    note: str | None
    history: list[StepRecord] = field(repr=False)
