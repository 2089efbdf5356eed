"""The mean cost of networks whose choices are each drawn between two neighbouring levels, and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from partialnet.search.cost import CostTable


class MeanCosts:
    """Costs interpolated between the levels of all choices.

    Choices are drawn independently, so the mean cost of a unit is the multilinear interpolation of its options. The
    presence of a block is one of its choices, and all options without the block cost the same.

    Args:
        table: Costs of the options, which are all combinations of the values of a unit's choices.
    """

    def __init__(self, table: CostTable) -> None:
        self._constant = table.constant
        # Nested lists, one level for each choice of a unit: a few numbers of them take less time than an array.
        self._units: list[tuple[slice, Any]] = []
        first = 0
        for unit, names in enumerate(table.space.choices):
            choices = slice(first, first + len(names))
            self._units.append((choices, _nested(table, unit, table.space.values[choices])))
            first += len(names)

    def total(self, rho: Sequence[float]) -> float:
        """Return the mean cost at the fractional level ``rho[i]`` of choice i."""
        return self._constant + sum(_mean(costs, rho[choices]) for choices, costs in self._units)

    def slopes(self, rho: Sequence[float]) -> list[float]:
        """Return the derivative of the mean cost with respect to each fractional level; 0 for a choice of one level."""
        return [
            _mean(costs, rho[choices], along)
            for choices, costs in self._units
            for along in range(choices.stop - choices.start)
        ]


def lower_level(rho: float, levels: int) -> int:
    """Return the lower one of the two neighbours of a fractional level, of which the upper one is a level as well."""
    return max(0, min(math.floor(rho), levels - 2))


def _nested(table: CostTable, unit: int, rows: Sequence[Sequence[int]], values: tuple[int, ...] = ()) -> Any:
    """Return the costs of a unit's options as nested lists; the first values of its choices are given."""
    if len(values) == len(rows):
        return table.cost(unit, values)
    return [_nested(table, unit, rows, (*values, value)) for value in rows[len(values)]]


def _mean(costs: Any, rho: Sequence[float], along: int | None = None, axis: int = 0) -> float:
    """Return the interpolated cost, or its derivative with respect to the level of choice ``along``."""
    if axis == len(rho):
        return float(costs)
    if len(costs) == 1:
        return 0.0 if axis == along else _mean(costs[0], rho, along, axis + 1)
    below = lower_level(rho[axis], len(costs))
    lower, upper = (_mean(part, rho, along, axis + 1) for part in costs[below : below + 2])
    return upper - lower if axis == along else lower + (rho[axis] - below) * (upper - lower)
