"""Dynamic programming over the costs of a table: a grid of sums, bounds on what is left, and the best within a window.

All rests on one program from the last layer to the first, over sums of costs rounded to a grid. Rounding is made up for
by a window that is wider by the largest error it can cause; what is handed out is then filtered by exact cost. So the
least value that the program finds for what is left is a bound that no choice beats, the number of choices it counts
leaves none out, and where it finds nothing there is nothing.
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


def trace(history: Sequence[States], index: int) -> tuple[int, ...]:
    """Return the level of every layer that led to state ``index`` of the last one."""
    levels: list[int] = []
    for states in reversed(history):
        levels.append(int(states.levels[index]))
        index = int(states.parents[index])
    return tuple(reversed(levels))


def rounding_ease(table: CostTable) -> float:
    """Return what rounding of float sums may move a cost by, so that it does not shut out one on the border."""
    return 1e-12 * max(abs(table.maximum), 1.0)


@dataclass(frozen=True)
class CostGrid:
    """A window of costs, and the costs above each layer's lowest rounded to cells.

    Args:
        costs: Per layer, the cost of each level above the layer's lowest.
        steps: The same in cells.
        low: Of the window, above the lowest cost of the network.
        high: Likewise.
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
        # Partial sums are rounded once more; on whole cells there is nothing to round.
        error += 0.5 if error else 0.0
        first, last = math.ceil(low / cell - error - 1e-9), math.floor(high / cell + error + 1e-9)
        return cls(costs, steps, low, high, cell, max(first, 0), last if high >= 0 else -1)

    def _backwards(self, inside: float, outside: float) -> list[_Floats]:
        final = np.full(max(self.last, 0) + 1, outside)
        final[self.first : max(self.last + 1, 0)] = inside
        return [final]

    def least(self, values: Sequence[Sequence[float]]) -> list[_Floats]:
        """Return, before each layer and after the last, the least value of what is left, by cell reached so far."""
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

    def completions(self) -> list[_Floats]:
        """Return, before each layer and after the last, in how many ways the window is reached, by cell so far."""
        tables = self._backwards(1.0, 0.0)
        for steps in reversed(self.steps):
            after = tables[-1]
            before = np.zeros(len(after))
            for step in steps.tolist():
                if step < len(after):
                    before[: len(after) - step] += after[step:]
            tables.append(before)
        return tables[::-1]

    def look_up(self, table: _Floats, cells: NDArray[np.int64], beyond: float) -> _Floats:
        inside = cells < len(table)
        return np.where(inside, table[np.where(inside, cells, 0)], beyond)

    def holds(self, costs: _Floats) -> NDArray[np.bool_]:
        return (costs >= self.low) & (costs <= self.high)


def _cell(costs: Sequence[_Floats], span: float) -> float:
    """Return the common divisor of whole costs if it makes few enough cells, else that of a grid of ``CELLS``."""
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
    """Return the ``count`` choices of least total value among all whose cost is from ``low`` to ``high``.

    They are exact, best first, of equal ones the nearer to the middle; fewer, or none, where no more exist. Only if
    more than ``MAX_BEAM`` partial choices could still lead to one of them, others nearly as good may take their place.

    Args:
        table: Costs.
        low: In the table's unit, may be infinite.
        high: Likewise.
        values: Per layer and level; less is better.
        count: At most.
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
    """Return the best choices that ``width`` partial choices per layer lead to, and whether they are the best of all.

    Partial choices go by the bound on the whole; they are the best of all if all that were left out have a bound that
    is no lower.
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
