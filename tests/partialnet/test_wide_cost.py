"""Costs of a wider space: every option of a block, absence included, costs what its exported network does."""

from __future__ import annotations

import random
import re

import pytest
from torch import nn

from partialnet.architecture import Architecture
from partialnet.errors import BudgetError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.choice import choices_of
from partialnet.models.partialnet import create
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.latency_parts import Constant, MlpKey, RowKey, ThreePartKey, Timing
from partialnet.search.latency_rows import latency_rows, predicted_latency
from partialnet.search.latency_table import LatencyTable
from partialnet.search.operations import macs_by_module
from partialnet.search.projection import project
from tests.partialnet.cost_tables import CIRCUMSTANCES

SHAPE = (3, 16, 16)
OPTIONS = {"depths": [2, 2], "merge_strides": [2], "num_classes": 4}


@pytest.mark.parametrize(
    "kinds",
    [
        ("split", "kernel", "mlp_ratio", "depth"), ("mlp_ratio", "depth"),
        pytest.param(("split", "kernel"), marks=pytest.mark.long),
        pytest.param(("split", "mlp_ratio", "depth"), marks=pytest.mark.long),
        pytest.param(("depth",), marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_every_network_costs_what_its_export_does(kinds: tuple[str, ...]) -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=kinds)
    tables: list[CostTable] = [layer_costs(model, SHAPE, unit, "network") for unit in ("macs", "params")]
    draw = random.Random(0)
    for _ in range(2):
        chosen = [draw.randrange(len(row)) if draw.random() < 0.7 else 0 for row in tables[0].costs]
        space = tables[0].space
        settings = space.settings(chosen)
        assert space.chosen(settings) == tuple(chosen)
        for name, choice in choices_of(model).items():
            if name in settings:
                choice.choose(settings[name])
        fixed = to_fixed(model, input_shape=SHAPE)
        fused = fuse(fixed)
        assert tables[0].total(chosen) == pytest.approx(macs_by_module(fused, SHAPE)[""], rel=1e-3)
        assert tables[1].total(chosen) == sum(p.numel() for p in fused.parameters())
        if "split" in kinds:
            assert space.active_channels(chosen) == dict(fixed.architecture().active_channels)


def test_a_block_is_one_unit_and_other_choices_are_units_of_their_own() -> None:
    table = layer_costs(create(Architecture("partialnet_micro", OPTIONS), searchable=("split", "mlp_ratio", "depth")),
                        SHAPE, "macs", "network")  # fmt: skip
    assert table.names == (
        "stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0.mixer", "stages.1.blocks.0.mlp",
        "stages.1.blocks.1",
    )  # fmt: skip
    assert table.space.choices[0] == tuple(f"stages.0.blocks.0{part}" for part in ("", ".mixer", ".mlp"))
    assert [row[0] for row in table.costs if len(row) > 7] == [0, 0, 0]
    assert len(table.costs[0]) == 1 + 5 * 5


@pytest.mark.parametrize(("unit", "scope", "words"), [
    ("macs", "conv", "scope 'conv' counts partial convolutions only, but depth, mlp_ratio is searched"),
])  # fmt: skip
def test_a_scope_that_does_not_cover_the_choices_is_refused(unit: str, scope: str, words: str) -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=("mlp_ratio", "depth"))
    with pytest.raises(BudgetError, match=words):
        layer_costs(model, SHAPE, unit, scope)  # type: ignore[arg-type]


def milliseconds(key: RowKey) -> float:
    """A time that differs from row to row and is not linear in anything."""
    if isinstance(key, MlpKey):
        return 0.3 + key.channels * key.hidden_channels * key.height**2 / 1e5
    attended = key.attended_channels / 50 if isinstance(key, ThreePartKey) else 1.0
    return 0.1 + attended + (key.kernel_size * key.active_channels) ** 1.5 * key.height / 1e3


def table_of(model: nn.Module, *, mlps: bool = True) -> LatencyTable:
    rows = latency_rows(model, SHAPE, mlps=mlps)
    keys = {key for found in rows.values() for calls in found.calls for key in calls}
    return LatencyTable(
        CIRCUMSTANCES, {key: Timing(milliseconds(key), 30, 0.0) for key in keys}, Constant("net", 2.0, 16, 0.1)
    )


@pytest.mark.parametrize(
    "kinds",
    [
        ("split", "attention", "kernel", "mlp_ratio", "depth"),
        *(
            pytest.param(kinds, marks=pytest.mark.long)
            for kinds in (("mlp_ratio",), ("depth",), ("split", "kernel"), ("split", "attention"))
        ),
    ],
)
def test_every_network_takes_what_the_table_predicts(kinds: tuple[str, ...]) -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=kinds)
    table = table_of(model, mlps=bool({"mlp_ratio", "depth"} & set(kinds)))
    assert LatencyTable.from_dict(table.to_dict()) == table
    assert table.to_dict()["schema"] == (3 if "attention" in kinds else 2 if table.knows_mlps else 1)
    costs = layer_costs(model, SHAPE, "latency", "network", table)
    draw = random.Random(0)
    for _ in range(2):
        chosen = [draw.randrange(len(row)) if draw.random() < 0.7 else 0 for row in costs.costs]
        settings = costs.space.settings(chosen)
        for name, choice in choices_of(model).items():
            if name in settings:
                choice.choose(settings[name])
        fixed = to_fixed(model, input_shape=SHAPE)
        assert costs.total(chosen) == pytest.approx(predicted_latency(fixed, SHAPE, table))
        target = costs.total(chosen)
        found = project(costs, target, [[0.0] * len(row) for row in costs.costs], tolerance=1e-9)
        assert found.within_budget  # at least the network itself
        assert found.cost == pytest.approx(target)
    for unit, names in enumerate(costs.space.names):
        if costs.space.droppable(unit):
            assert costs.cost(unit, [0] * len(costs.space.choices[unit])) == 0, names


def test_a_hidden_width_between_two_rows_is_interpolated() -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=("split", "mlp_ratio"))
    table = table_of(model)
    key = next(key for key in table.rows if isinstance(key, MlpKey))
    widths = sorted(other.level for other in table.rows if other.shape == key.shape)
    times = [table.time(MlpKey(key.height, key.width, key.channels, width, key.form)) for width in widths[:2]]
    between = MlpKey(key.height, key.width, key.channels, sum(widths[:2]) // 2, key.form)
    assert table.estimate(between) == pytest.approx(sum(times) / 2, rel=0.05)


def test_a_table_of_splits_alone_lacks_the_rows_of_mlps() -> None:
    split = create(Architecture("partialnet_micro", OPTIONS), searchable=True)
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=("split", "depth"))
    words = re.escape("stages.0.blocks.0.mlp: the latency table has no row for an MLP of 16 channels on a 8x8 map")
    with pytest.raises(BudgetError, match=words):
        layer_costs(model, SHAPE, "latency", "network", table_of(split, mlps=False))
