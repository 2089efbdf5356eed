"""Exact projection of the levels on a budget: a hard filter, never a penalty.

Attention makes costs non-monotone in the level, so nothing here relies on an order. Within the tolerance the least
effort wins. The nearest costs are searched only after a proof that no choice is within the tolerance.
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
    """Levels that meet a budget, or the closest ones below it.

    Args:
        levels: Index of the chosen level of each layer.
        cost: Cost of the network.
        within_budget: Whether the cost is within the tolerance of the target.
        nearest: Most expensive reachable cost up to the target and the cheapest above it, if the budget was missed;
            None for a cost that does not exist.
    """

    levels: tuple[int, ...]
    cost: float
    within_budget: bool
    nearest: tuple[float | None, float | None] | None = None


def project(
    table: CostTable, target: float, efforts: Sequence[Sequence[float]], *, tolerance: float = TOLERANCE
) -> Projection:
    """Choose the levels of least total effort among all with a cost within ``tolerance`` of ``target``.

    If there are none, the most expensive reachable cost up to the target is chosen (among equal ones that of least
    effort); without such a cost, the lowest of all. The projection gives the nearest costs.

    Args:
        table: Costs of the levels.
        target: Target cost in the table's unit.
        efforts: Efforts by layer and level.
        tolerance: Relative tolerance.

    Raises:
        BudgetError: If the efforts do not match the table, or are not finite.
    """
    check_rows(table, efforts, "efforts")
    # Efforts decide only inside the window, so no effort can buy a missed budget.
    found = least_between(table, *window(target, tolerance), efforts)
    if found:
        return Projection(found[0], table.total(found[0]), True)
    below = _nearest(table, efforts, -math.inf, target)
    above = _nearest(table, efforts, target, math.inf)
    nearest = (None if below is None else table.total(below), None if above is None else table.total(above))
    # A budget is a limit, so a missed one is rather undercut than exceeded.
    chosen = below if below is not None else above
    assert chosen is not None
    return Projection(chosen, table.total(chosen), False, nearest)


def _nearest(
    table: CostTable, efforts: Sequence[Sequence[float]], low: float, high: float
) -> tuple[int, ...] | None:
    """Return the most expensive choice up to ``high``; without ``high``, the cheapest from ``low``."""
    # The program minimises, so the most expensive cost needs the opposite sign.
    sign = 1 if math.isinf(high) else -1
    found = least_between(table, low, high, [[sign * cost for cost in row] for row in table.costs])
    if not found:
        return None
    cost = table.total(found[0])
    # Several choices can have exactly this cost; the least effort wins among them.
    return least_between(table, cost, cost, efforts)[0]
