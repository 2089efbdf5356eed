"""Copies of modules: the same as ``copy.deepcopy`` makes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from partialnet.architecture import Architecture
from partialnet.layers.choice import choices_of
from partialnet.layers.copying import copied
from partialnet.networks import create


def test_a_copy_shares_nothing_and_equals_that_of_deepcopy() -> None:
    model = create(Architecture("partialnet_micro"), searchable=True).eval()
    calls: list[str] = []
    model.register_forward_hook(lambda *_: calls.append("model"))
    found, expected = copied(model), copy.deepcopy(model)
    x = torch.zeros(1, 3, 32, 32)
    assert torch.equal(found(x), expected(x))
    assert calls == ["model", "model"]
    assert str(found) == str(expected)
    for own, other, usual in zip(model.modules(), found.modules(), expected.modules(), strict=True):
        assert vars(other).keys() == vars(usual).keys()
        for name, value in vars(other).items():
            assert type(value) is type(vars(usual)[name]), name
            if isinstance(value, (dict, set, list)):
                assert value is not vars(own)[name], name
    # Only what is shared in the original is shared in the copy, such as timm's two names of one configuration.
    assert len(_containers(found)) == len(_containers(expected))
    assert _containers(found).isdisjoint(_containers(model))


def _containers(model: nn.Module) -> set[int]:
    return {id(value) for part in model.modules() for value in vars(part).values() if isinstance(value, (dict, set))}


def test_a_hook_of_a_copied_part_stays_with_that_part() -> None:
    found = copied(nn.Sequential(nn.Identity(), nn.Identity()))
    called: list[int] = []
    found[0].register_forward_hook(lambda *_: called.append(0))
    found(torch.zeros(1))
    assert called == [0]


def test_parts_that_are_one_stay_one() -> None:
    part = nn.Linear(2, 2)
    found = copied(nn.Sequential(part, part))
    assert found[0] is found[1]
    assert found[0] is not part


def test_what_is_known_takes_the_place_of_a_part() -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    name, layer = next(iter(choices_of(model).items()))
    fixed = layer.fixed()
    assert copied(model, {id(layer): fixed}).get_submodule(name) is fixed
    assert copied(layer, {id(layer): fixed}) is fixed
