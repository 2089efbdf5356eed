"""P8: costs of the tables against fvcore's counts of exported networks."""

from __future__ import annotations

import random

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d
from partialnet.models.partialnet import create
from partialnet.search.budget import Budget
from partialnet.search.cost import CostTable, layer_costs, split_rows
from partialnet.search.levels import set_active_channels
from partialnet.search.operations import macs_by_module
from partialnet.variants import VARIANTS
from tests.partialnet.searchable import SmallNet

NETWORKS = [("micro", (3, 32, 32)), ("t0", (3, 64, 64))]


def set_random_levels(model: nn.Module, table: CostTable, seed: int) -> list[int]:
    draw = random.Random(seed)
    chosen = [draw.randrange(len(levels)) for levels in table.levels]
    set_active_channels(model, table.active_channels(chosen))
    return chosen


@pytest.mark.parametrize(
    ("variant", "shape"),
    [NETWORKS[0], *(pytest.param(*case, marks=pytest.mark.long) for case in (NETWORKS[1], ("t1", (3, 64, 96))))],
)
def test_convolution_counts_equal_those_of_the_exported_network(variant: str, shape: tuple[int, int, int]) -> None:
    model = create(Architecture(f"partialnet_{variant}"), searchable=True)
    table = layer_costs(model, shape)
    chosen = set_random_levels(model, table, 0)
    fixed = to_fixed(model)
    counted = FlopCountAnalysis(fuse(fixed), torch.zeros(1, *shape))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    per_module = counted.by_module()
    rows = split_rows(fixed, shape)
    assert rows == split_rows(model, shape)
    assert [row.layer for row in rows] == list(table.names)
    for row, costs, level in zip(rows, table.costs, chosen, strict=True):
        assert row.macs == costs[level] == per_module[f"{row.layer}.conv"]
        assert isinstance(row.macs, int)
        assert row.layer == f"stages.{row.stage}.blocks.{row.block}.mixer"
    assert table.total(chosen) == sum(row.macs for row in rows)
    assert table.active_channels(chosen) == {row.layer: row.active_channels for row in rows}


@pytest.mark.parametrize(
    ("variant", "shape", "unit"),
    [(*NETWORKS[0], "macs"), (*NETWORKS[0], "params"), pytest.param(*NETWORKS[1], "macs", marks=pytest.mark.long)],
)
def test_network_costs_equal_those_of_the_inference_form(
    variant: str, shape: tuple[int, int, int], unit: str
) -> None:
    options = {"num_classes": 10, "depths": [1, 1, 1, 1]}  # the variant's widths; tracing takes its time
    model = create(Architecture(f"partialnet_{variant}", options), searchable=True)
    table = layer_costs(model, shape, unit, "network")  # type: ignore[arg-type]
    for seed in range(2):
        chosen = set_random_levels(model, table, seed)
        fused = fuse(to_fixed(model))
        weights = sum(p.numel() for p in fused.parameters())
        expected = macs_by_module(fused, shape)[""] if unit == "macs" else weights
        assert table.total(chosen) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("rest", "apart"),
    [
        pytest.param(rest, apart, marks=[pytest.mark.long] * (apart == 1))
        for rest in ("identity", "channel_attention", "self_attention")
        for apart in (5, 1)
    ],
)
def test_every_level_of_every_layer_costs_what_its_export_does(rest: str, apart: int) -> None:
    shape = (3, 16, 16)
    options = {"depths": [1, 1], "merge_strides": [2], "rests": [rest] * 2}
    model = create(Architecture("partialnet_micro", options), searchable=True)
    tables = {unit: layer_costs(model, shape, unit, "network") for unit in ("macs", "params")}
    levels = tables["macs"].levels
    most = max(map(len, levels)) - 1
    for step in {*range(0, most, apart), most}:
        chosen = [min(step, len(row) - 1) for row in levels]
        set_active_channels(model, tables["macs"].active_channels(chosen))
        fused = fuse(to_fixed(model, input_shape=shape))
        weights = {name: sum(p.numel() for p in module.parameters()) for name, module in fused.named_modules()}
        for table, counts in ((tables["macs"], macs_by_module(fused, shape)), (tables["params"], weights)):
            costs = [row[level] for row, level in zip(table.costs, chosen, strict=True)]
            assert costs == [counts[name] for name in table.names]
            assert table.total(chosen) == pytest.approx(counts[""], rel=1e-3)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "micro"])
