"""The largest split ratio that a search tries."""

from __future__ import annotations

import math
from collections.abc import Sequence

from partialnet.layers.choice import Choice
from partialnet.search.cost import CostTable
from partialnet.search.projection import project
from partialnet.search.space import SearchSpace


def capped(table: CostTable, choices: Sequence[Choice], max_ratio: float, targets: Sequence[float]) -> CostTable:
    """Return the costs of splits up to ``max_ratio``, and of higher ones if a target needs them.

    Args:
        table: Costs of all options.
        choices: Choices in the order of the table.
        max_ratio: Largest split ratio to try.
        targets: Target costs in the table's unit.
    """
    ratio = max_ratio
    while ratio < 1:
        smaller = table.kept(table.space.up_to(_limits(table.space, choices, ratio)))
        if all(_settles_alike(smaller, table, target) for target in targets):
            return smaller
        ratio *= 2
    return table


def _limits(space: SearchSpace, choices: Sequence[Choice], ratio: float) -> dict[str, float]:
    """Return the largest active channels at a ratio by module name; the lowest split always stays."""
    names = [name for row in space.choices for name in row]
    return {
        name: max(values[0], ratio * choice.channels)
        for name, choice, values in zip(names, choices, space.values, strict=True)
        if choice.kind == "split"
    }


def _settles_alike(smaller: CostTable, table: CostTable, target: float) -> bool:
    """Return whether fewer levels meet the target as well; if none do, whether both settle on the same cost."""
    found, best = (project(one, target, [[0.0] * len(row) for row in one.costs]) for one in (smaller, table))
    if best.within_budget or found.within_budget:
        return found.within_budget
    return math.isclose(found.cost, best.cost)
