"""Networks that differ from a given one in one or two units and stay within the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from partialnet.search.cost import CostTable
from partialnet.search.cost_grid import window
from partialnet.search.units import TOLERANCE

_MOST = 1000


def neighbours(
    table: CostTable,
    chosen: Sequence[int],
    target: float,
    values: Sequence[Sequence[float]],
    *,
    tolerance: float = TOLERANCE,
) -> Iterator[tuple[int, ...]]:
    """Yield the networks within the budget that differ in one or two units, those of least total value first.

    In a large space only the thousand best changes of a unit are combined.

    Args:
        table: Costs of the options.
        chosen: Option (an index) of each unit.
        target: Target cost in the table's unit.
        values: Values by unit and option; less is better.
        tolerance: Relative tolerance of the cost.
    """
    places = [(unit, place) for unit, row in enumerate(table.costs) for place in range(len(row))]
    others = [(unit, place) for unit, place in places if place != chosen[unit]]
    others.sort(key=lambda change: values[change[0]][change[1]] - values[change[0]][chosen[change[0]]])
    # The first one changes nothing, so that a pair with it is a single change.
    changes = [(0, chosen[0]), *others[:_MOST]]
    units = np.array([unit for unit, _ in changes])
    costs = np.array([table.costs[unit][place] - table.costs[unit][chosen[unit]] for unit, place in changes])
    gains = np.array([values[unit][place] - values[unit][chosen[unit]] for unit, place in changes])
    low, high = window(target, tolerance)
    totals = table.total(chosen) + costs[:, None] + costs[None, :]
    first, second = np.nonzero(np.triu((totals >= low) & (totals <= high), k=1))
    apart = (units[first] != units[second]) | (first == 0)
    first, second = first[apart], second[apart]
    for index in np.argsort(gains[first] + gains[second], kind="stable"):
        found = list(chosen)
        for unit, place in (changes[first[index]], changes[second[index]]):
            found[unit] = place
        yield tuple(found)
