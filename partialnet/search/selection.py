"""Choosing networks by a cost table: the best within a budget, random ones near it, and the front of cost and value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from partialnet.errors import BudgetError
from partialnet.search.budget import TOLERANCE
from partialnet.search.cost import CostTable
from partialnet.search.cost_grid import (
    CostGrid,
    States,
    check_rows,
    extend,
    least_between,
    rounding_ease,
    take,
    trace,
    window,
)
from partialnet.search.projection import project

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

    They are exact (see :func:`partialnet.search.cost_grid.least_between`), best first, of equal ones the nearer to the
    target; fewer where the window holds fewer.
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
    found = least_between(table, *window(target, tolerance), values, count)
    return found or (project(table, target, values, tolerance=tolerance).levels,)


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
    grid = CostGrid.between(table, *window(target, tolerance))
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
    ease = rounding_ease(table)
    costs_found = states.costs + table.constant
    index = np.flatnonzero((costs_found >= low - ease) & (costs_found <= high + ease))
    if points is not None and len(index):
        index = index[_spread(costs_found[index], points)]
    return tuple(trace(history, int(i)) for i in index)


def _check_count(count: int, name: str = "count") -> None:
    if count < 1:
        raise BudgetError(f"{name} is {count}, but must be at least 1")


def _enumerate(grid: CostGrid, completions: list[_Floats]) -> list[_Levels]:
    """Return every choice in the window."""
    states, history = States.start(), []
    for costs, table in zip(grid.costs, completions[1:], strict=True):
        states = extend(states, costs, np.zeros(len(costs)))
        cells = np.rint(states.costs / grid.cell).astype(np.int64)
        states = take(states, np.flatnonzero(grid.look_up(table, cells, 0.0)))
        history.append(states)
    return [trace(history, int(i)) for i in np.flatnonzero(grid.holds(states.costs))]


def _draw(grid: CostGrid, completions: list[_Floats], generator: torch.Generator, count: int) -> list[_Levels]:
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
