"""Selection by a cost table against brute force: the best within a budget, and samples near it."""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partialnet.errors import BudgetError
from partialnet.search.cost import CostTable
from partialnet.search.neighbours import neighbours
from partialnet.search.projection import project
from partialnet.search.selection import best_within, sample_within
from tests.partialnet.cost_tables import TOLERANCE, problems, table_of, variant_table
from tests.samples import examples

Levels = tuple[int, ...]
Rows = list[list[float]]


def total(rows: Rows, chosen: Levels) -> float:
    return sum(row[level] for row, level in zip(rows, chosen, strict=True))


def choices(table: CostTable) -> list[Levels]:
    return list(itertools.product(*(range(len(row)) for row in table.costs)))


def in_window(table: CostTable, target: float, margin: float) -> list[Levels]:
    """A sum that lies on the border within rounding may fall on either side of it."""
    slack = TOLERANCE * target + margin * table.maximum
    return [chosen for chosen in choices(table) if abs(table.total(chosen) - target) <= slack]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=examples(150))
@given(problem=problems(), count=st.integers(1, 15))
def test_the_best_within_a_budget_equal_brute_force(problem: tuple[CostTable, float, Rows], count: int) -> None:
    table, target, values = problem
    found = best_within(table, target, values, count)
    sure, possible = in_window(table, target, -1e-9), in_window(table, target, 1e-9)
    if not possible:
        assert found == (project(table, target, values).levels,)
        return
    assert len(set(found)) == len(found)
    if set(found) <= set(possible):
        assert min(len(sure), count) <= len(found) <= min(len(possible), count)
        got = [total(values, chosen) for chosen in found]
        assert got == sorted(got) or got == pytest.approx(sorted(got))
        best = sorted(total(values, chosen) for chosen in possible)
        worst = sorted(total(values, chosen) for chosen in sure)
        assert all(value >= bound - 1e-9 for value, bound in zip(got, best, strict=False))
        assert all(value <= bound + 1e-9 for value, bound in zip(got, worst, strict=False))
    else:
        assert not sure


@settings(max_examples=examples(100))
@given(problem=problems(), count=st.integers(1, 40))
def test_samples_are_distinct_and_in_the_window(problem: tuple[CostTable, float, Rows], count: int) -> None:
    table, target, _ = problem
    found = sample_within(table, target, generator(), count)
    sure, possible = in_window(table, target, -1e-9), in_window(table, target, 1e-9)
    assert len(set(found)) == len(found)
    if sure:
        assert set(found) <= set(possible)
        assert min(len(sure), count) <= len(found) <= count
    elif not possible:
        assert len(found) == 1
        assert found[0] in choices(table)
    assert found == sample_within(table, target, generator(), count)


def test_every_choice_in_the_window_is_equally_likely() -> None:
    # 7 layers of 4 levels, 16384 choices: more than are listed, so that they are drawn.
    table = table_of([[1.0, 2.0, 3.0, 4.0]] * 7)
    feasible = {chosen for chosen in choices(table) if abs(table.total(chosen) - 17) <= 17 * 0.4}
    assert len(feasible) > 10_000
    drawn: Counter[int] = Counter()
    for seed in range(40):
        found = sample_within(table, 17, generator(seed), 200, tolerance=0.4)
        assert len(found) == 200
        assert set(found) <= feasible
        drawn.update(round(table.total(chosen)) for chosen in found)
    expected = Counter(round(table.total(chosen)) for chosen in feasible)
    for cost, count in expected.items():
        share = count / len(feasible)
        deviation = math.sqrt(8000 * share * (1 - share))
        assert abs(drawn[cost] - 8000 * share) < 5 * deviation


def test_equal_layers_do_not_hide_the_best() -> None:
    # All orders of the same levels cost and are worth the same: a search over choices would drown in them.
    table = table_of([[1.0, 4.0, 16.0, 64.0, 256.0]] * 24, constant=7)
    values = [[0.0, -1.0, -1.9, -2.7, -3.4]] * 24
    found = best_within(table, 1500, values, 5)
    best = min(
        -(b + 1.9 * c + 2.7 * d + 3.4 * e)
        for b, c, d, e in itertools.product(range(25), repeat=4)
        if b + c + d + e <= 24
        and abs(7 + 24 + 3 * b + 15 * c + 63 * d + 255 * e - 1500) <= 1500 * TOLERANCE
    )
    assert [total(values, chosen) for chosen in found] == pytest.approx([best] * 5)


@pytest.mark.parametrize("unit", ["macs", "latency"])
@pytest.mark.parametrize("scope", ["conv", "network"])
def test_the_largest_variant(scope: str, unit: str) -> None:
    table = variant_table("l", unit, scope)
    draw = random.Random(0)
    values = [[-draw.uniform(0.5, 2) * math.log2(i + 1) for i in range(len(row))] for row in table.costs]
    target = table.minimum + 0.2 * (table.full - table.minimum)
    best = best_within(table, target, values)
    samples = sample_within(table, target, generator(), 100)
    assert (len(set(best)), len(set(samples))) == (12, 100)
    assert all(abs(table.total(chosen) - target) <= TOLERANCE * target for chosen in best + samples)
    assert total(values, best[0]) <= min(total(values, chosen) for chosen in samples)
    assert total(values, best[0]) == pytest.approx(total(values, project(table, target, values).levels))


def test_wrong_arguments_are_named() -> None:
    table = table_of([[1, 2], [1, 3]])
    with pytest.raises(BudgetError, match="values have 1 rows, but the cost table has 2 layers"):
        best_within(table, 3, [[0.0, 1.0]])
    with pytest.raises(BudgetError, match="values of layer1 must have one entry per level, 2, but have 1"):
        best_within(table, 3, [[0.0, 1.0], [0.0]])
    with pytest.raises(BudgetError, match=r"values of layer0 are \[nan, 1.0\], but must be finite"):
        best_within(table, 3, [[math.nan, 1.0], [0.0, 1.0]])
    with pytest.raises(BudgetError, match="count is 0"):
        best_within(table, 3, [[0.0, 1.0]] * 2, 0)
    with pytest.raises(BudgetError, match="count is -1"):
        sample_within(table, 3, generator(), -1)


@settings(max_examples=examples(60))
@given(problem=problems(), data=st.data())
def test_neighbours_are_all_networks_of_the_budget_that_differ_in_one_or_two_units(
    problem: tuple[CostTable, float, Rows], data: st.DataObject
) -> None:
    table, _, values = problem
    chosen = tuple(data.draw(st.integers(0, len(row) - 1)) for row in table.costs)
    target = table.total(data.draw(st.sampled_from(choices(table))))
    found = list(neighbours(table, chosen, target, values))
    surely, maybe = (
        {other for other in in_window(table, target, margin) if 1 <= sum(map(operator.ne, other, chosen)) <= 2}
        for margin in (-1e-9, 1e-9)
    )
    assert surely <= set(found) <= maybe
    assert len(set(found)) == len(found)
    assert all(total(values, a) <= total(values, b) + 1e-9 for a, b in itertools.pairwise(found))
