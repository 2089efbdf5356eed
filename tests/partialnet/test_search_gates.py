"""The method of gates: the objective of equation 9, its gradient, and what a step does with it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.search.budget import Budget
from partialnet.search.capping import capped
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.gates import GatesMethod
from partialnet.search.levels import set_active_channels
from partialnet.search.phases import PhaseSchedule
from partialnet.search.projection import project
from partialnet.search.step_batch import StepBatch
from tests.partialnet.cost_tables import problems
from tests.partialnet.search_runs import METHODS, SHAPE, random_batches, search, small_net
from tests.partialnet.searchable import SmallNet
from tests.samples import examples

RATE = 0.02


def make_method(
    model: SmallNet, target: float, exponent: float = 1.0, penalty: float = 0.9, table: CostTable | None = None
) -> GatesMethod:
    table = table or layer_costs(model, SHAPE)
    return GatesMethod(
        [dpconv_layers(model)[name] for name in table.names],
        table,
        target,
        complexity_exponent=exponent,
        penalty=penalty,
        learning_rate=RATE,
        seed=0,
    )


def batch_for(model: nn.Module) -> StepBatch:
    inputs, targets = random_batches(1)[0]
    return StepBatch(inputs, targets, model, F.cross_entropy)


def network(first: int, second: int) -> SmallNet:
    model = small_net()
    set_active_channels(model, {"first": first, "second": second})
    return model


def explicit_differences(model: SmallNet, batch: StepBatch) -> dict[str, tuple[float, float]]:
    """Return D- and D+ of both layers by their definition: outputs at the neighbouring levels, one at a time."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, inputs: Tensor, outputs: Tensor) -> None:
        outputs.retain_grad()
        calls[name] = (inputs.detach(), outputs)

    layers = dpconv_layers(model)
    handles = [
        layer.register_forward_hook(lambda _module, inputs, outputs, name=name: keep(name, inputs[0], outputs))
        for name, layer in layers.items()
    ]
    batch.task().backward()
    for handle in handles:
        handle.remove()
    found = {}
    for name, layer in layers.items():
        x, y = calls[name]
        assert y.grad is not None
        sides = []
        for level in (layer.level - 1, layer.level + 1):
            if not 0 <= level < len(layer.levels):
                sides.append(0.0)
                continue
            with torch.no_grad():
                difference = layer.at_level(x, level) - y
            sides.append(float((y.grad * difference).sum()) * (1 if level > layer.level else -1))
        found[name] = (sides[0], sides[1])
    return found


@pytest.mark.parametrize(("factor", "exponent"), [(3, 0.5), (3, 1.0), (3, 0.0), (1 / 3, 0.5), (1.0, 1.0)])
def test_the_objective_is_that_of_equation_nine(factor: float, exponent: float) -> None:
    model, twin = network(8, 4), network(8, 4)
    cost = layer_costs(model, SHAPE).total([3, 2])
    plain = batch_for(twin).task()
    plain.backward()
    loss = make_method(model, cost / factor, exponent).backward("search", 0, batch_for(model))
    weight = factor**exponent if factor > 1 else 1.0
    assert loss.task == pytest.approx(float(plain.detach()))
    assert loss.complexity == pytest.approx(weight)
    assert loss.order == 0
    assert loss.total == pytest.approx(float(plain.detach()) * weight)
    for mine, alone in zip(model.parameters(), twin.parameters(), strict=True):
        if alone.grad is not None and mine.shape != model.first.gates.shape:
            assert mine.grad is not None
            assert torch.allclose(mine.grad, alone.grad * weight, rtol=1e-4, atol=1e-6)


