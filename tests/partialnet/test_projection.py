"""P12: projection on a budget against brute force, and within 2 % on the shapes of all variants."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import random

import pytest
from hypothesis import given, settings

from partialnet.errors import BudgetError
from partialnet.search.cost import CostTable
from partialnet.search.projection import project
from partialnet.variants import VARIANTS
from tests.partialnet.cost_tables import TOLERANCE, problems, table_of, variant_table
from tests.samples import examples, sampled


@settings(max_examples=examples(200))
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


@pytest.mark.parametrize("costs", [[7.0, 9.0, 30.0], [0.7, 0.95, 3.1]])
def test_a_window_that_ends_at_the_lowest_cost_holds_it(costs: list[float]) -> None:
    table = table_of([costs] * 3, constant=5.0)
    for nudge in (-1e-6, -1e-11, -1e-12, -1e-13, -1e-15, 0.0, 1e-15, 1e-13, 1e-12, 1e-6):
        target = table.minimum / (1 + TOLERANCE) * (1 + nudge)
        result = project(table, target, [[0.0, 1.0, 2.0]] * 3)
        assert result.levels == (0, 0, 0)
        if abs(nudge) > 1e-10:
            assert result.within_budget == (nudge > 0)


def test_the_least_effort_wins_not_the_nearest_cost() -> None:
    table = table_of([[100, 101, 103]])
    assert project(table, 101, [[0.5, 1.0, 0.1]]).levels == (2,)
    assert project(table, 101, [[0.5, 0.5, 0.5]]).levels == (1,)


def test_efforts_must_match() -> None:
    with pytest.raises(BudgetError, match="one entry per level"):
        project(table_of([[1, 2]]), 1, [[0.0]])


def certainly_out_of_reach(table: CostTable, low: float, high: float) -> bool:
    """Whether no choice costs from ``low`` to ``high``, by marking every cell that a sum of costs may fall into."""
    if high < table.constant:
        return True
    cells = 2**18
    cell = (high - table.constant) / cells
    window = (1 << (cells + 2)) - 1
    reached = 1
    for row in table.costs:
        places = {int(cost // cell) + carry for cost in row for carry in (0, 1) if cost <= high - table.constant}
        reached = functools.reduce(operator.or_, (reached << place for place in places), 0) & window
    return not reached >> max(0, int((low - table.constant) // cell) - 1)


def meet_or_prove(variant: str, scope: str, unit: str, count: int) -> None:
    table = variant_table(variant, unit, scope)
    draw = random.Random(f"{variant} {scope} {unit}")
    met = 0
    for _ in range(count):
        target = math.exp(draw.uniform(math.log(table.minimum * 0.95), math.log(table.maximum * 1.03)))
        efforts = [[draw.random() for _ in row] for row in table.costs]
        result = project(table, target, efforts)
        assert result.cost == table.total(result.levels)
        assert result.within_budget == (abs(result.cost - target) <= TOLERANCE * target)
        met += result.within_budget
        if result.nearest is not None:
            below, above = result.nearest
            assert certainly_out_of_reach(table, target * (1 - TOLERANCE), target * (1 + TOLERANCE))
            # Nothing lies between the nearest costs, but for the width of the proof's cells.
            low = 0 if below is None else below * (1 + 5e-4)
            high = 2 * table.maximum if above is None else above * (1 - 5e-4)
            assert low >= high or certainly_out_of_reach(table, low, high)
    assert met >= count / 2


UNITS = ["macs", "params", "latency"]
LARGE = [name for name in VARIANTS if name != "micro"]


@pytest.mark.parametrize(("variant", "scope", "unit"), sampled(LARGE, ["conv", "network"], UNITS))
def test_targets_are_met_within_two_percent_or_proved_out_of_reach(variant: str, scope: str, unit: str) -> None:
    meet_or_prove(variant, scope, unit, 3)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("scope", ["conv", "network"])
@pytest.mark.parametrize("variant", LARGE)
def test_two_hundred_targets_each(variant: str, scope: str, unit: str) -> None:
    meet_or_prove(variant, scope, unit, 200)


@pytest.mark.parametrize("unit", UNITS)
def test_usual_targets_are_always_met_in_scope_conv(unit: str) -> None:
    for variant in LARGE:
        table = variant_table(variant, unit, "conv")
        for b in (1.5, 2, 3, 4, 6, 8) if unit != "latency" else (1, 1.2, 1.5, 2):
            target = table.full / b**2
            result = project(table, target, [[0.0] * len(row) for row in table.costs])
            assert result.within_budget, (variant, b, result)


def test_the_proof_sees_what_is_in_reach() -> None:
    table = table_of([[1.0, 4.0, 16.0], [1.0, 4.0, 16.0]], constant=3.0)
    for cost in (5, 8, 11, 20, 23, 35):
        assert not certainly_out_of_reach(table, cost - 0.01, cost + 0.01)
    for low, high in ((0, 4.9), (5.1, 7.9), (11.1, 19.9), (23.1, 34.9), (35.1, 100)):
        assert certainly_out_of_reach(table, low, high)
