"""Dynamic programming over the costs of a table: a grid of sums, bounds on the remainder, and the best within a window.

One program runs from the last layer to the first, over sums of costs rounded to a grid. A window that is wider by the
largest rounding error makes up for rounding, and the results are then filtered by exact cost. No choice therefore beats
the least value that the program finds for the remaining layers. Its count of choices is complete, and an empty result
is a proof that there is no choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partialnet.errors import BudgetError
from partialnet.search.cost import CostTable

EXACT_CELLS = 1 << 18
CELLS = 1 << 16
MAX_BEAM = 1 << 17

_Floats = NDArray[np.float64]
_Levels = tuple[int, ...]


@dataclass(frozen=True)
class States:
    """Partial choices up to a layer: their costs, their efforts, and their origins."""

    costs: _Floats
    efforts: _Floats
    parents: NDArray[np.int64]
    levels: NDArray[np.int64]

    @classmethod
    def start(cls) -> States:
        """Return the state before the first layer."""
        return cls(np.zeros(1), np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int64))


def check_rows(table: CostTable, rows: Sequence[Sequence[float]], what: str) -> None:
    """Check that ``rows`` hold one finite number for each layer and level of ``table``.

    Raises:
        BudgetError: If they do not; the message names the layer.
    """
    if len(rows) != len(table.costs):
        raise BudgetError(f"{what} have {len(rows)} rows, but the cost table has {len(table.costs)} layers")
    for name, costs, row in zip(table.names, table.costs, rows, strict=True):
        if len(row) != len(costs):
            raise BudgetError(f"{what} of {name} must have one entry per level, {len(costs)}, but have {len(row)}")
        if not all(map(math.isfinite, row)):
            raise BudgetError(f"{what} of {name} are {list(row)}, but must be finite")


def extend(states: States, costs: _Floats, efforts: _Floats) -> States:
    """Return each state with each level of one more layer."""
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


def trace(history: Sequence[States], index: int) -> tuple[int, ...]:
    """Return the level of each layer on the way to state ``index`` of the last one."""
    levels: list[int] = []
    for states in reversed(history):
        levels.append(int(states.levels[index]))
        index = int(states.parents[index])
    return tuple(reversed(levels))


def rounding_ease(table: CostTable) -> float:
    """Return the largest change of a cost by rounding of float sums, so that it excludes no cost on the border."""
    return 1e-12 * max(abs(table.maximum), 1.0)


@dataclass(frozen=True)
class CostGrid:
    """A window of costs, and the costs above each layer's lowest, rounded to cells.

    Args:
        costs: Costs of the levels of each layer above the layer's lowest.
        steps: Costs of the levels in cells.
        low: Lower end of the window, above the lowest cost of the network.
        high: Upper end of the window, above the lowest cost of the network.
        cell: Width of a cell in the table's unit.
        first: First cell from which rounding may hide a cost in the window.
        last: Last such cell; below 0 if there is none.
    """

    costs: tuple[_Floats, ...]
    steps: tuple[NDArray[np.int64], ...]
    low: float
    high: float
    cell: float
    first: int
    last: int

    @classmethod
    def between(cls, table: CostTable, low: float, high: float) -> CostGrid:
        """Return the grid for costs from ``low`` to ``high``; either may be infinite."""
        costs = tuple(np.asarray(row, float) - min(row) for row in table.costs)
        ease = rounding_ease(table)
        low = max(low, table.minimum) - table.minimum - ease
        high = min(high, table.maximum) - table.minimum + ease
        cell = _cell(costs, max(high, ease))
        steps = tuple(np.rint(row / cell).astype(np.int64) for row in costs)
        error = sum(float(np.abs(row / cell - step).max()) for row, step in zip(costs, steps, strict=True))
        # Partial sums are rounded once more; whole cells need no rounding.
        error += 0.5 if error else 0.0
        first, last = math.ceil(low / cell - error - 1e-9), math.floor(high / cell + error + 1e-9)
        return cls(costs, steps, low, high, cell, max(first, 0), last if high >= 0 else -1)

    def _backwards(self, inside: float, outside: float) -> list[_Floats]:
        final = np.full(max(self.last, 0) + 1, outside)
        final[self.first : max(self.last + 1, 0)] = inside
        return [final]

    def least(self, values: Sequence[Sequence[float]]) -> list[_Floats]:
        """Return, before each layer and after the last, the least value of the remaining layers, by cell reached so
        far.
        """
        tables = self._backwards(0.0, math.inf)
        for steps, row in zip(reversed(self.steps), reversed(values), strict=True):
            after = tables[-1]
            before = np.full(len(after), math.inf)
            for step, value in zip(steps.tolist(), row, strict=True):
                if step < len(after):
                    head = before[: len(after) - step]
                    np.minimum(head, after[step:] + value, out=head)
            tables.append(before)
        return tables[::-1]

    def completions(self, weights: Sequence[Sequence[float]] | None = None) -> list[_Floats]:
        """Return, before each layer and after the last, the number of ways to reach the window, by cell reached so far.

        Args:
            weights: Weights by layer and level, by whose product a way counts; None for 1.
        """
        tables = self._backwards(1.0, 0.0)
        factors = weights or [[1.0] * len(steps) for steps in self.steps]
        for steps, row in zip(reversed(self.steps), reversed(factors), strict=True):
            after = tables[-1]
            before = np.zeros(len(after))
            for step, weight in zip(steps.tolist(), row, strict=True):
                if step < len(after):
                    before[: len(after) - step] += weight * after[step:]
            tables.append(before)
        return tables[::-1]

    def look_up(self, table: _Floats, cells: NDArray[np.int64], beyond: float) -> _Floats:
        """Return the entries of ``table`` at ``cells``; ``beyond`` for cells outside of it."""
        inside = cells < len(table)
        return np.where(inside, table[np.where(inside, cells, 0)], beyond)

    def holds(self, costs: _Floats) -> NDArray[np.bool_]:
        """Return for each of ``costs`` whether it is in the window."""
        return (costs >= self.low) & (costs <= self.high)


def _cell(costs: Sequence[_Floats], span: float) -> float:
    """Return the common divisor of whole costs if it gives few enough cells; otherwise that of a grid of ``CELLS``."""
    if all(np.array_equal(row, np.rint(row)) and row.max() < 2**53 for row in costs):
        divisor = math.gcd(*(int(cost) for row in costs for cost in row))
        if divisor and span / divisor <= EXACT_CELLS:
            return float(divisor)
    return span / CELLS


def window(target: float, tolerance: float) -> tuple[float, float]:
    """Return the lowest and the highest cost within the relative ``tolerance`` of ``target``."""
    slack = tolerance * abs(target)
    return target - slack, target + slack


def least_between(
    table: CostTable, low: float, high: float, values: Sequence[Sequence[float]], count: int = 1
) -> tuple[_Levels, ...]:
    """Return the ``count`` choices of least total value among all with a cost from ``low`` to ``high``.

    They are exact, best first; of equal ones those closer to the middle. There are fewer if no more exist. Only if more
    than ``MAX_BEAM`` partial choices could still lead to one of them, others of nearly the same value may replace them.

    Args:
        table: Costs of the levels.
        low: Lower end of the window in the table's unit, which may be infinite.
        high: Upper end of the window in the table's unit, which may be infinite.
        values: Values by layer and level; less is better.
        count: Largest number of choices.
    """
    grid = CostGrid.between(table, low, high)
    bounds = grid.least(values)
    width, limit = 1 << 10, math.inf
    found: list[tuple[float, _Levels]] = []
    while math.isfinite(bounds[0][0]):
        found, sure = _beam(grid, values, bounds, count, width, limit)
        if sure or width >= MAX_BEAM:
            break
        limit = found[-1][0] if len(found) == count else math.inf
        width *= 8
    return tuple(levels for _, levels in found)


def _beam(
    grid: CostGrid, values: Sequence[Sequence[float]], bounds: list[_Floats], count: int, width: int, limit: float
) -> tuple[list[tuple[float, _Levels]], bool]:
    """Return the best choices from ``width`` partial choices for each layer, and whether they are the best of all.

    Partial choices are ranked by the bound on the whole. They are the best of all if no omitted one has a lower bound.
    """
    states, history, left_out = States.start(), [], math.inf
    ease = 1e-12 * max(1.0, abs(limit)) if math.isfinite(limit) else 0.0
    for costs, row, table in zip(grid.costs, values, bounds[1:], strict=True):
        states = extend(states, costs, np.asarray(row, float))
        cells = np.rint(states.costs / grid.cell).astype(np.int64)
        bound = states.efforts + grid.look_up(table, cells, math.inf)
        kept = np.flatnonzero(np.isfinite(bound) & (bound <= limit + ease))
        kept = kept[_lowest_of_each(states.costs[kept], bound[kept], count, grid.cell)]
        if len(kept) > width:
            order = np.argsort(bound[kept], kind="stable")
            left_out = min(left_out, float(bound[kept[order[width]]]))
            kept = np.sort(kept[order[:width]])
        states = take(states, kept)
        history.append(states)
    inside = np.flatnonzero(grid.holds(states.costs))
    distance = np.abs(states.costs[inside] - (grid.low + grid.high) / 2)
    inside = inside[np.lexsort((distance, states.efforts[inside]))][:count]
    found = [(float(states.efforts[i]), trace(history, int(i))) for i in inside]
    enough = len(found) == count and found[-1][0] <= left_out
    return found, enough or math.isinf(left_out)


def _lowest_of_each(costs: _Floats, rank: _Floats, count: int, cell: float) -> NDArray[np.intp]:
    """Return the ``count`` lowest by ``rank`` among those of one cost: no more can be part of the best ``count``."""
    # Sums of the same costs in another order differ in their last bits.
    same = np.rint(costs * (2**28 / cell))
    order = np.lexsort((rank, same))
    starts = np.flatnonzero(np.r_[True, same[order][1:] != same[order][:-1]]) if len(order) else order
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return order[place < count]
