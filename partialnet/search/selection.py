"""Choice of networks by a cost table: the best within a budget, and random ones near it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from partialnet.errors import BudgetError
from partialnet.search.cost import CostTable
from partialnet.search.cost_grid import (
    CostGrid,
    States,
    check_rows,
    extend,
    least_between,
    take,
    trace,
    window,
)
from partialnet.search.projection import project
from partialnet.search.space import SearchSpace
from partialnet.search.units import TOLERANCE

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
    """Return the ``count`` choices of least total value among all with a cost within ``tolerance`` of ``target``.

    They are exact (see :func:`partialnet.search.cost_grid.least_between`), best first; of equal ones those closer to
    the target come first. There are fewer if the window holds fewer; if it holds none, the result is that of
    :func:`project`.

    Args:
        table: Costs of the levels.
        target: Target cost in the table's unit.
        values: Values by layer and level; less is better.
        count: Largest number of choices.
        tolerance: Relative tolerance.

    Raises:
        BudgetError: If the values do not match the table or are not finite, or ``count`` is below 1.
    """
    check_rows(table, values, "values")
    _check_count(count)
    found = least_between(table, *window(target, tolerance), values, count)
    return found or (project(table, target, values, tolerance=tolerance).levels,)


def presence_weights(space: SearchSpace, absent: float) -> list[list[float]] | None:
    """Return weights of options by which blocks are absent with probability ``absent``, before a window of costs.

    A block has one option without it and many with it, so that with equal weights it would seldom be absent.

    Returns:
        Weights by unit and option; None for equal weights, if no block can be absent.
    """
    units = range(len(space.names))
    if not any(map(space.droppable, units)):
        return None
    odds = absent / (1 - absent)
    rows = [[1.0] * len(row) for row in space.options]
    for unit in filter(space.droppable, units):
        rows[unit][0] = odds * (len(rows[unit]) - 1)
    return rows


def sample_within(
    table: CostTable,
    target: float,
    generator: torch.Generator,
    count: int,
    *,
    tolerance: float = TOLERANCE,
    weights: Sequence[Sequence[float]] | None = None,
) -> tuple[_Levels, ...]:
    """Return ``count`` distinct random choices with a cost within ``tolerance`` of ``target``.

    All choices in the window have equal probability, or one in proportion to the product of their weights. If it holds
    at most ``count``, all of them are returned in random order; if it holds none, the result is that of
    :func:`project`.

    Args:
        table: Costs of the levels.
        target: Target cost in the table's unit.
        generator: Source of randomness.
        count: Largest number of choices.
        tolerance: Relative tolerance.
        weights: Weights by unit and option; None for equal ones.

    Raises:
        BudgetError: If ``count`` is below 1.
    """
    _check_count(count)
    grid = CostGrid.between(table, *window(target, tolerance))
    completions = grid.completions()
    found: dict[_Levels, None] = {}
    few = completions[0][0] <= (count if weights else max(4096, 4 * count))
    if weights and not few:
        completions = grid.completions(weights)
    if few:
        every = _enumerate(grid, completions)
        order = torch.randperm(len(every), generator=generator, device=generator.device).tolist()
        found = dict.fromkeys(every[i] for i in order)
    else:
        for _ in range(_ROUNDS):
            drawn = _draw(grid, completions, generator, 2 * count, weights)
            found |= dict.fromkeys(drawn)
            if len(found) >= count:
                break
    if found:
        return tuple(found)[:count]
    zeros = [[0.0] * len(row) for row in table.costs]
    return (project(table, target, zeros, tolerance=tolerance).levels,)


def _check_count(count: int, name: str = "count") -> None:
    if count < 1:
        raise BudgetError(f"{name} is {count}, but must be at least 1")


def _enumerate(grid: CostGrid, completions: list[_Floats]) -> list[_Levels]:
    """Return all choices in the window."""
    states, history = States.start(), []
    for costs, table in zip(grid.costs, completions[1:], strict=True):
        states = extend(states, costs, np.zeros(len(costs)))
        cells = np.rint(states.costs / grid.cell).astype(np.int64)
        states = take(states, np.flatnonzero(grid.look_up(table, cells, 0.0)))
        history.append(states)
    return [trace(history, int(i)) for i in np.flatnonzero(grid.holds(states.costs))]


def _draw(
    grid: CostGrid,
    completions: list[_Floats],
    generator: torch.Generator,
    count: int,
    weights: Sequence[Sequence[float]] | None,
) -> list[_Levels]:
    """Draw ``count`` choices by their weights on the grid, and return those in the window."""
    cells = np.zeros(count, np.int64)
    costs = np.zeros(count)
    drawn = []
    for layer, steps in enumerate(grid.steps):
        reached = cells + steps[:, None]
        ways = grid.look_up(completions[layer + 1], reached, 0.0)
        if weights:
            ways = ways * np.asarray(weights[layer])[:, None]
        ways = np.cumsum(ways, axis=0)
        random = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).cpu().numpy()
        # The last level that leads on, if the product rounds up to the sum of all.
        levels = np.minimum((ways <= random * ways[-1]).sum(0), (ways < ways[-1]).sum(0))
        cells = reached[levels, np.arange(count)]
        costs = costs + grid.costs[layer][levels]
        drawn.append(levels)
    chosen = np.stack(drawn, axis=1)[grid.holds(costs)]
    return [tuple(row) for row in chosen.tolist()]
