"""The fractional method: levels on the budget at every step, and an estimator that is right on average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from partialnet.architecture import Architecture
from partialnet.layers.choice import choices_of
from partialnet.layers.dpconv import DPConv2d
from partialnet.models.partialnet import create
from partialnet.search.budget import Budget, budget_costs
from partialnet.search.choices import in_order
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.fractional import FractionalMethod
from partialnet.search.mean_costs import MeanCosts, lower_level
from partialnet.search.result import SearchProgress
from partialnet.search.space import SearchSpace, options_of
from partialnet.search.step_batch import StepBatch
from tests.partialnet.cost_tables import problems, table_of
from tests.partialnet.search_runs import SHAPE, search, small_net
from tests.partialnet.test_wide_space import OPTIONS
from tests.samples import examples, sampled


def make_method(table: CostTable, target: float, **options: Any) -> FractionalMethod:
    layers = [DPConv2d(2 ** (len(row) - 1)) for row in table.costs]
    return FractionalMethod(layers, table, target, **{"penalty": 0.0, "learning_rate": 0.1, "seed": 0, **options})


@settings(max_examples=examples(50))
@given(problem=problems(), data=st.data())
def test_the_expected_cost_is_the_table_s_at_whole_levels_and_linear_between(
    problem: tuple[CostTable, float, Any], data: st.DataObject
) -> None:
    table, target, _ = problem
    method = make_method(table, target)
    low = [data.draw(st.integers(0, len(row) - 2)) for row in table.costs]
    assert method.expected_cost(low) == pytest.approx(table.total(low))
    tops = [len(row) - 1 for row in table.costs]
    assert method.expected_cost(tops) == pytest.approx(table.full)
    share = data.draw(st.floats(0, 1))
    mixed = table.total(low) * (1 - share) + table.total([level + 1 for level in low]) * share
    assert method.expected_cost([level + share for level in low]) == pytest.approx(mixed)


@st.composite
def growing(draw: st.DrawFn) -> tuple[CostTable, float, list[float]]:
    """Return a table whose costs grow with the level, a reachable target, and levels to start from."""
    sizes = draw(st.lists(st.integers(2, 6), min_size=1, max_size=6))
    costs = []
    for size in sizes:
        unit = draw(st.floats(0.5, 100))
        costs.append([unit * 4**level for level in range(size)] if draw(st.booleans()) else [unit] * size)
    for row in costs:
        row[:] = [cost * (1 + 0.1 * level) for level, cost in enumerate(row)]
    table = table_of(costs, draw(st.floats(0, 100)))
    target = table.minimum + draw(st.floats(0.001, 1)) * (table.full - table.minimum)
    return table, target, [draw(st.floats(0, size - 1)) for size in sizes]


@settings(max_examples=examples(100))
@given(problem=growing())
def test_levels_are_shifted_onto_the_budget(problem: tuple[CostTable, float, list[float]]) -> None:
    table, target, rho = problem
    method = make_method(table, target)
    shifted = method.shifted(rho)
    assert method.expected_cost(shifted) == pytest.approx(target, rel=1e-3)
    assert all(0 <= value <= len(row) - 1 for value, row in zip(shifted, table.costs, strict=True))
    moves = [new - old for new, old in zip(shifted, rho, strict=True)]
    assert min(moves) >= 0 or max(moves) <= 0, "all in one direction"


@settings(max_examples=examples(50))
@given(problem=problems(), data=st.data())
def test_a_shift_never_leads_away_from_the_budget(
    problem: tuple[CostTable, float, Any], data: st.DataObject
) -> None:
    """Where attention is counted, costs need not grow with the level."""
    table, target, _ = problem
    method = make_method(table, target)
    rho = [data.draw(st.floats(0, len(row) - 1)) for row in table.costs]
    shifted = method.shifted(rho)
    assert abs(method.expected_cost(shifted) - target) <= abs(method.expected_cost(rho) - target) + 1e-9
    assert all(0 <= value <= len(row) - 1 for value, row in zip(shifted, table.costs, strict=True))


def quadratic(rho: float, seed: int = 0, **options: Any) -> tuple[FractionalMethod, StepBatch, list[float]]:
    """Return a method on one layer, whose squared error is quadratic in the switch of a ring, and its losses."""
    torch.manual_seed(seed)
    layer = DPConv2d(8).double()
    table = layer_costs(layer, (8, 4, 4))
    method = FractionalMethod(
        [layer], table, 100.0, **{"penalty": 0.0, "learning_rate": 0.1, "seed": seed, **options}
    )
    inputs, targets = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 8, 4, 4).double()
    batch = StepBatch(inputs, targets, layer, F.mse_loss)
    losses = []
    for level in range(len(layer.levels)):
        method.set_levels([level])
        losses.append(float(batch.task().detach()))
    method.rho = [rho]
    return method, batch, losses


@pytest.mark.parametrize(
    ("rho", "chance"),
    [
        (1.3, 0.3), (1.02, 0.15), (3.0, 0.85), (0.0, 0.15),
        pytest.param(0.5, 0.5, marks=pytest.mark.long), pytest.param(2.97, 0.85, marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_the_derivative_is_unbiased_for_a_quadratic_loss(rho: float, chance: float) -> None:
    method, batch, losses = quadratic(rho)
    low = min(math.floor(rho), 2)
    draws: dict[bool, list[float]] = {True: [], False: []}
    for step in range(300):
        task = method.backward("search", step, batch).task
        draws[task == pytest.approx(losses[low + 1], rel=1e-6)].append(method._gradient[0])
    for upper, share in ((True, chance), (False, 1 - chance)):
        count = len(draws[upper])
        assert abs(count - 300 * share) < 5 * math.sqrt(300 * share * (1 - share))
        assert draws[upper] == pytest.approx([draws[upper][0]] * count, rel=1e-4)
    mean = chance * draws[True][0] + (1 - chance) * draws[False][0]
    assert mean == pytest.approx(losses[low + 1] - losses[low], rel=1e-4)


@pytest.mark.parametrize("rho", [0.2, 1.5, 2.9])
def test_the_penalty_is_zero_exactly_at_whole_levels(rho: float) -> None:
    method, batch, _ = quadratic(rho, penalty=0.7)
    free, same, _ = quadratic(rho)
    p = rho - math.floor(rho)
    loss, plain = method.backward("search", 0, batch), free.backward("search", 0, same)
    assert loss.order == pytest.approx(4 * p * (1 - p))
    assert loss.total == pytest.approx(loss.task + 0.7 * loss.order)
    assert method._gradient[0] - free._gradient[0] == pytest.approx(0.7 * 4 * (1 - 2 * p))
    assert plain.total == plain.task
    whole, batch, _ = quadratic(float(round(rho)), penalty=0.7)
    assert whole.backward("search", 0, batch).order == 0


def test_a_draw_probes_the_ring_between_its_levels_only() -> None:
    method, batch, losses = quadratic(1.5)
    loss = method.backward("search", 0, batch)
    upper = loss.task == pytest.approx(losses[2], rel=1e-6)
    values = method.values.of(0)
    assert values[1] != 0
    assert (values[0], values[2]) == (0, 0)
    assert method._gradient[0] == pytest.approx(values[1], rel=1e-6)
    assert method.layers[0].level == (2 if upper else 1)


@pytest.mark.parametrize(("b", "unit"), sampled([1.38, 3, 6], ["macs", "params"]))
def test_the_budget_holds_at_every_step(b: float, unit: Any) -> None:
    budget = Budget.from_b(b, unit=unit, input_shape=SHAPE)
    table = budget_costs(small_net(), budget)
    reached = []

    def remember(progress: SearchProgress) -> None:
        if progress.phase == "fractional":
            cost = 0.0
            for row, rho in zip(table.costs, progress.state().method["rho"], strict=True):
                below = min(int(rho), len(row) - 2)
                cost += row[below] + (rho - below) * (row[below + 1] - row[below])
            reached.append(cost / progress.target)

    search(budget=budget, method="fractional", callback=remember, gate_learning_rate=0.3)
    assert reached == pytest.approx([1.0] * 6, rel=1e-3)


def test_levels_move_where_the_loss_falls() -> None:
    """Two layers of equal cost, of which one is worth more: the other one pays for it."""
    torch.manual_seed(0)
    layers = [DPConv2d(8), DPConv2d(8)]
    table = table_of([[1.0, 2.0, 3.0, 4.0]] * 2)
    method = FractionalMethod(layers, table, 4.0, penalty=0.0, learning_rate=0.25, seed=0)
    method.rho = [1.0, 1.0]
    method._gradient = [-1.0, 1.0]
    method.update("search")
    assert method.rho == pytest.approx([1.25, 0.75])
    method._gradient = [-1.0, -1.0]
    method.update("search")
    assert method.rho == pytest.approx([1.25, 0.75]), "both want more, and the budget is spent"
    assert method.decision == [1, 1]
    method.update("uniform")
    assert method.rho == pytest.approx([1.25, 0.75])


@settings(max_examples=examples(30))
@given(data=st.data())
def test_the_expected_cost_of_several_choices_is_the_mean_over_their_draws(data: st.DataObject) -> None:
    levels = [(0, 1), (1, 2, 4), (8, 16), (3,)]
    names = ("b", "b.mixer", "b.mlp", "b.fixed")
    space = SearchSpace(("b",), (names,), (("presence", "n", "n", "n"),), (options_of(levels, droppable=True),))
    costs = [0.0, *(data.draw(st.floats(1, 100)) for _ in space.options[0][1:])]
    expected = MeanCosts(CostTable.of(space, [costs], 5.0))
    rho = [data.draw(st.floats(0, len(row) - 1)) for row in levels]

    def mean(at: Sequence[float]) -> float:
        total = 5.0
        lower = [lower_level(value, len(row)) for value, row in zip(at, levels, strict=True)]
        for draw in product((0, 1), (0, 1), (0, 1), (0,)):
            chances = [value - low if up else 1 - (value - low) for value, low, up in zip(at, lower, draw, strict=True)]
            values = [row[low + up] for row, low, up in zip(levels, lower, draw, strict=True)]
            total += math.prod(chances) * costs[space.place(0, values)]
        return total

    assert expected.total(rho) == pytest.approx(mean(rho))
    for index, slope in enumerate(expected.slopes(rho)):
        low = lower_level(rho[index], len(levels[index]))
        ends = [[*rho[:index], low + side, *rho[index + 1 :]] for side in (0, 1)]
        assert slope == pytest.approx(0 if index == 3 else mean(ends[1]) - mean(ends[0]), abs=1e-9)


def test_the_derivatives_of_two_choices_of_a_layer_are_unbiased_over_their_draws() -> None:
    torch.manual_seed(0)
    layer = DPConv2d(8, kernel_sizes=(3, 5)).double()
    assert layer.kernel is not None
    model = nn.Sequential(layer)
    method = FractionalMethod(
        [layer, layer.kernel], layer_costs(model, (8, 4, 4)), 100.0, penalty=0.0, learning_rate=0.1, seed=0
    )
    inputs, targets = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 8, 4, 4).double()
    batch = StepBatch(inputs, targets, model, F.mse_loss)
    method.rho, lower, chances = [1.3, 0.6], (1, 0), (0.3, 0.6)
    losses, mean = {}, [0.0, 0.0]
    for draw in product((False, True), repeat=2):
        options = method.assignment.options([low + up for low, up in zip(lower, draw, strict=True)])
        method._draw = lambda *_, draw=draw, options=options: (list(draw), options)  # type: ignore[method-assign]
        losses[draw] = method.backward("search", 0, batch).task
        share = math.prod(chance if up else 1 - chance for chance, up in zip(chances, draw, strict=True))
        mean = [known + share * seen for known, seen in zip(mean, method._gradient, strict=True)]
    splits = 0.4 * (losses[True, False] - losses[False, False]) + 0.6 * (losses[True, True] - losses[False, True])
    kernels = 0.7 * (losses[False, True] - losses[False, False]) + 0.3 * (losses[True, True] - losses[True, False])
    assert mean == pytest.approx([splits, kernels], rel=1e-4)


def test_the_layers_of_an_absent_block_have_no_derivative_but_its_presence_has() -> None:
    torch.manual_seed(0)
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=("split", "mlp_ratio", "depth"))
    table = layer_costs(model, SHAPE, "macs", "network")
    method = FractionalMethod(
        in_order(choices_of(model), table.space), table, table.full / 2, penalty=0.0, learning_rate=0.1, seed=0
    )
    images = torch.randn(8, *SHAPE)
    batch = StepBatch(images, torch.arange(8) % 4, model, F.cross_entropy)
    absent = [unit for unit in range(len(table.costs)) if table.space.droppable(unit)]
    method.rho = [0.0 if (place, unit) in [(0, u) for u in absent] else 1.0 for unit, place in table.space.flat]
    method._draw = lambda lower, _: (  # type: ignore[method-assign]
        [False] * len(lower), method.assignment.options(list(lower))
    )
    method.backward("search", 0, batch)
    for (unit, place), seen in zip(table.space.flat, method._gradient, strict=True):
        assert (seen != 0) == (unit not in absent or place == 0)
