"""The published shape beside a learned network: of equal cost, buildable, and with its reason if there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nas.definition.study import COSTS
from nas.finalist import Finalist, Role, with_finalist, without_finalist
from nas.probes.flops import count_parameters, probe_flops
from nas.sweep.final_plan import plan_final
from nas.sweep.scaled_networks import ScaledNetworks
from nas.training.build import build_finalist, reshaped, split_layers
from partialnet.fuse import fuse
from partialnet.networks import architecture_of
from tests.nas import tiny
from tests.nas.sweep.test_final_plan import found, scored

SCALED = {"candidates": 1, "against": ["scaled"]}
SPLIT = (8, 16, 4, 32, 4, 64)


MODEL = {"name": "micro", "depths": [1, 2, 2, 1], "patch_size": 4, "merge_strides": [1, 2, 1], "feature_dim": 32}


def plan(split: tuple[int, ...] = SPLIT, measure: Any = None, **changes: Any) -> tuple[Finalist, ...]:
    study = tiny.tiny(final=SCALED, model=MODEL, **changes)
    return plan_final(study, [found(3, scored(study, split, 0.5))], measure=measure).networks


@pytest.mark.parametrize("unit", [pytest.param("macs"), pytest.param("params", marks=pytest.mark.long)])
def test_the_scaled_shape_costs_as_much_as_the_learned_network(unit: str) -> None:
    learned, scaled = plan(budget={"unit": unit})
    assert (scaled.role, scaled.of, scaled.position, scaled.target) == (Role.SCALED, 3, None, learned.target)
    study = tiny.tiny(budget={"unit": unit}, model=MODEL)
    network = build_finalist(study, 10, scaled).eval()
    counted = {m.metric: m.value for m in probe_flops(network, study.data.input_shape)}
    assert counted[COSTS[unit]] == pytest.approx(learned.target, rel=0.02)
    options = architecture_of(network).options
    assert options["embed_dim"] == scaled.width * 16
    assert sum(options["depths"]) == scaled.depth * 6
    assert scaled.ratio == pytest.approx(0.25, abs=0.09)  # it only closes what shapes leave open
    stored = with_finalist({"batch_size": 8}, scaled)
    assert without_finalist(stored) == ({"batch_size": 8}, scaled)


def test_where_no_shape_has_the_cost_a_ratio_near_the_published_one_closes_the_rest() -> None:
    study, target = tiny.tiny(budget={"unit": "params"}), 44_300.0  # so narrow a network has few shapes
    found = ScaledNetworks(study, 10).of_cost(3, None, target)

    def off(split: tuple[int, ...]) -> float:
        network = build_finalist(study, 10, replace(found, active_channels=split)).eval()
        return abs(count_parameters(fuse(network)) / target - 1)

    assert (found.width, found.depth) == (1.0, 1.0)
    assert found.ratio != 0.25
    assert off((2, 4, 8, 16)) > 0.02 >= off(found.active_channels)


def test_a_study_of_another_family_has_no_split_in_its_scaled_shape() -> None:
    model = {"timm": "resnet18", "options": {"channels": [8, 16, 16, 16], "layers": [1, 1, 1, 1]}}
    study = tiny.tiny(final=SCALED, model=model, data={"name": "digits", "image_size": 32})
    learned, scaled = plan_final(study, [found(0, scored(study, (2, 2, 2, 2), 0.5))]).networks
    network = build_finalist(study, 10, scaled)
    assert scaled.active_channels == tuple(
        layer.channels for layer in network.modules() if hasattr(layer, "active_channels")
    )
    assert scaled.width < 1
    assert learned.shape_options == {}


def test_bounds_of_the_search_do_not_bind_other_shapes() -> None:
    bounded = tiny.tiny(
        model={"timm": "resnet50", "convert": ["layer1.*"], "max_ratio": {"*": "1/2"}},
        data={"name": "digits", "image_size": 32, "train_limit": 100},
    )
    layers = split_layers(reshaped(bounded, {"channels": [54, 108, 216, 432]}), 10)  # 54 has the levels 27 and 54
    assert [layer.channels for layer in layers.values()] == [54, 54, 54]
