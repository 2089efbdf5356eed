"""Exact projection of the levels on a budget: dynamic programming over a cost table with a hard filter.

Costs are not monotone in the level once attention is counted, so nothing here relies on an order: states are sums of
costs, carried exactly. Equal sums are merged, the better one kept. Beyond ``MAX_STATES`` sums, those that share one of
as many equal intervals are merged too; the result's cost stays exact and inside the window, only its objective is then
that of a window narrower by at most layers / MAX_STATES of the costs' range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from partialnet.errors import BudgetError
from partialnet.search.budget import TOLERANCE
from partialnet.search.cost import CostTable

MAX_STATES = 1 << 13

_Floats = NDArray[np.float64]
_Keep = Literal["best", "dearest", "cheapest"]


@dataclass(frozen=True)
class Projection:
    """Levels that meet a budget, or come nearest from below.

    Args:
        levels: Index of the chosen level per layer.
        cost: Of the network.
        within_budget: Whether it is within the tolerance of the target.
        nearest: Where not: the dearest reachable cost not above the target and the cheapest above it; None for
            what does not exist.
    """

    levels: tuple[int, ...]
    cost: float
    within_budget: bool
    nearest: tuple[float | None, float | None] | None = None


@dataclass(frozen=True)
class States:
    """Partial choices up to a layer: their cost, their effort, and how each came about."""

    costs: _Floats
    efforts: _Floats
    parents: NDArray[np.int64]
    levels: NDArray[np.int64]

    @classmethod
    def start(cls) -> States:
        """Return the state before the first layer."""
        return cls(np.zeros(1), np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int64))


def check_rows(table: CostTable, rows: Sequence[Sequence[float]], what: str) -> None:
    """Check that ``rows`` hold one finite number per layer and level of ``table``.

    Raises:
        BudgetError: If they do not; names the layer.
    """
    if len(rows) != len(table.costs):
        raise BudgetError(f"{what} have {len(rows)} rows, but the cost table has {len(table.costs)} layers")
    for name, costs, row in zip(table.names, table.costs, rows, strict=True):
        if len(row) != len(costs):
            raise BudgetError(f"{what} of {name} must have one entry per level, {len(costs)}, but have {len(row)}")
        if not all(map(math.isfinite, row)):
            raise BudgetError(f"{what} of {name} are {list(row)}, but must be finite")


def project(
    table: CostTable, target: float, efforts: Sequence[Sequence[float]], *, tolerance: float = TOLERANCE
) -> Projection:
    """Choose the levels of least total effort among all whose cost is within ``tolerance`` of ``target``.

    Where there are none, the dearest reachable cost not above the target is taken (of equal ones that of least effort),
    or the lowest cost of all; the projection says which costs are nearest.

    Args:
        table: Costs.
        target: In the table's unit.
        efforts: Per layer and level, what it takes to choose it.
        tolerance: Relative.

    Raises:
        BudgetError: If the efforts do not match the table, or are not finite.
    """
    check_rows(table, efforts, "efforts")
    slack = tolerance * abs(target)
    found = _search(table, efforts, target - slack, target + slack, "best", target)
    if found is not None:
        return Projection(found, table.total(found), True)
    below = _search(table, efforts, -np.inf, target, "dearest", target)
    above = _search(table, efforts, target, np.inf, "cheapest", target)
    nearest = (None if below is None else table.total(below), None if above is None else table.total(above))
    chosen = below if below is not None else above
    assert chosen is not None
    return Projection(chosen, table.total(chosen), False, nearest)


def _search(
    table: CostTable, efforts: Sequence[Sequence[float]], low: float, high: float, keep: _Keep, target: float
) -> tuple[int, ...] | None:
    # Rounding of float sums must not shut out a cost that lies on the border.
    ease = 1e-12 * max(abs(table.maximum), 1.0)
    low, high = low - table.constant - ease, high - table.constant + ease
    cheapest = np.cumsum([0.0, *(min(row) for row in reversed(table.costs))])[::-1]
    dearest = np.cumsum([0.0, *(max(row) for row in reversed(table.costs))])[::-1]
    states = States.start()
    history: list[States] = []
    for layer, (costs, row) in enumerate(zip(table.costs, efforts, strict=True)):
        states = extend(states, np.asarray(costs, float), np.asarray(row, float))
        reachable = (states.costs + cheapest[layer + 1] <= high) & (states.costs + dearest[layer + 1] >= low)
        states = _merge(take(states, np.flatnonzero(reachable)), keep)
        if not len(states.costs):
            return None
        history.append(states)
    distance = np.abs(states.costs + table.constant - target)
    keys = (distance, states.efforts) if keep == "best" else (states.efforts, distance)
    return trace(history, int(np.lexsort(keys)[0]))


def extend(states: States, costs: _Floats, efforts: _Floats) -> States:
    """Return every state with every level of one more layer."""
    # Level by level, so that the sums are a few sorted runs, which a stable sort merges quickly.
    many, few = len(states.costs), len(costs)
    return States(
        np.add.outer(costs, states.costs).ravel(),
        np.add.outer(efforts, states.efforts).ravel(),
        np.tile(np.arange(many), few),
        np.repeat(np.arange(few), many),
    )


def take(states: States, index: NDArray[np.intp]) -> States:
    """Return the states at ``index``."""
    return States(states.costs[index], states.efforts[index], states.parents[index], states.levels[index])


def _merge(states: States, keep: _Keep) -> States:
    """Return the states by ascending cost: one of every sum, and no more than ``MAX_STATES``."""
    states = take(states, np.argsort(states.costs, kind="stable"))
    if not len(states.costs):
        return states
    states = take(states, _lowest(states.costs, states.efforts))
    if len(states.costs) <= MAX_STATES:
        return states
    span = states.costs[-1] - states.costs[0]
    intervals = np.minimum((states.costs - states.costs[0]) * (MAX_STATES / span), MAX_STATES - 1).astype(np.int64)
    rank = {"best": states.efforts, "dearest": -states.costs, "cheapest": states.costs}[keep]
    return take(states, _lowest(intervals, rank))


def _lowest(groups: NDArray[Any], rank: _Floats) -> NDArray[np.intp]:
    """Return the index of the first lowest ``rank`` within each run of equal ``groups``."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[starts, len(groups)])
    lowest = np.flatnonzero(rank == np.repeat(np.minimum.reduceat(rank, starts), lengths))
    return lowest[np.r_[True, groups[lowest][1:] != groups[lowest][:-1]]]


def trace(history: Sequence[States], index: int) -> tuple[int, ...]:
    """Return the level of every layer that led to state ``index`` of the last one."""
    levels: list[int] = []
    for states in reversed(history):
        levels.append(int(states.levels[index]))
        index = int(states.parents[index])
    return tuple(reversed(levels))
