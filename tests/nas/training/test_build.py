from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nas.definition.study import load_study, parse_study
from nas.errors import DefinitionError
from nas.training.build import build_network, build_uniform
from nas.training.feasibility import check_feasible, reference_point
from partialnet.layers.dpconv import DPConv2d
from partialnet.search.cost import split_rows
from tests.nas import tiny
from tests.nas.definition.test_study import ROOT


def test_the_networks_of_a_study() -> None:
    definition = tiny.tiny()
    searchable = build_network(definition, 7)
    assert sum(isinstance(module, DPConv2d) for module in searchable.modules()) == 4
    images = torch.zeros(2, *definition.data.input_shape)
    assert searchable(images).shape == (2, 7)
    for ratio in (1.0, 0.5, 0.25):
        uniform = build_uniform(definition, 7, ratio)
        assert uniform(images).shape == (2, 7)
        assert {row.active_channels / row.channels for row in split_rows(uniform, (1, 8, 8))} == {ratio}


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_that_is_shipped_is_feasible(path: Any) -> None:
    definition = load_study(path)
    if definition.budget.unit == "latency":  # its targets are those of a device; the network is the same anywhere
        counted = {"budget": {}, "objectives": ["top1", "macs"], "space": {"target": 4}, "sweep": {}}
        definition = parse_study({**definition.to_dict(), **counted})
    assert any(note.startswith("reachable targets") for note in check_feasible(definition))
    assert reference_point(definition)["macs"] > 0


def test_the_reference_point_is_worse_than_any_network() -> None:
    definition = tiny.tiny()
    reference = reference_point(definition)
    assert reference["top1"] == reference["top5"] == 0.0
    assert reference["loss"] == pytest.approx(math.log(10))
    assert reference["conv_macs"] == sum(row.macs for row in split_rows(build_uniform(definition, 10, 1.0), (1, 8, 8)))
    assert {"params", "params_inference", "macs", "activations"} < set(reference)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"name": "micro", "embed_dim": 17}}, "tiny: model: embed_dim is 17"),
        ({"model": {"name": "t0"}}, "an image of 8x8 pixels leaves no map in stages.2, .* use smaller ones"),
        ({"baselines": ["1/3"]}, r"tiny: baselines: a ratio of 1/3 is 2\.667 of the 8 channels of stages\.0"),
        ({"space": {"target": 1000}}, "target 1000 in scope 'conv' cannot be reached by .*; reachable: b from 1 to"),
        (
            {"space": {"target": 5}, "budget": {"scope": "network"}},
            r"target 5 in scope 'network' cannot be reached .*reachable: costs from [\d,]+ to [\d,]+ macs",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        check_feasible(tiny.tiny(**changes))


def test_what_is_odd_is_told() -> None:
    notes = check_feasible(tiny.tiny(model={"name": "micro", "patch_size": 2}, space={"target": {"uniform": [2, 500]}}))
    assert any("the maps of the last stage are 1x1" in note for note in notes)
    assert any("a part of the targets 2 to 500 cannot be reached" in note for note in notes)


def test_an_image_folder_is_judged_before_its_classes_are_known() -> None:
    definition = parse_study({"name": "x", "data": {"name": "image_folder", "folder": "pets", "image_size": 32}})
    assert "costs are shown for 1000 classes" in check_feasible(definition)[0]
    assert reference_point(definition, 3)["loss"] == pytest.approx(math.log(3))


def test_a_target_is_judged_by_the_classes_that_there_are() -> None:
    data = {"name": "image_folder", "folder": "pets", "image_size": 32}
    # At 1000 classes the classifier alone costs 128,000 multiply-adds more than at 3.
    space = {"target": {"uniform": [3.39e6, 3.42e6]}}
    definition = parse_study({"name": "x", "data": data, "budget": {"scope": "network"}, "space": space})
    with pytest.raises(DefinitionError, match="cannot be reached"):
        check_feasible(definition)
    [note] = check_feasible(definition, 3)
    assert note.startswith("reachable targets in scope network: costs from 3,377,448 to")


def test_without_search_trials_the_target_does_not_matter() -> None:
    definition = tiny.tiny(space={"target": 1000}, sweep={"trials": 0})
    assert check_feasible(definition) == []
