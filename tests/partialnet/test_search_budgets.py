"""The budget holds, or says why not, in every method, unit and scope; and its cost is that of the exported network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from partialnet.architecture import Architecture
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.models.partialnet import create
from partialnet.retrofit import convert_to_patconv
from partialnet.search.budget import Budget, budget_costs
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.latency_parts import LayerKey
from partialnet.search.latency_rows import latency_keys
from partialnet.search.latency_table import LatencyTable
from partialnet.search.learn_split import learn_split
from partialnet.search.operations import macs_by_module
from partialnet.search.result import SplitResult
from partialnet.search.supernet_options import SupernetOptions
from tests.partialnet.cost_tables import latency_table
from tests.partialnet.search_runs import METHODS, SCHEDULE, SHAPE, search, small_net
from tests.samples import sampled

Shape = tuple[int, int, int]


def time(key: LayerKey) -> float:
    """As measured ones: hardly less below a sixteenth of the width, and not monotone there."""
    ratio = key.active_channels / key.channels
    return 0.2 + ratio**1.2 * key.channels / 16 + 0.01 * (ratio < 0.2) * key.height


def micro() -> nn.Module:
    torch.manual_seed(0)
    options = {"num_classes": 4, "patch_size": 1, "merge_strides": [2, 1, 1], "drop_path_rate": 0.05}
    return create(Architecture("partialnet_micro", options), searchable=True)


def budget_of(model: nn.Module, shape: Shape, unit: Any, scope: Any, share: float) -> Budget:
    """Return the budget at a share of the way from the lowest to the highest cost."""
    table = latency_table(model, shape, time, constant=1.5) if unit == "latency" else None
    costs = layer_costs(model, shape, unit, scope, table)
    return Budget(unit, scope, costs.minimum + share * (costs.maximum - costs.minimum), shape, table)


def counted_cost(fixed: nn.Module, budget: Budget) -> float:
    """Count the exported network, with nothing known of how it came about."""
    layers = {name: module for name, module in fixed.named_modules() if isinstance(module, PartialConv2d)}
    if budget.unit == "latency":
        assert isinstance(budget.table, LatencyTable)
        keys = latency_keys(fixed, budget.input_shape)
        constant = budget.table.constant_ms if budget.scope == "network" else 0.0
        return constant + sum(budget.table.time(key, "") for (calls,) in keys.values() for key in calls)
    if budget.unit == "params":
        return float(
            sum(p.numel() for p in fuse(fixed).parameters())
            if budget.scope == "network"
            else sum(layer.conv.weight.numel() for layer in layers.values())
        )
    if budget.scope == "network":
        return macs_by_module(fuse(fixed), budget.input_shape)[""]
    by_module = macs_by_module(fixed.eval(), budget.input_shape)
    return sum(by_module[f"{name}.conv"] for name in layers)


def check(model: nn.Module, result: SplitResult, budget: Budget) -> None:
    table = budget_costs(model, budget)
    levels = [row.index(n) for row, n in zip(table.levels, result.active_channels.values(), strict=True)]
    assert result.cost == pytest.approx(table.total(levels), rel=1e-9)
    assert result.cost == pytest.approx(counted_cost(result.fixed, budget), rel=1e-9)
    met = abs(result.cost - result.target) <= 0.02 * result.target * (1 + 1e-9)
    assert result.within_budget == met == (result.note is None)
    below, above = neighbours(table, result.target)
    if not met:
        assert result.cost == pytest.approx(below if below is not None else above)
        for cost in (below, above):
            assert "none" in str(result.note) if cost is None else written(cost) in str(result.note)
    x = torch.randn(3, *budget.input_shape)
    with torch.no_grad():
        searched, fixed = model.eval()(x), result.fixed.eval()(x)
    assert torch.allclose(searched, fixed, atol=1e-5)
    assert torch.equal(searched.argmax(1), fixed.argmax(1))


def written(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:g}"


def neighbours(table: CostTable, target: float) -> tuple[float | None, float | None]:
    """Return the nearest costs below and above, by trying all choices."""
    costs = torch.tensor([table.constant], dtype=torch.float64)
    for row in table.costs:
        costs = (costs[:, None] + torch.tensor(row, dtype=torch.float64)).flatten().unique()
    below, above = costs[costs <= target], costs[costs >= target]
    return float(below.max()) if len(below) else None, float(above.min()) if len(above) else None


@pytest.mark.parametrize(
    ("method", "unit", "scope"), sampled(METHODS, ["macs", "params", "latency"], ["conv", "network"])
)
def test_the_budget_holds_or_says_why_not(method: str, unit: str, scope: str) -> None:
    for share in (0.1, 0.45):
        model = small_net(width=8)
        budget = budget_of(model, SHAPE, unit, scope, share)
        check(model, search(model, budget, method=method, steps=4), budget)


@pytest.mark.parametrize(
    ("method", "unit", "scope"),
    sampled(METHODS, ["macs", "params", "latency"], ["network", "conv"]),
)
def test_the_budget_holds_in_a_partialnet(method: str, unit: str, scope: str) -> None:
    model = micro()
    budget = budget_of(model, (3, 8, 8), unit, scope, 0.2)
    result = few_steps(model, method, budget)
    assert result.within_budget
    check(model, result, budget)


def few_steps(model: nn.Module, method: str, budget: Budget) -> SplitResult:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(4, *budget.input_shape, generator=generator), torch.randint(4, (4,), generator=generator))
        for _ in range(2)
    ]
    options: dict[str, Any] = {"schedule": SCHEDULE}
    if method == "supernet":
        options = {"validation": batches, "supernet": SupernetOptions(samples=4, best=2)}
    return learn_split(model, batches, F.cross_entropy, budget, method=method, steps=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "unit", "b"),
    sampled(["gates", "fractional"], ["macs", "params"], [1.0, 1.3, 2, 2.8, 4, 5.5, 8, 100]),
)
def test_every_complexity_target_is_met_or_flagged(method: str, unit: Any, b: float) -> None:
    model, budget = small_net(), Budget.from_b(b, unit=unit, input_shape=SHAPE)
    check(model, search(model, budget, steps=3, method=method), budget)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_below_reach_settles_on_the_lowest_cost(method: str) -> None:
    model = small_net(width=8)
    budget = Budget(scope="network", target=10.0, input_shape=SHAPE)
    lowest = budget_costs(model, budget).minimum
    result = search(model, budget, steps=4, method=method)
    assert (result.within_budget, result.cost) == (False, lowest)
    assert f"the nearest below is none, the nearest above {lowest:,.0f}" in str(result.note)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_above_reach_settles_on_the_highest_cost(method: str) -> None:
    model = small_net(width=8)
    highest = layer_costs(model, SHAPE).full
    result = search(model, Budget(target=2 * highest, input_shape=SHAPE), steps=4, method=method)
    assert (result.within_budget, result.cost) == (False, highest)
    assert f"the nearest below is {highest:,.0f}, the nearest above none" in str(result.note)
    assert set(result.active_channels.values()) == {8}


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_with_one_level_below_the_cap_is_left_at_it(method: str) -> None:
    """Heads or ``min_channels`` may leave a layer a single level up to the largest ratio."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        DPConv2d(8, rest="self_attention", num_heads=4),
        DPConv2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    assert dpconv_layers(model)["1"].levels == (4, 8)
    budget = Budget(target=9 * 36 * (16 + 4), input_shape=SHAPE)
    result = search(model, budget, method=method, steps=10)
    assert result.active_channels == {"1": 4, "2": 2}
    check(model, result, budget)


@pytest.mark.parametrize("method", ["gates", *(pytest.param(name, marks=pytest.mark.long) for name in METHODS[1:])])
def test_a_converted_resnet_is_searched(method: str) -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        """Two stages of 16 and 32 channels."""

        def __init__(self) -> None:
            super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=4, width_per_group=64)
            self.layer3 = self.layer4 = nn.Identity()
            self.fc = nn.Linear(128, 4)

    torch.manual_seed(0)
    model, report = convert_to_patconv(Narrow(), searchable=True)
    assert len(report.replaced) == 3
    budget = budget_of(model, (3, 32, 32), "macs", "network", 0.1)
    result = few_steps(model, method, budget)
    check(model, result, budget)
    assert set(result.active_channels) == set(report.active_channels)
