"""Swept width and resolution: what a definition may say, and the network that a trial's parameters make."""

from __future__ import annotations

from typing import Any

import pytest

from nas.definition.shapes import shapes_of
from nas.definition.study import StudyDefinition, parse_study
from nas.errors import DefinitionError

SWEPT = {"target": 3e5, "width": [0.5, 1, 1.5], "resolution": {"choice": [6, 8]}}


def parse(space: dict[str, Any], **changes: Any) -> StudyDefinition:
    data = {"name": "s", "data": {"name": "digits"}, "budget": {"scope": "network"}, "latency": None, **changes}
    return parse_study({**data, "space": {"target": 3e5, **space}})


def test_a_list_is_a_choice_and_is_read_back() -> None:
    study = parse(SWEPT)
    assert study.to_dict()["space"]["width"] == {"choice": [0.5, 1, 1.5]}
    assert parse_study(study.to_dict()) == study
    assert set(study.sampled) == {"width", "resolution"}
    assert len(shapes_of(study.space)) == 6
    assert shapes_of(parse({}).space) == [{}]


def test_parameters_shape_the_network() -> None:
    study = parse(SWEPT)  # micro has a width of 16
    model = study.shaped({"width": 1.5, "resolution": 6, "target": 3e5}).model
    assert (model.value("embed_dim"), model.resolution) == (24, 6)
    assert study.shaped({"width": 1}) == study.shaped({}) == study
    assert study.shaped({"width": 0.6}).model.value("embed_dim") == 8  # a multiple of 4
    fixed = parse({"width": 0.5, "resolution": 6})
    assert fixed.sampled == {}
    assert fixed.shaped({}).model.architecture({}).options == {"embed_dim": 8, "resolution": 6}


@pytest.mark.parametrize(
    ("space", "changes", "words"),
    [
        ({"width": [0]}, {}, "space: width must be a positive number, but got 0"),
        ({"width": ["half"]}, {}, "space: width must be a positive number, but got 'half'"),
        ({"width": [0.1]}, {}, "space: width=0.1: embed_dim"),
        ({"resolution": [6.5]}, {}, "space: resolution takes whole numbers of pixels, but got 6.5"),
        ({"resolution": {"uniform": [6, 8]}}, {}, "space: resolution takes whole numbers of pixels"),
        ({"resolution": [2]}, {}, "space: resolution=2: resolution"),
        ({"width": []}, {}, "width"),
        ({"width": [1, 1]}, {}, "choices must differ"),
        ({"width": [0.5, 1]}, {"model": {"timm": "resnet18"}}, "space: width is for networks of this package's family"),
        ({"width": [0.5, 1]}, {"latency": {"table": "a.json"}}, "the table of a file belongs to one shape; give"),
        (
            {"resolution": {"int": [6, 8]}}, {"latency": {"table": "auto"}},
            "space: resolution is a range, but a latency table is measured for each shape; give a list of values",
        ),
    ],
)
def test_an_impossible_shape_is_refused(space: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(space, **changes)
    assert words in str(caught.value)