def test_every_variant_at_full_size(variant: str) -> None:
    shape = VARIANTS[variant].input_size
    model = create(Architecture(f"partialnet_{variant}"), searchable=True)
    tables = {unit: layer_costs(model, shape, unit, "network") for unit in ("macs", "params")}
    convs = layer_costs(model, shape)
    for seed in range(4):
        chosen = set_random_levels(model, convs, seed)
        fixed = to_fixed(model, input_shape=shape)
        fused = fuse(fixed)
        counts = macs_by_module(fused, shape)
        rows = split_rows(fixed, shape)
        for row, costs, level in zip(rows, convs.costs, chosen, strict=True):
            assert row.macs == costs[level] == counts[f"{row.layer}.conv"]
        assert tables["macs"].total(chosen) == pytest.approx(counts[""], rel=1e-3)
        assert tables["params"].total(chosen) == pytest.approx(sum(p.numel() for p in fused.parameters()), rel=1e-3)


def test_self_attention_is_counted_in_full() -> None:
    layer = DPConv2d(32, rest="self_attention")
    table = layer_costs(layer, (32, 6, 5), "macs", "network")
    positions = 30
    for n, cost in zip(table.levels[0], table.costs[0], strict=True):
        left = 32 - n
        attention = 4 * positions * left**2 + 2 * positions**2 * left
        norm = 4 * positions * left if left else 0  # fvcore's layer norm without scale: 4 per element
        assert cost == 9 * positions * n**2 + attention + norm


def test_costs_of_a_network_with_attention_are_not_monotone() -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    table = layer_costs(model, (3, 32, 32), "params", "network")
    last = table.costs[-1]
    assert min(last) not in (last[0], last[-1])
    assert table.minimum < table.total([0] * len(table.names))


def test_b_is_the_uniform_ratio() -> None:
    model = create(Architecture("partialnet_t0"), searchable=True)
    shape = (3, 64, 64)
    quarter = sum(row.macs for row in split_rows(model, shape))
    assert Budget.from_b(4, input_shape=shape).resolve(model) == quarter
    absolute = Budget.from_b(4, input_shape=shape).absolute(model)
    assert absolute == Budget(target=quarter, input_shape=shape)


def test_counting_leaves_the_model_as_it_is() -> None:
    model = SmallNet()
    model.norm.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    layer_costs(model, (3, 8, 8), "macs", "network")
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not model.first._forward_pre_hooks


def test_a_layer_that_is_called_twice_counts_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = DPConv2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)[:, :, ::2, ::2])

    table = layer_costs(Twice(), (8, 4, 4))
    assert table.full == 9 * 64 * (16 + 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either target or b"),
        ({"target": 5.0, "b": 2.0}, "either target or b"),
        ({"target": -5.0}, "target is -5.0, but must be positive"),
        ({"target": float("nan")}, "target is nan"),
        ({"b": 0.5}, "b is 0.5, but must be at least 1"),
        ({"b": 2.0, "scope": "network"}, "give an absolute target instead"),
        ({"target": 5.0, "unit": "flops"}, "unit is 'flops', but must be one of macs, params, latency"),
        ({"target": 5.0, "unit": "latency"}, "unit='latency' needs one"),
        ({"target": 5.0, "input_shape": (3, 0, 8)}, "input_shape is"),
    ],
)
def test_budgets_that_make_no_sense(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        Budget(**{"input_shape": (3, 8, 8), **arguments})  # type: ignore[arg-type]


def test_networks_that_cannot_be_counted() -> None:
    with pytest.raises(ArchitectureError, match="contains no DPConv2d"):
        layer_costs(nn.Conv2d(3, 3, 1), (3, 8, 8))
    with pytest.raises(ArchitectureError, match="contains no partial convolution"):
        split_rows(nn.Conv2d(3, 3, 1), (3, 8, 8))
    with pytest.raises(BudgetError, match=r"cannot process an input of shape \(1, 8, 8\)"):
        layer_costs(SmallNet(), (1, 8, 8))
    unused = SmallNet()
    unused.spare = DPConv2d(8)
    with pytest.raises(ArchitectureError, match="never calls: spare"):
        layer_costs(unused, (3, 8, 8))
