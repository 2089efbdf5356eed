"""Costs of a wider space: every option of a block, absence included, costs what its exported network does."""

from __future__ import annotations

import random

import pytest

from partialnet.architecture import Architecture
from partialnet.errors import BudgetError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.choice import choices_of
from partialnet.models.partialnet import create
from partialnet.search.cost import CostTable, layer_costs
from partialnet.search.operations import macs_by_module

SHAPE = (3, 16, 16)
OPTIONS = {"depths": [2, 2], "merge_strides": [2], "num_classes": 4}


@pytest.mark.parametrize(
    "kinds", [("split", "mlp_ratio", "depth"), ("mlp_ratio", "depth"), ("split", "mlp_ratio"), ("depth",)]
)
def test_every_network_costs_what_its_export_does(kinds: tuple[str, ...]) -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=kinds)
    tables: list[CostTable] = [layer_costs(model, SHAPE, unit, "network") for unit in ("macs", "params")]
    draw = random.Random(0)
    for _ in range(4):
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
