"""Whole searches: budget, determinism, phases, what is left behind, bad input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError, BudgetError, DataError, TrainingDiverged
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.models.partialnet import PartialNet, create
from partialnet.search.budget import Budget
from partialnet.search.cost import budget_costs, layer_costs
from partialnet.search.gates import GatesMethod
from partialnet.search.latency_table import LayerKey
from partialnet.search.learn_split import learn_split
from partialnet.search.levels import set_active_channels
from partialnet.search.phases import FreshStatistics, PhaseSchedule
from partialnet.search.projection import project
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.train.recipe import Recipe
from tests.partialnet.cost_tables import latency_table
from tests.partialnet.searchable import SmallNet

SHAPE = (3, 6, 6)


def random_batches(count: int = 3, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, *SHAPE, generator=generator), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def search(model: torch.nn.Module | None = None, budget: Budget | None = None, **options: Any) -> SplitResult:
    return learn_split(
        small_net() if model is None else model,
        options.pop("batches", random_batches()),
        options.pop("loss_fn", F.cross_entropy),
        budget or Budget.from_b(2, input_shape=SHAPE),
        **{"steps": 20, **options},
    )


def small_net(seed: int = 0) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet()


def test_phases_follow_one_another_and_the_budget_holds() -> None:
    records: list[SearchProgress] = []
    model = small_net()
    result = search(model, callback=records.append)
    assert [r.step for r in records] == list(range(1, 21))
    phases = [r.phase for r in records]
    assert phases == ["warmup"] * 2 + ["uniform"] * 6 + ["gates"] * 6 + ["frozen"] * 6
    assert all(r.model is model for r in records)
    assert [(r.step, r.loss) for r in records] == [(r.step, r.loss) for r in result.history]
    assert all(r.target == result.target for r in records)
    frozen = [r for r in records if r.phase == "frozen"]
    assert all(r.active_channels == result.active_channels and r.cost == result.cost for r in frozen)
    assert result.within_budget
    assert result.note is None
    assert abs(result.cost - result.target) <= 0.02 * result.target
    assert {n: layer.active_channels for n, layer in dpconv_layers(model).items()} == result.active_channels
    assert [m.active_channels for m in (result.fixed.first, result.fixed.second)] == list(
        result.active_channels.values()
    )


def test_the_same_seed_gives_the_same_search() -> None:
    first, second, other = search(), search(), search(seed=1)
    assert first.history == second.history
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.fixed.state_dict().values(), second.fixed.state_dict().values(), strict=True)
    )
    assert first.history != other.history


def test_a_search_leaves_nothing_behind() -> None:
    model = small_net()
    model.norm.momentum = 0.05
    state = torch.random.get_rng_state()
    search(model)
    assert torch.equal(state, torch.random.get_rng_state())
    for layer in dpconv_layers(model).values():
        assert not layer.probing
        assert layer._level is None
        assert layer.gates.requires_grad
        assert layer.gates.grad is None
    assert model.norm.momentum == 0.05


def test_two_searches_at_once_do_not_interfere() -> None:
    alone = search(small_net())
    inner: list[SplitResult] = []

    def nested(progress: SearchProgress) -> None:
        if progress.step in (5, 12):
            inner.append(search(small_net(1), steps=10))

    nesting = search(small_net(), callback=nested)
    assert nesting.history == alone.history
    assert inner[0].history == inner[1].history


@pytest.mark.parametrize("b", [1.3, 2, 2.8, 4, 5.5, 8])
@pytest.mark.parametrize("unit", ["macs", "params"])
def test_every_target_is_met_or_flagged(b: float, unit: str) -> None:
    budget = Budget.from_b(b, unit=unit, input_shape=SHAPE)  # type: ignore[arg-type]
    result = search(budget=budget, steps=10)
    met = abs(result.cost - result.target) <= 0.02 * result.target
    assert result.within_budget == met == (result.note is None)
    assert result.cost <= 1.02 * result.target
    if not met:
        assert "nearest below" in str(result.note)
    table = layer_costs(small_net(), SHAPE, unit, "conv")  # type: ignore[arg-type]
    levels = [row.index(n) for row, n in zip(table.levels, result.active_channels.values(), strict=True)]
    assert table.total(levels) == result.cost


def test_a_latency_table_is_a_budget() -> None:
    def time(key: LayerKey) -> float:
        return 1.0 + key.active_channels / 16 + 0.5 * (key.active_channels == 1)

    table = latency_table(small_net(), SHAPE, time, constant=2.0)
    budget = Budget(unit="latency", scope="network", target=5.0, input_shape=SHAPE, table=table)
    result = search(budget=budget)
    assert result.within_budget
    assert result.cost == pytest.approx(5.0, rel=0.02)


def test_a_network_budget_below_reach_settles_on_the_lowest_cost() -> None:
    model = small_net()
    budget = Budget(scope="network", target=10.0, input_shape=SHAPE)
    lowest = budget_costs(model, budget).minimum
    result = search(model, budget, steps=10)
    assert (result.within_budget, result.cost) == (False, lowest)
    assert f"the nearest below is none, the nearest above {lowest:,.0f}" in str(result.note)


def make_method(model: SmallNet, target: float, exponent: float = 1.0, penalty: float = 0.9) -> GatesMethod:
    table = layer_costs(model, SHAPE)
    return GatesMethod(
        [dpconv_layers(model)[name] for name in table.names],
        table,
        target,
        complexity_exponent=exponent,
        penalty=penalty,
        learning_rate=0.1,
        generator=torch.Generator().manual_seed(0),
    )


def test_the_objective_is_that_of_equation_nine() -> None:
    model = small_net()
    set_active_channels(model, {"first": 8, "second": 4})
    cost = layer_costs(model, SHAPE).total([3, 2])
    task = torch.tensor(2.0)
    over = make_method(model, cost / 3, exponent=0.5).objective(task)
    assert float(over.total.detach()) == pytest.approx(2 * math.sqrt(3))
    assert over.complexity == pytest.approx(math.sqrt(3))
    under = make_method(model, cost * 3, exponent=0.5).objective(task)
    assert (float(under.total.detach()), under.complexity) == (2, 1)
    with torch.no_grad():
        model.first.gates.copy_(torch.tensor([0.3, -0.2, 0.1, 0.1]))
    assert float(make_method(model, 1e9, penalty=0.5).objective(task).total.detach()) == pytest.approx(2 + 0.5 * 0.4)


def test_the_gradient_of_the_cost_is_the_difference_of_the_table() -> None:
    model = small_net()
    set_active_channels(model, {"first": 4, "second": 16})
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


@pytest.mark.parametrize("wanted", [(1, 8), (8, 1)])
def test_gates_follow_a_task_that_says_what_it_wants(wanted: tuple[int, int]) -> None:
    """The teacher, around the same pointwise layers, convolves all in one place and next to nothing in the other."""
    torch.manual_seed(0)
    between = [torch.nn.Conv2d(8, 8, 1), torch.nn.GELU(), torch.nn.Conv2d(8, 8, 1), torch.nn.GELU()]
    teacher, student = (torch.nn.Sequential(DPConv2d(8), *between, DPConv2d(8)) for _ in range(2))
    teacher.requires_grad_(False)
    set_active_channels(teacher, {"0": wanted[0], "5": wanted[1]})
    with torch.no_grad():
        for layer in (teacher[0], teacher[5], between[0], between[2]):
            layer.weight.mul_(3) if layer in between else layer.conv.weight.mul_(3)
    inputs = [torch.randn(16, 8, 6, 6) for _ in range(8)]
    batches = [(x, teacher(x)) for x in inputs]
    budget = Budget(target=9 * 36 * 65, input_shape=(8, 6, 6))
    recipe = Recipe(learning_rate=1e-2, weight_decay=0.0)
    result = learn_split(
        student, batches, F.mse_loss, budget, steps=200, recipe=recipe, gate_learning_rate=0.02, initial_ratio=0.5
    )
    assert tuple(result.active_channels.values()) == wanted


def test_statistics_belong_to_the_final_network() -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 4, 4) * 100 + 50)
    batches = [torch.randn(8, 3, 4, 4) + i for i in range(3)]
    fresh = FreshStatistics([norm])
    for batch in batches:
        fresh.before_step()
        norm(batch)
    fresh.restore()
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-5)
    assert norm.momentum == 0.1


def test_gates_are_neither_decayed_nor_moved_outside_their_phase() -> None:
    model = small_net()
    gates: list[list[float]] = []

    def remember(progress: SearchProgress) -> None:
        if progress.phase in ("warmup", "uniform"):
            gates.append(model.first.gates.tolist())

    search(model, callback=remember, recipe=Recipe(weight_decay=0.9, learning_rate=0.1))
    assert all(row == gates[0] for row in gates)


def test_the_uniform_phase_trains_every_level_and_reports_the_decision() -> None:
    model = small_net()
    decided = set()

    def remember(progress: SearchProgress) -> None:
        if progress.phase == "uniform":
            decided.add(tuple(progress.active_channels.values()))
            assert model.first.active_channels == progress.active_channels["first"]

    schedule = PhaseSchedule(warmup=0.0, uniform=0.7, gates=0.0, frozen=0.3)
    search(model, steps=60, callback=remember, schedule=schedule)
    assert len(decided) == 1
    assert bool((model.first.rest.norm.num_batches_tracked[:-1] > 0).any())


def test_a_step_without_gates_phase_still_meets_the_budget() -> None:
    result = search(steps=1)
    assert [record.phase for record in result.history] == ["frozen"]
    assert result.within_budget


def test_bfloat16_and_sgd_train() -> None:
    result = search(recipe=Recipe(optimizer="sgd", learning_rate=0.01, precision="bfloat16"))
    assert all(math.isfinite(record.loss) for record in result.history)


@pytest.mark.parametrize("bad_step", [0, 9])
def test_a_diverged_training_says_where(bad_step: int) -> None:
    model = small_net()
    calls = iter(range(100))

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, targets)
        return loss * float("nan") if next(calls) == bad_step else loss

    with pytest.raises(TrainingDiverged) as caught:
        search(model, loss_fn=loss_fn)
    assert caught.value.step == bad_step
    assert model.first._level is None
    assert not model.first.probing


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"method": "magic"}, "method is 'magic', but must be one of gates"),
        ({"penalty": -1.0}, "penalty is -1.0"),
        ({"complexity_exponent": float("inf")}, "complexity_exponent is inf"),
        ({"gate_learning_rate": 0.0}, "gate_learning_rate is 0.0, but must be positive"),
        ({"initial_ratio": 2.0}, r"initial_ratio is 2\.0, but must be in \(0, 1\]"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        search(**options)


def test_phases_that_leave_too_little() -> None:
    with pytest.raises(BudgetError, match=r"frozen is 0\.2, but must be at least 0\.3"):
        PhaseSchedule(0.1, 0.3, 0.4, 0.2)
    with pytest.raises(BudgetError, match="must add up to 1"):
        PhaseSchedule(0.1, 0.3, 0.3, 0.4)
    with pytest.raises(BudgetError, match="must not be negative"):
        PhaseSchedule(-0.1, 0.4, 0.3, 0.4)


def test_batches_that_run_out() -> None:
    def generator() -> Iterator[tuple[Tensor, Tensor]]:
        yield from random_batches()

    with pytest.raises(DataError, match="batches ended after 3 and cannot be iterated again"):
        search(batches=generator())
    with pytest.raises(DataError, match="batches yields nothing"):
        search(batches=[])


def test_nothing_to_learn() -> None:
    with pytest.raises(ArchitectureError, match="contains no DPConv2d"):
        search(torch.nn.Conv2d(3, 3, 1))


def test_digits_on_the_micro_network() -> None:
    digits = load_digits()
    images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16 - 0.3054) / 0.3761
    labels = torch.tensor(digits.target)
    batches = [(images[i : i + 32], labels[i : i + 32]) for i in range(0, 1536, 32)]
    options = {"in_chans": 1, "num_classes": 10, "patch_size": 1, "merge_strides": [2, 1, 1], "drop_path_rate": 0.05}
    torch.manual_seed(0)
    model = create(Architecture("partialnet_micro", options), searchable=True)
    budget = Budget.from_b(4, input_shape=(1, 8, 8))
    result = learn_split(model, batches, F.cross_entropy, budget, steps=64, recipe=Recipe(learning_rate=4e-3))
    fixed = result.fixed
    assert isinstance(fixed, PartialNet)
    assert fixed.architecture().active_channels == result.active_channels
    assert result.within_budget
    fixed.eval()
    with torch.no_grad():
        right = (fixed(images[1536:]).argmax(1) == labels[1536:]).float().mean()
    assert float(right) > 0.25


def test_the_projection_is_what_the_gates_ask_for_where_the_budget_allows() -> None:
    model = small_net()
    method = make_method(model, 1.0)
    method.settle([2, 3])
    method.target = method.table.total([2, 3])
    assert method.project().levels == (2, 3)
    assert project(method.table, method.target, [[1.0] * 5] * 2).within_budget
