"""P12: projection on a budget against brute force, and within 2 % on the shapes of all variants."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partialnet.errors import BudgetError
from partialnet.layers.gates import split_levels
from partialnet.search.cost import CostTable
from partialnet.search.projection import project
from partialnet.variants import VARIANTS

TOLERANCE = 0.02


def table_of(costs: list[list[float]], constant: float = 0.0) -> CostTable:
    return CostTable(
        tuple(f"layer{i}" for i in range(len(costs))),
        tuple(tuple(range(1, len(row) + 1)) for row in costs),
        tuple(map(tuple, costs)),
        constant,
    )


def variant_table(variant: str, unit: str, scope: str) -> CostTable:
    """Closed-form costs at 224x224, with attention's in scope network."""
    v = VARIANTS[variant]
    names, levels, costs = [], [], []
    draw = random.Random(0)
    for stage, depth in enumerate(v.depths):
        channels, positions = v.embed_dim * 2**stage, (56 >> stage) ** 2
        last = stage == len(v.depths) - 1
        row = split_levels(channels, rest="self_attention" if last else "channel_attention")
        for block in range(depth):
            names.append(f"stages.{stage}.blocks.{block}.mixer")
            levels.append(row)
            costs.append(tuple(_cost(channels, n, positions, unit, scope, last, draw) for n in row))
    return CostTable(tuple(names), tuple(levels), tuple(costs), sum(map(max, costs)) / 2 if scope == "network" else 0)


def _cost(channels: int, n: int, positions: int, unit: str, scope: str, last: bool, draw: random.Random) -> float:
    left = channels - n
    if unit == "latency":
        return draw.uniform(20, 40) + 500 * (n / channels) ** 1.2
    conv = 9 * n * n * (positions if unit == "macs" else 1)
    if scope == "conv":
        return conv
    if not last:
        return conv + 2 * left**2
    return conv + (4 * positions * left**2 + 2 * positions**2 * left if unit == "macs" else 4 * left**2)


@st.composite
def problems(draw: st.DrawFn) -> tuple[CostTable, float, list[list[float]]]:
    layers = draw(st.integers(1, 6))
    sizes = [draw(st.integers(2, 5 if layers < 5 else 3)) for _ in range(layers)]
    number = st.integers(1, 400) if draw(st.booleans()) else st.floats(0.1, 100)
    costs = [draw(st.lists(number, min_size=size, max_size=size)) for size in sizes]
    efforts = [draw(st.lists(st.floats(0, 2), min_size=size, max_size=size)) for size in sizes]
    table = table_of(costs, draw(st.integers(0, 500)))
    return table, draw(st.floats(0.05, 1.1 * table.maximum)), efforts


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
    with pytest.raises(BudgetError, match="one entry per layer and level"):
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
