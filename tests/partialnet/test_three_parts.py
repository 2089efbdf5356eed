"""A width in three parts, convolved, passed and attended to: fixed layers, both boundaries learned, costs, searches."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

import partialnet
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.choice import at_levels, choices_of
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.three_parts import ThreePartConv2d
from partialnet.models.partialnet import create
from partialnet.networks import architecture_of
from partialnet.search.budget import Budget
from partialnet.search.cost import layer_costs
from partialnet.search.latency_parts import ThreePartKey
from partialnet.search.latency_rows import latency_rows
from partialnet.search.learn_split import learn_split
from partialnet.search.operations import macs_by_module
from tests.partialnet.searchable import make_layer
from tests.partialnet.test_wide_space import OPTIONS, SHAPE, Images, randomised

KINDS = ("split", "attention")
RESTS = ("channel_attention", "srm_attention", "se_attention", "self_attention")


@pytest.mark.parametrize("rest", RESTS)
def test_a_fixed_layer_attends_to_the_last_channels_alone(rest: str) -> None:
    layer = ThreePartConv2d(16, 4, 8, rest=rest).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 16, 5, 5)
    out = layer(x)
    assert torch.equal(out[:, 4:8], x[:, 4:8])
    assert torch.equal(out[:, :4], layer.conv(x[:, :4]))
    assert torch.equal(out[:, 8:], layer.rest(x[:, 8:]))
    assert torch.equal(ThreePartConv2d(16, 4, 0, rest=rest).eval()(x)[:, 4:], x[:, 4:])  # type: ignore[arg-type]
    assert torch.allclose(torch.jit.trace(layer, x)(x), out)


@pytest.mark.parametrize(
    ("arguments", "rest", "words"),
    [
        ((16, 4, 12), "channel_attention", "attended_channels is 12, but must be at least 0 and less than 12"),
        ((16, 4, 6), "self_attention", "must be a multiple of 4, the attention heads"),
        ((16, 4, 6), "identity", "rest 'identity' attends to none"),
    ],
)
def test_an_impossible_division_is_refused(arguments: tuple[int, ...], rest: Any, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        ThreePartConv2d(*arguments, rest=rest)
    with pytest.raises(ArchitectureError, match="parts is 4, but must be 2, or 3"):
        DPConv2d(16, parts=4)


def layer_at(rest: str, active: int, attended: int) -> DPConv2d:
    layer = make_layer(16, rest, parts=3).double().eval()
    layer.set_active_channels(active)
    assert layer.attended is not None
    layer.attended.choose(attended)
    return layer


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize(("active", "attended"), [(4, 8), (4, 12), (8, 12), (4, 0), (16, 8)])
def test_both_boundaries_have_their_probes_and_fixed_forms(rest: str, active: int, attended: int) -> None:
    """D+ and D- of both choices are differences of whole outputs; the fixed form has the same outputs."""
    layer = layer_at(rest, active, attended)
    choice = layer.attended
    assert choice is not None
    x = torch.randn(3, 16, 4, 5, dtype=torch.float64)
    upstream = torch.randn_like(x)
    pairs = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    for one, pair in zip((layer, choice), pairs.unbind(), strict=True):
        one.probing, one.probe_target = True, pair
    layer(x).backward(upstream)
    assert pairs.grad is not None
    for one, found in zip((layer, choice), pairs.grad.tolist(), strict=True):
        level = one.level
        outputs = {}
        for near in (level - 1, level, level + 1):
            if 0 <= near < len(one.levels):
                one.set_level(near)
                with torch.no_grad():
                    outputs[near] = layer(x)
        one.set_level(None)
        expected = [
            float((upstream * (outputs[level] - outputs[level - 1])).sum()) if level else 0.0,
            float((upstream * (outputs[level + 1] - outputs[level])).sum()) if level + 1 in outputs else 0.0,
        ]
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-10)
    fixed = layer.fixed()
    assert (fixed.active_channels, fixed.attended_channels) == (active, min(attended, 16 - active))
    assert torch.allclose(fixed(x), layer(x), atol=1e-12)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    draw = random.Random(seed)
    for choice in choices_of(model).values():
        choice.choose(draw.choice(choice.levels))
    return model


def test_from_a_searched_network_to_a_fixed_one() -> None:
    torch.manual_seed(0)
    model = randomised(create(Architecture("partialnet_micro", OPTIONS), searchable=KINDS)).eval()
    for name, value in {"stages.0.blocks.0": 8, "stages.1.blocks.0": 0, "stages.1.blocks.1": 24}.items():
        choices_of(model)[f"{name}.mixer.attended"].choose(value)
    fixed = to_fixed(model, input_shape=SHAPE)
    found = architecture_of(fixed)
    assert found == architecture_of(model)
    assert found.attended_channels == {"stages.0.blocks.0.mixer": 8, "stages.1.blocks.0.mixer": 0}  # 24 is all the rest
    assert Architecture.from_dict(found.to_dict()) == found
    again = partialnet.create(found).eval()
    again.load_state_dict(fixed.state_dict(), strict=True)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(again(x), model(x), atol=1e-6)
        assert torch.allclose(fuse(fixed)(x), model(x), atol=1e-5)
    assert architecture_of(create(found, searchable=KINDS)) == found
    with pytest.raises(ArchitectureError, match="only if it learns 'attention' as well"):
        create(found, searchable=True)


def test_every_network_costs_what_its_export_does() -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=(*KINDS, "kernel"))
    tables = [layer_costs(model, SHAPE, unit, "network") for unit in ("macs", "params")]
    choices = choices_of(drawn(model))
    choices["stages.0.blocks.0.mixer"].choose(4)
    choices["stages.0.blocks.0.mixer.attended"].choose(8)
    fixed = to_fixed(model, input_shape=SHAPE)
    fused = fuse(fixed)
    chosen = tables[0].space.chosen({name: choice.chosen for name, choice in choices_of(model).items()})
    assert tables[0].total(chosen) == pytest.approx(macs_by_module(fused, SHAPE)[""], rel=1e-3)
    assert tables[1].total(chosen) == sum(p.numel() for p in fused.parameters())


def test_the_rows_of_both_boundaries_are_those_of_the_layers_that_they_make() -> None:
    model = create(Architecture("partialnet_micro", OPTIONS), searchable=(*KINDS, "kernel"))
    choices = choices_of(model)
    for name, rows in latency_rows(model, SHAPE).items():
        parts = dict(zip(rows.choices, rows.counts, strict=True))
        assert list(parts) == [name, f"{name}.kernel", f"{name}.attended"]
        for levels in product(*map(range, parts.values())):
            chosen = dict(zip(parts, levels, strict=True))
            with at_levels({choices[part]: level for part, level in chosen.items()}):
                layer = choices[name].fixed()
            for key in rows.at(chosen):
                assert (key.active_channels, key.kernel_size) == (layer.active_channels, layer.kernel_size)
                three = isinstance(layer, ThreePartConv2d)
                assert isinstance(key, ThreePartKey) == three
                assert not three or key.attended_channels == layer.attended_channels
    fixed = latency_rows(to_fixed(drawn(model), input_shape=SHAPE), SHAPE)
    calls = {
        layer: rows.at({part: choices[part].level for part in rows.choices})
        for layer, rows in latency_rows(model, SHAPE).items()
    }
    assert {layer: rows.at({}) for layer, rows in fixed.items()} == calls


def test_an_attention_that_serves_all_others_has_no_row_of_three_parts() -> None:
    ThreePartKey(8, 8, 16, 4, 8, 3, "channel_attention")
    with pytest.raises(BudgetError, match="attended_channels is 12, but must be less than 12"):
        ThreePartKey(8, 8, 16, 4, 12, 3, "channel_attention")


@pytest.mark.parametrize("method", ["gates", "fractional", "supernet"])
def test_methods_end_within_the_budget(method: str) -> None:
    model = create(Architecture("partialnet_micro", {**OPTIONS, "embed_dim": 8, "feature_dim": 16}), searchable=KINDS)
    table = layer_costs(model, SHAPE, "params", "network")
    budget = Budget(
        unit="params", scope="network", target=(table.minimum + table.maximum) / 2, input_shape=SHAPE
    )
    extra: dict[str, Any] = {}
    if method == "supernet":
        extra = {"validation": list(Images()), "supernet": partialnet.SupernetOptions(sampled=1, samples=8, best=2)}
    result = learn_split(
        model, Images(), nn.functional.cross_entropy, budget, method=method, steps=6, max_ratio=1.0, **extra
    )  # type: ignore[arg-type]
    assert sum(p.numel() for p in fuse(result.fixed).parameters()) == result.cost
    assert architecture_of(result.fixed) == architecture_of(model)
