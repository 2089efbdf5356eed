"""``space: {search: [...]}``: what a study searches beside splits, in words, and which combinations are possible."""

from __future__ import annotations

from typing import Any

import pytest

from nas.definition.study import parse_study
from nas.errors import DefinitionError

WIDE = {"budget": {"unit": "macs", "scope": "network"}, "space": {"target": 2e6}}


def parse(search: Any, **changes: Any) -> Any:
    data = {"name": "s", "data": {"name": "digits"}, **WIDE, **changes}
    return parse_study({**data, "space": {**data["space"], "search": search}})


def test_a_study_of_splits_is_written_as_ever() -> None:
    plain = parse_study({"name": "s", "data": {"name": "digits"}, **WIDE})
    assert plain.searched == ("split",)
    assert parse(["split"]) == plain
    assert "search" not in plain.to_dict()["space"]
    assert "searched" not in plain.to_dict()


def test_a_wider_space_is_read_back_as_it_was() -> None:
    study = parse(["depth", "split"], method="supernet")
    assert study.searched == ("split", "depth")
    assert study.to_dict()["space"] == {"search": ["split", "depth"], "target": 2e6}
    assert parse_study(study.to_dict()) == study


def test_a_space_of_search_alone_has_the_parameters_of_the_method() -> None:
    study = parse_study({"name": "s", "data": {"name": "digits"}, "space": {"search": ["split"]}})
    assert set(study.space) == {"target", "complexity_exponent", "penalty"}


@pytest.mark.parametrize(
    ("search", "changes", "words"),
    [
        ("depth", {}, "space: search must be a list of split, mlp_ratio, depth, but got 'depth'"),
        ([], {}, "must be a list of split"),
        (["kernel"], {}, "search has 'kernel', but must be a list of"),
        (["depth"], {"budget": {}}, "scope 'conv' counts partial convolutions only; give budget: {scope: network}"),
        (["split", "depth"], {"method": "fractional"}, "leave depth out, or take method gates or supernet"),
        (["mlp_ratio"], {"model": {"timm": "resnet18"}}, "timm/resnet18 is a converted network: only split"),
        (["mlp_ratio"], {"budget": {"unit": "latency", "scope": "network"}}, "has times of partial convolutions only"),
        (["split"], {"searched": ["split"]}, "searched: write space"),
    ],
)
def test_an_impossible_space_is_refused(search: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(search, **changes)
    assert words in str(caught.value)