def test_an_illegal_order_is_penalised_and_not_executed() -> None:
    model, twin = network(8, 4), network(8, 4)
    with torch.no_grad():
        model.first.gates.copy_(torch.tensor([0.3, -0.2, 0.1, 0.1]))
    loss = make_method(model, 1e9, penalty=0.5).backward("search", 0, batch_for(model))
    assert loss.task == pytest.approx(float(batch_for(twin).task().detach()))
    assert loss.order == pytest.approx(0.4)
    assert loss.total == pytest.approx(loss.task + 0.5 * 0.4)


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize(
    ("gates", "legal"), [([-0.10, -0.05, 0.05, 0.10], True), ([0.30, -0.20, 0.10, -0.05], False)]
)
def test_a_step_goes_down_the_gradient_of_the_objective(gates: list[float], legal: bool, over: bool) -> None:
    """Task: half D+ where a gate is 0, half D- where it is 1. Cost: half the table's difference. Order: the sign."""
    model, twin = network(4, 8), network(4, 8)
    for net in (model, twin):
        with torch.no_grad():
            net.first.gates.copy_(torch.tensor(gates))
    assert model.first.level == 2
    table = layer_costs(model, SHAPE)
    cost = table.total([2, 3])
    target = cost / 3 if over else 2 * cost
    exponent, penalty = 0.5, 0.7
    twin_batch = batch_for(twin)
    sides = explicit_differences(twin, twin_batch)
    method = make_method(model, target, exponent, penalty)
    before = {name: layer.gates.detach().clone() for name, layer in dpconv_layers(model).items()}
    task = method.backward("search", 0, batch_for(model)).task
    weight = 3**exponent if over else 1.0
    slope = task * exponent * 3**exponent / cost if over else 0.0
    expected = {}
    for (name, layer), row in zip(dpconv_layers(twin).items(), table.costs, strict=True):
        level, (removal, growth) = layer.level, sides[name]
        on = layer.gates.detach() >= 0
        up, down = row[level + 1] - row[level], row[level] - row[level - 1]
        expected[name] = torch.where(
            on, torch.tensor((weight * removal + slope * down) / 2), torch.tensor((weight * growth + slope * up) / 2)
        )
    if not legal:
        # The first 0 after a 1 is gate 2: from there on every gate is pulled to 0.
        expected["first"] = expected["first"] + penalty * torch.tensor([0.0, -1.0, 1.0, -1.0])
    method.update("search")
    rms = math.sqrt(sum(float(g.double().square().sum()) for g in expected.values()) / 8)
    for name, layer in dpconv_layers(model).items():
        moved = (layer.gates.detach() - before[name]) / RATE
        assert torch.allclose(moved, -expected[name] / rms, atol=2e-3), (name, moved, expected[name] / rms)


def test_the_gradient_of_the_cost_is_the_difference_of_the_table() -> None:
    model = network(4, 16)
    method = make_method(model, 1.0)
    method.soft_cost().backward()
    row = method.table.costs[0]
    assert model.first.gates.grad is not None
    assert model.first.gates.grad.tolist() == [(row[3] - row[2]) / 2] * 2 + [(row[2] - row[1]) / 2] * 2
    # The closed form m^2 prod(1 + 3 g) of the convolution, differentiated, says the same.
    gates = torch.tensor([0.0, 0, 1, 1], requires_grad=True)
    (9 * 36 * (1 + 3 * gates).prod()).backward()
    assert gates.grad is not None
    assert (gates.grad / 2).tolist() == model.first.gates.grad.tolist()


@pytest.mark.parametrize("wanted", [(1, 3), (3, 1)])
def test_the_projection_is_what_the_values_ask_for_where_the_budget_allows(wanted: tuple[int, int]) -> None:
    model = small_net()
    method = make_method(model, layer_costs(model, SHAPE).total(wanted))
    for layer, level in enumerate(wanted):
        for ring in range(4):
            method.values.observe(layer, ring, present=True, value=-1.0 if ring < level else 0.1)
    projection = method.project()
    assert projection.levels == wanted
    assert projection.within_budget
    assert projection == project(method.table, method.target, [method.values.efforts(layer) for layer in range(2)])
    assert [layer.level for layer in method.layers] == list(wanted)
    assert all(layer.gates.tolist() == sorted(layer.gates.tolist()) for layer in method.layers)


def test_the_search_starts_where_the_values_want_it() -> None:
    model = small_net()
    method = make_method(model, layer_costs(model, SHAPE).total([1, 3]))
    method.start()
    started = list(method.decision)
    method.begin("search", 10)
    assert method.decision == started, "nothing was observed"
    for ring in range(4):
        method.values.observe(1, ring, present=True, value=-1.0)
    method.begin("search", 10)
    assert method.decision == [1, 3]
    assert model.second.active_channels == 8


