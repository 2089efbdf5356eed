"""``space: {search: [...]}``: what a study searches beside splits, in words, and which combinations are possible."""

from __future__ import annotations

from typing import Any

import pytest

from nas.definition.study import parse_study
from nas.errors import DefinitionError
from partialnet.kinds import KINDS

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
        ("depth", {}, "space: search must be a list of split, attention, kernel, mlp_ratio, depth, but got 'depth'"),
        ([], {}, "must be a list of split"),
        (["kernels"], {}, "search has 'kernels', but must be a list of"),
        (["kernel"], {}, "search has kernel without split, but both belong to one layer; add split"),
        (["depth"], {"budget": {}}, "scope 'conv' counts partial convolutions only; give budget: {scope: network}"),
        (["mlp_ratio"], {"model": {"timm": "resnet18"}}, "timm/resnet18 is a converted network: only split"),
        (["split"], {"searched": ["split"]}, "searched: write space"),
        (["split"], {"level_step": 16}, "level_step: write space"),
        (["split"], {"space": {"target": 4, "level_step": 0}}, "level_step must be a whole number of channels from 1"),
    ],
)
def test_an_impossible_space_is_refused(search: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(search, **changes)
    assert words in str(caught.value)


def test_kernels_may_be_counted_by_convolutions_alone_and_all_kinds_in_milliseconds() -> None:
    assert parse(["split", "kernel"], budget={"unit": "macs"}, space={"target": 4}).searched == ("split", "kernel")
    wide = parse(list(KINDS), budget={"unit": "latency", "target": 3}, space={})
    assert (wide.searched, wide.space["target"]) == (KINDS, 3)


def test_levels_may_be_multiples() -> None:
    study = parse_study({"name": "s", "data": {"name": "digits"}, "space": {"target": 4, "level_step": 16}})
    assert (study.level_step, study.searched, study.space) == (16, ("split",), {"target": 4})
    assert study.to_dict()["space"] == {"level_step": 16, "target": 4}
    assert parse_study(study.to_dict()) == study


@pytest.mark.parametrize("method", ["gates", "fractional", "supernet"])
def test_each_method_serves_every_kind(method: str) -> None:
    assert parse(list(KINDS), method=method).searched == KINDS
