"""Choosing networks by a cost table: the best within a budget, random ones near it, and the front of cost and value.

All rest on one dynamic program from the last layer to the first, over sums of costs rounded to a grid. Rounding is made
up for by a window that is wider by the largest error it can cause; what is handed out is then filtered by exact cost.
So the least value that the program finds for what is left is a bound that no choice beats, and the number of choices it
counts leaves none out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from partialnet.errors import BudgetError
from partialnet.search.budget import TOLERANCE
from partialnet.search.cost import CostTable
from partialnet.search.projection import States, check_rows, extend, project, take, trace

EXACT_CELLS = 1 << 18
CELLS = 1 << 16
MAX_BEAM = 1 << 17
MAX_FRONT = 1 << 15
_ROUNDS = 64

_Floats = NDArray[np.float64]
_Levels = tuple[int, ...]


def best_within(
    table: CostTable,
    target: float,
    values: Sequence[Sequence[float]],
    count: int = 12,
    *,
    tolerance: float = TOLERANCE,
) -> tuple[_Levels, ...]:
    """Return the ``count`` choices of least total value among all whose cost is within ``tolerance`` of ``target``.

    They are exact, best first, of equal ones the nearer to the target; fewer where the window holds fewer. Only if
    more than ``MAX_BEAM`` partial choices could still lead to one of them, others nearly as good may take their place.
    Where the window holds none, the single one that :func:`project` settles on.

    Args:
        table: Costs.
        target: In the table's unit.
        values: Per layer and level; less is better.
        count: At most.
        tolerance: Relative.

    Raises:
        BudgetError: If the values do not match the table or are not finite, or ``count`` is below 1.
    """
    check_rows(table, values, "values")
    _check_count(count)
    grid = _Grid.around(table, target, tolerance)
    bounds = grid.least(values)
    width, limit = 1 << 10, math.inf
    found: list[tuple[float, _Levels]] = []
    while math.isfinite(bounds[0][0]):
        found, sure = _beam(grid, values, bounds, count, width, limit)
        if sure or width >= MAX_BEAM:
            break
        limit = found[-1][0] if len(found) == count else math.inf
        width *= 8
    return tuple(levels for _, levels in found) or (project(table, target, values, tolerance=tolerance).levels,)


def sample_within(
    table: CostTable, target: float, generator: torch.Generator, count: int, *, tolerance: float = TOLERANCE
) -> tuple[_Levels, ...]:
    """Return ``count`` distinct random choices whose cost is within ``tolerance`` of ``target``.

    Every choice in the window is equally likely. Where it holds no more than ``count``, all of them in random order;
    where it holds none, the single one that :func:`project` settles on.

    Args:
        table: Costs.
        target: In the table's unit.
        generator: Source of randomness.
        count: At most.
        tolerance: Relative.

    Raises:
        BudgetError: If ``count`` is below 1.
    """
    _check_count(count)
    grid = _Grid.around(table, target, tolerance)
    completions = grid.completions()
    found: dict[_Levels, None] = {}
    if completions[0][0] <= max(4096, 4 * count):
        every = _enumerate(grid, completions)
        order = torch.randperm(len(every), generator=generator, device=generator.device).tolist()
        found = dict.fromkeys(every[i] for i in order)
    else:
        for _ in range(_ROUNDS):
            drawn = _draw(grid, completions, generator, 2 * count)
            found |= dict.fromkeys(drawn)
            if len(found) >= count:
                break
    if found:
        return tuple(found)[:count]
    zeros = [[0.0] * len(row) for row in table.costs]
    return (project(table, target, zeros, tolerance=tolerance).levels,)


def pareto(
    table: CostTable,
    values: Sequence[Sequence[float]],
    points: int | None = None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> tuple[_Levels, ...]:
    """Return the choices than which none has both a lower cost and a lower value, by ascending cost.

    One of every such pair of cost and value; exact as long as no more than ``MAX_FRONT`` partial choices are
    undominated. Beyond, one in each of as many equal factors of cost is kept, the one of least value.

    Args:
        table: Costs.
        values: Per layer and level; less is better.
        points: At most so many: the ends, and those nearest to equal factors of cost between them.
        low: Costs below are left out.
        high: Costs above are left out.

    Raises:
        BudgetError: If the values do not match the table or are not finite, or ``points`` is below 1.
    """
    check_rows(table, values, "values")
    if points is not None:
        _check_count(points, "points")
    states = States.start()
    history = []
    for costs, row in zip(table.costs, values, strict=True):
        states = _thin(_undominated(extend(states, np.asarray(costs, float), np.asarray(row, float))), MAX_FRONT)
        history.append(states)
    ease = _ease(table)
    costs_found = states.costs + table.constant
    index = np.flatnonzero((costs_found >= low - ease) & (costs_found <= high + ease))
    if points is not None and len(index):
        index = index[_spread(costs_found[index], points)]
    return tuple(trace(history, int(i)) for i in index)


def _check_count(count: int, name: str = "count") -> None:
    if count < 1:
        raise BudgetError(f"{name} is {count}, but must be at least 1")


def _ease(table: CostTable) -> float:
    """Return what rounding of float sums may move a cost by, so that it does not shut out one on the border."""
    return 1e-12 * max(abs(table.maximum), 1.0)


@dataclass(frozen=True)
class _Grid:
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
    def around(cls, table: CostTable, target: float, tolerance: float) -> _Grid:
        costs = tuple(np.asarray(row, float) - min(row) for row in table.costs)
        slack, ease = tolerance * abs(target), _ease(table)
        low, high = target - slack - table.minimum - ease, target + slack - table.minimum + ease
        span = min(high, sum(float(row.max()) for row in costs))
        cell = _cell(costs, span)
        steps = tuple(np.rint(row / cell).astype(np.int64) for row in costs)
        error = sum(float(np.abs(row / cell - step).max()) for row, step in zip(costs, steps, strict=True))
        # Partial sums are rounded once more; on whole cells there is nothing to round.
        error += 0.5 if error else 0.0
        first, last = math.ceil(low / cell - error - 1e-9), math.floor(span / cell + error + 1e-9)
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
    if span <= 0:
        return 1.0
    if all(np.array_equal(row, np.rint(row)) and row.max() < 2**53 for row in costs):
        divisor = math.gcd(*(int(cost) for row in costs for cost in row))
        if divisor and span / divisor <= EXACT_CELLS:
            return float(divisor)
    return span / CELLS


def _beam(
    grid: _Grid, values: Sequence[Sequence[float]], bounds: list[_Floats], count: int, width: int, limit: float
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
        kept = kept[_lowest_of_each(states.costs[kept], bound[kept], count, grid.high)]
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


def _lowest_of_each(costs: _Floats, rank: _Floats, count: int, high: float) -> NDArray[np.intp]:
    """Return the ``count`` lowest by ``rank`` among those of one cost: no more can be part of the best ``count``."""
    # Sums of the same costs in another order differ in their last bits.
    same = np.rint(costs * (2**44 / max(high, 1e-300)))
    order = np.lexsort((rank, same))
    starts = np.flatnonzero(np.r_[True, same[order][1:] != same[order][:-1]]) if len(order) else order
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return order[place < count]


def _enumerate(grid: _Grid, completions: list[_Floats]) -> list[_Levels]:
    """Return every choice in the window."""
    states, history = States.start(), []
    for costs, table in zip(grid.costs, completions[1:], strict=True):
        states = extend(states, costs, np.zeros(len(costs)))
        cells = np.rint(states.costs / grid.cell).astype(np.int64)
        states = take(states, np.flatnonzero(grid.look_up(table, cells, 0.0)))
        history.append(states)
    return [trace(history, int(i)) for i in np.flatnonzero(grid.holds(states.costs))]


def _draw(grid: _Grid, completions: list[_Floats], generator: torch.Generator, count: int) -> list[_Levels]:
    """Draw ``count`` choices with equal probability on the grid, and return those that are in the window."""
    cells = np.zeros(count, np.int64)
    costs = np.zeros(count)
    drawn = []
    for layer, steps in enumerate(grid.steps):
        reached = cells + steps[:, None]
        ways = np.cumsum(grid.look_up(completions[layer + 1], reached, 0.0), axis=0)
        random = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).cpu().numpy()
        # The last level that leads on, if the product rounds up to the sum of all.
        levels = np.minimum((ways <= random * ways[-1]).sum(0), (ways < ways[-1]).sum(0))
        cells = reached[levels, np.arange(count)]
        costs = costs + grid.costs[layer][levels]
        drawn.append(levels)
    chosen = np.stack(drawn, axis=1)[grid.holds(costs)]
    return [tuple(row) for row in chosen.tolist()]


def _undominated(states: States) -> States:
    states = take(states, np.lexsort((states.efforts, states.costs)))
    best = np.minimum.accumulate(states.efforts)
    return take(states, np.flatnonzero(np.r_[True, states.efforts[1:] < best[:-1]]))


def _thin(states: States, most: int) -> States:
    """Keep the last, hence best, of each of ``most`` equal factors of cost."""
    if len(states.costs) <= most:
        return states
    place = _log_place(states.costs) * (most - 1)
    return take(states, np.flatnonzero(np.r_[np.floor(place[1:]) != np.floor(place[:-1]), True]))


def _spread(costs: _Floats, points: int) -> NDArray[np.intp]:
    """Return the index of the ends and of those nearest to equal factors of cost between them."""
    if len(costs) <= points:
        return np.arange(len(costs))
    place = _log_place(costs)
    wanted = np.linspace(0, 1, points) if points > 1 else np.array([0.5])
    above = np.clip(np.searchsorted(place, wanted), 1, len(place) - 1)
    nearer = np.where(wanted - place[above - 1] <= place[above] - wanted, above - 1, above)
    return np.unique(nearer)


def _log_place(costs: _Floats) -> _Floats:
    """Return where each of ascending ``costs`` lies between the first (0) and the last (1), by factor."""
    # A sum may start at 0, whose logarithm has no place.
    logs = np.log(np.maximum(costs, 1e-6 * costs[-1]))
    place: _Floats = (logs - logs[0]) / (logs[-1] - logs[0])
    return place
