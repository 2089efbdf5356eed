"""One kind of choice of a learned network alone: all other kinds uniform, at the same cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from partialnet.search.cost import CostTable
from partialnet.search.projection import Projection, project
from partialnet.search.space import Option, SearchSpace
from partialnet.search.units import TOLERANCE

_FACTORS = (1.0, 3 / 4, 1 / 2, 3 / 2, 2.0, 1 / 4)
"""Uniform values of the other kinds that are tried, relative to the published ones, the first that serves counts."""


def only_kind(
    table: CostTable,
    chosen: Sequence[int],
    published: Sequence[int],
    quantity: str,
    target: float,
    *,
    tolerance: float = TOLERANCE,
) -> Projection:
    """Return the options closest to the learned ones in one kind of choice, with all other kinds uniform.

    Among all networks of the target's cost, in which the other kinds have their published values or one multiple of
    them everywhere, it is the one whose choices of this kind are closest to the learned ones.

    Args:
        table: Costs of a space of any kinds.
        chosen: Learned option (an index) of each unit.
        published: Option of the published network in each unit; its blocks are there.
        quantity: Quantity of the kind, such as ``"hidden_channels"``.
        target: Cost to reach, in the unit of the table.
        tolerance: Relative tolerance.

    Returns:
        Options in the indices of ``table``. If no multiple reaches the target, the projection with the published values
        says how close it comes.
    """
    space = table.space
    others = sorted(space.kinds - {quantity, "presence"})
    best: Projection | None = None
    every = product(_FACTORS, repeat=len(others))
    for factors in sorted(every, key=lambda given: sum(abs(math.log(factor)) for factor in given)):
        keep = [
            _kept(space, unit, published[unit], quantity, dict(zip(others, factors, strict=True)))
            for unit in range(len(space.names))
        ]
        efforts = [
            [_distance(space, unit, option, chosen[unit], quantity) for option in row] for unit, row in enumerate(keep)
        ]
        found = project(table.kept(keep), target, efforts, tolerance=tolerance)
        levels = tuple(row[place] for row, place in zip(keep, found.levels, strict=True))
        alone = Projection(levels, table.total(levels), found.within_budget, found.nearest)
        if alone.within_budget:
            return alone
        best = best or alone
    assert best is not None
    return best


def _kept(
    space: SearchSpace, unit: int, published: int, quantity: str, factors: dict[str, float]
) -> list[int]:
    """Return the options of a unit that differ from the uniform ones in one kind only."""
    reference = space.options[unit][published]
    wanted: list[int | None] = []
    for place, kind in enumerate(space.quantities[unit]):
        if kind == quantity:
            wanted.append(None)
            continue
        values = sorted({option[place] for option in space.options[unit] if len(option) > place})
        goal = factors.get(kind, 1.0) * reference[place]
        wanted.append(min(values, key=lambda value: abs(value - goal)))
    return [place for place, option in enumerate(space.options[unit]) if _agrees(option, wanted)]


def _agrees(option: Option, wanted: Sequence[int | None]) -> bool:
    return all(value is None or value == given for value, given in zip(wanted, option, strict=False))


def _distance(space: SearchSpace, unit: int, place: int, learned: int, quantity: str) -> float:
    """Return how far an option is from the learned one in one kind: in octaves, or 1 for another presence."""
    option, goal = space.options[unit][place], space.options[unit][learned]
    total = 0.0
    for index, kind in enumerate(space.quantities[unit]):
        if kind != quantity or index >= min(len(option), len(goal)):
            continue  # an absent block has learned nothing inside
        if kind == "presence":
            total += abs(option[index] - goal[index])
        else:
            total += abs(math.log2(max(option[index], 0.5) / max(goal[index], 0.5)))  # attended channels may be 0
    return total
