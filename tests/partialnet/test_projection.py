"""P12: projection on a budget against brute force, and within 2 % on the shapes of all variants."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
from hypothesis import given, settings

from partialnet.errors import BudgetError
from partialnet.search.cost import CostTable
from partialnet.search.projection import project
from partialnet.variants import VARIANTS
from tests.partialnet.cost_tables import TOLERANCE, problems, table_of, variant_table


@settings(deadline=None, max_examples=200)
@given(problem=problems())
def test_projection_equals_brute_force(problem: tuple[CostTable, float, list[list[float]]]) -> None:
    table, target, efforts = problem
    choices = list(itertools.product(*(range(len(row)) for row in table.costs)))

    def effort(chosen: tuple[int, ...]) -> float:
        return sum(row[level] for row, level in zip(efforts, chosen, strict=True))

    # A sum that lies on the border within rounding may fall on either side of it.
    def inside(cost: float, margin: float) -> bool:
        return abs(cost - target) <= TOLERANCE * target + margin

    margin = 1e-9 * table.maximum
    result = project(table, target, efforts)
    assert result.cost == table.total(result.levels)
    if any(inside(table.total(c), -margin) for c in choices):
        assert result.within_budget
    if result.within_budget:
        assert result.nearest is None
        assert inside(result.cost, margin)
        best = min(effort(c) for c in choices if inside(table.total(c), margin))
        sure = min((effort(c) for c in choices if inside(table.total(c), -margin)), default=math.inf)
        assert best - 1e-9 <= effort(result.levels) <= sure + 1e-9
        return
    costs = [table.total(c) for c in choices]
    below = max((c for c in costs if c <= target), default=None)
    above = min((c for c in costs if c >= target), default=None)
    assert result.nearest == tuple(None if cost is None else pytest.approx(cost) for cost in (below, above))
    assert result.cost == pytest.approx(below if below is not None else min(costs))


def test_a_target_out_of_reach_settles_on_the_nearest_end() -> None:
    table = table_of([[1, 4, 16], [1, 4, 16]])
    efforts = [[0.0, 1.0, 2.0]] * 2
    low = project(table, 0.5, efforts)
    assert (low.levels, low.cost, low.within_budget, low.nearest) == ((0, 0), 2, False, (None, 2))
    high = project(table, 100, efforts)
    assert (high.levels, high.cost, high.within_budget, high.nearest) == ((2, 2), 32, False, (32, None))
    hole = project(table, 11, efforts)
    assert (hole.cost, hole.within_budget, hole.nearest) == (8, False, (8, 17))


def test_the_least_effort_wins_not_the_nearest_cost() -> None:
    table = table_of([[100, 101, 103]])
    assert project(table, 101, [[0.5, 1.0, 0.1]]).levels == (2,)
    assert project(table, 101, [[0.5, 0.5, 0.5]]).levels == (1,)


def test_efforts_must_match() -> None:
    with pytest.raises(BudgetError, match="one entry per level"):
        project(table_of([[1, 2]]), 1, [[0.0]])


@pytest.mark.parametrize("unit", ["macs", "params", "latency"])
@pytest.mark.parametrize("scope", ["conv", "network"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "micro"])
def test_every_target_is_met_within_two_percent(variant: str, scope: str, unit: str) -> None:
    table = variant_table(variant, unit, scope)
    draw = random.Random(f"{variant} {scope} {unit}")
    # Below, sums of the smallest levels leave gaps; b = 8 is 1/64 of the whole in scope conv.
    low = max(table.minimum * 1.05, table.full / 64) if scope == "conv" else table.minimum * 1.05
    for _ in range(2):
        target = math.exp(draw.uniform(math.log(low), math.log(table.maximum * 0.95)))
        efforts = [[draw.random() for _ in row] for row in table.costs]
        start = time.process_time()
        result = project(table, target, efforts)
        assert time.process_time() - start < 1
        assert result.within_budget, (target, result)
        assert abs(result.cost - target) <= TOLERANCE * target
        assert result.cost == table.total(result.levels)