@pytest.mark.parametrize("method", METHODS)
def test_a_level_above_the_cap_is_never_used(method: str) -> None:
    model = small_net()
    used: set[int] = set()
    budget = Budget(target=9 * 36 * 20, input_shape=SHAPE)
    options: dict[str, Any] = {"method": method, "max_ratio": 0.25, "near": 0.0}
    if method != "supernet":  # it has no such rate, and trains several networks in a step
        options |= {"gate_learning_rate": 0.5, "steps": 40}
    for layer in dpconv_layers(model).values():
        layer.register_forward_hook(lambda module, *_: used.add(module.active_channels))
    result = search(model, budget, **options)
    assert result.within_budget
    assert used == {1, 2, 4}


@pytest.mark.parametrize("method", METHODS)
def test_the_cap_is_lifted_where_the_budget_lies_above(method: str) -> None:
    table = layer_costs(small_net(), SHAPE)
    result = search(budget=Budget(target=table.total([4, 1]), input_shape=SHAPE), method=method, max_ratio=0.25)
    assert result.within_budget
    assert 16 in result.active_channels.values()


@settings(max_examples=examples(60))
@given(problem=problems(), ratio=st.sampled_from([1.0, 0.5, 0.25, 0.125, 0.01]))
def test_a_cap_costs_no_target(problem: tuple[CostTable, float, Any], ratio: float) -> None:
    table, target, _ = problem
    levels = tuple(tuple(2**level for level in range(len(row))) for row in table.costs)
    table = CostTable(table.names, levels, table.costs, table.constant)
    layers = [DPConv2d(row[-1]) for row in levels]
    smaller = capped(table, layers, ratio, [target])
    for row, kept in zip(table.costs, smaller.costs, strict=True):
        assert kept == row[: len(kept)]
    free = [[[0.0] * len(row) for row in one.costs] for one in (table, smaller)]
    best, found = project(table, target, free[0]), project(smaller, target, free[1])
    assert found.within_budget == best.within_budget
    if not best.within_budget:
        assert found.cost == pytest.approx(best.cost)


def test_a_cap_does_not_exceed_a_target_that_a_larger_level_undercuts() -> None:
    """With attention a larger level may cost less: here 5, and 2 at the full width."""
    table = CostTable(("layer",), ((1, 2),), ((4.0, 1.0),), 1)
    assert project(capped(table, [DPConv2d(2)], 0.5, [4.0]), 4.0, [[0.0, 0.0]]).cost == 2


def levels_in_the_search(**options: Any) -> list[dict[str, int]]:
    """Return the choice after each step of the search, in which every gate is flipped easily."""
    schedule = PhaseSchedule(0.0, 0.1, 0.6, 0.3)
    result = search(steps=20, method="gates", gate_learning_rate=0.2, schedule=schedule, **options)
    return [dict(record.active_channels) for record in result.history if record.phase == "gates"]


def test_the_cost_moves_the_gates_of_a_whole_search() -> None:
    """Its gradient, not only the factor on the loss, which the gates' common scale takes back out."""
    budget = Budget.from_b(16, input_shape=SHAPE)
    free, pressed = (levels_in_the_search(budget=budget, max_ratio=1.0, complexity_exponent=a) for a in (0.0, 2.0))
    assert free != pressed
    assert sum(sum(levels.values()) for levels in pressed) < sum(sum(levels.values()) for levels in free)


def test_the_penalty_moves_the_gates_of_a_whole_search() -> None:
    method = make_method(network(4, 8), 1e9, penalty=5.0)
    for layer in method.layers:
        layer.gates.requires_grad_(False)  # as in a search, where weights alone are in the optimiser
    with torch.no_grad():
        method.gates[0].copy_(torch.tensor([0.30, -0.20, 0.10, -0.05]))
    before = method.gates[0].clone()
    loss = method.backward("search", 0, batch_for(small_net()))
    assert loss.order > 0
    method.update("search")
    moved = method.gates[0] - before
    assert moved[1] > 0
    assert moved[2] < 0
    assert moved[3] > 0
