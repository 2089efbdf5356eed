"""Exact projection of the levels on a budget: a hard filter, never a penalty.

Costs are not monotone in the level once attention is counted, so nothing here relies on an order. Within the tolerance
the least effort wins; that nothing lies there is proved before the nearest costs are looked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from partialnet.search.cost import CostTable
from partialnet.search.cost_grid import check_rows, least_between, window
from partialnet.search.units import TOLERANCE


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
    found = least_between(table, *window(target, tolerance), efforts)
    if found:
        return Projection(found[0], table.total(found[0]), True)
    below = _nearest(table, efforts, -math.inf, target)
    above = _nearest(table, efforts, target, math.inf)
    nearest = (None if below is None else table.total(below), None if above is None else table.total(above))
    chosen = below if below is not None else above
    assert chosen is not None
    return Projection(chosen, table.total(chosen), False, nearest)


def _nearest(
    table: CostTable, efforts: Sequence[Sequence[float]], low: float, high: float
) -> tuple[int, ...] | None:
    """Return the choice that costs most of those up to ``high``, or least of those from ``low`` if ``high`` is none."""
    sign = 1 if math.isinf(high) else -1
    found = least_between(table, low, high, [[sign * cost for cost in row] for row in table.costs])
    if not found:
        return None
    cost = table.total(found[0])
    return least_between(table, cost, cost, efforts)[0]
