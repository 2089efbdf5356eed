"""What a search aims at is what the product reports: cost tables against the probe's figures."""

from __future__ import annotations

import pytest

from nas.probes.flops import probe_flops
from partialnet.architecture import Architecture
from partialnet.export import to_fixed
from partialnet.models.partialnet import create
from partialnet.search.cost import layer_costs, split_rows
from partialnet.search.levels import set_active_channels, uniform_active_channels


def test_the_cost_tables_agree_with_the_probe() -> None:
    shape = (1, 8, 8)
    options = {"in_chans": 1, "num_classes": 10, "patch_size": 1, "merge_strides": [2, 1, 1]}
    model = create(Architecture("partialnet_micro", options), searchable=True)
    tables = {
        "macs": layer_costs(model, shape, "macs", "network"),
        "params_inference": layer_costs(model, shape, "params", "network"),
        "conv_macs": layer_costs(model, shape, "macs", "conv"),
    }
    for ratio in (1 / 2, 1 / 8):
        set_active_channels(model, uniform_active_channels(model, ratio))
        fixed = to_fixed(model)
        measured = {m.metric: m.value for m in probe_flops(fixed, shape)}
        for metric, table in tables.items():
            chosen = [
                levels.index(row.active_channels)
                for levels, row in zip(table.levels, split_rows(fixed, shape), strict=True)
            ]
            tolerance = 0 if metric == "conv_macs" else 1e-3
            assert table.total(chosen) == pytest.approx(measured[metric], rel=tolerance, abs=0), metric
