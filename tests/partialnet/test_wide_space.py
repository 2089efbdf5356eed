"""A space of splits, hidden widths and blocks: values of choices, fixed forms, architectures, searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import partialnet
from partialnet.architecture import Architecture
from partialnet.blocks import block_rows
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.choice import Choice, choices_of
from partialnet.models.partialnet import PartialNet, create
from partialnet.networks import architecture_of
from partialnet.search.budget import Budget
from partialnet.search.cost import CostTable
from partialnet.search.learn_split import learn_split
from partialnet.search.selection import presence_weights, sample_within
from partialnet.search.space import SearchSpace, options_of
from tests.benchmarks import wide_answer

ALL = ("split", "mlp_ratio", "depth")
OPTIONS = {"depths": [1, 2], "merge_strides": [2], "num_classes": 4}
SHAPE = (3, 16, 16)


def network(kinds: tuple[str, ...] = ALL, **options: Any) -> PartialNet:
    torch.manual_seed(0)
    return create(Architecture("partialnet_micro", {**OPTIONS, **options}), searchable=kinds)


def settle(model: nn.Module, **values: int) -> None:
    for name, choice in choices_of(model).items():
        short = name.replace("stages.", "s").replace(".blocks.", "b").replace(".", "_")
        if short in values:
            choice.choose(values[short])


def randomised(model: nn.Module) -> nn.Module:
    """Give the normalisations statistics of their own, as after a training."""
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.mark.parametrize(
    ("choice", "level"),
    [("stages.0.blocks.0.mlp", 2), ("stages.0.blocks.0", 1), ("stages.0.blocks.0", 0), ("stages.1.blocks.1.mlp", 0)],
)
def test_probes_are_the_derivatives_of_switches(choice: str, level: int) -> None:
    """D+ and D- are the inner products of the output's gradient with what a level adds, here by evaluation."""
    model = randomised(network()).double().eval()
    probed = choices_of(model)[choice]
    assert isinstance(probed, Choice)
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    outputs: dict[int, Tensor] = {}
    seen: list[Tensor] = []
    # Of an MLP the part before the spatial attention is linear in a ring.
    place = probed.spatial if choice.endswith("mlp") else probed
    assert isinstance(place, nn.Module)

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        value = inputs[0] if choice.endswith("mlp") else output
        if value.requires_grad:
            value.retain_grad()
        seen.append(value)

    handle = place.register_forward_hook(keep)
    for other in {level, level - 1, level + 1} & set(range(len(probed.levels))):
        probed.set_level(other)
        with torch.no_grad():
            model(x)
        outputs[other] = seen.pop()
    pair = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    probed.set_level(level)
    probed.probing, probed.probe_target = True, pair
    model(x).square().sum().backward()
    handle.remove()
    gradient = seen[-1].grad
    assert pair.grad is not None
    assert gradient is not None
    expected = [
        (gradient * (outputs[level] - outputs[level - 1])).sum() if level else 0.0,
        (gradient * (outputs[level + 1] - outputs[level])).sum() if level + 1 < len(probed.levels) else 0.0,
    ]
    assert pair.grad.tolist() == pytest.approx([float(value) for value in expected], rel=1e-9)
    assert any(pair.grad.tolist())


def test_growth_probes_change_no_statistics() -> None:
    model = network().train()
    settle(model, s0b0=0, s1b1_mlp=32)
    for choice in choices_of(model).values():
        choice.probing, choice.probe_target = True, torch.zeros(2, requires_grad=True)
    before = {name: value.clone() for name, value in model.named_buffers() if "s.0.blocks" in name}
    hidden = model.get_submodule("stages.1.blocks.1.mlp.norm")
    model(torch.randn(4, *SHAPE)).sum().backward()
    assert before
    assert all(torch.equal(value, dict(model.named_buffers())[name]) for name, value in before.items())
    assert torch.equal(hidden.running_mean[32:], torch.zeros_like(hidden.running_mean[32:]))  # type: ignore[index,union-attr,arg-type]
    assert not torch.equal(hidden.running_mean[:32], torch.zeros_like(hidden.running_mean[:32]))  # type: ignore[index,union-attr,arg-type]


def test_from_a_searched_network_to_a_package(tmp_path: Path) -> None:
    model = randomised(network()).eval()
    settle(model, s0b0=0, s1b0_mlp=16, s1b1_mlp=96, s1b1_mixer=4)
    fixed = to_fixed(model, input_shape=SHAPE)
    found = architecture_of(fixed)
    assert found == architecture_of(model)
    assert found.absent_blocks == ("stages.0.blocks.0",)
    assert found.hidden_channels == {"stages.1.blocks.0.mlp": 16, "stages.1.blocks.1.mlp": 96}
    assert list(found.active_channels) == ["stages.1.blocks.0.mixer", "stages.1.blocks.1.mixer"]
    assert found.to_dict()["schema"] == 2
    assert Architecture.from_dict(found.to_dict()) == found
    again = partialnet.create(found)
    again.load_state_dict(fixed.state_dict(), strict=True)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(again.eval()(x), model(x), atol=1e-6)
        assert torch.allclose(fuse(fixed)(x), model(x), atol=1e-5)
        searched = create(found, searchable=ALL).eval()
        assert architecture_of(searched) == found
    assert [(row.present, row.hidden_channels, row.active_channels) for row in block_rows(found)] == [
        (False, None, None), (True, 16, 8), (True, 96, 4),
    ]  # fmt: skip


def test_the_published_network_is_said_as_before() -> None:
    """Schema, JSON and id of a network that schema 1 can say do not depend on what was searched."""
    known = architecture_of(create(Architecture("partialnet_micro", OPTIONS)))
    assert architecture_of(network()).to_dict() == known.to_dict()
    assert set(known.to_dict()) == {"schema", "model", "options", "active_channels"}
    assert known.to_dict()["schema"] == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hidden_channels": {"stages.9.blocks.0.mlp": 8}}, "hidden_channels: unknown layers stages.9.blocks.0.mlp"),
        ({"absent_blocks": ["stages.0"]}, "absent_blocks: unknown layers stages.0"),
        ({"absent_blocks": ["stages.0.blocks.0"], "active_channels": {"stages.0.blocks.0.mixer": 4}},
         "active_channels has stages.0.blocks.0.mixer, but absent_blocks leaves"),
        ({"absent_blocks": [f"stages.{s}.blocks.{b}" for s, b in ((0, 0), (1, 0), (1, 1))]}, "one must stay"),
        ({"hidden_channels": {"stages.0.blocks.0.mlp": 0}}, "must be an integer of at least 1"),
        ({"absent_blocks": "stages.0.blocks.0"}, "must be a list of module names"),
        ({"absent_blocks": ["stages.0.blocks.0"] * 2}, "must name each block once"),
    ],
)  # fmt: skip
def test_an_impossible_architecture_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        create(Architecture("partialnet_micro", OPTIONS, **given))


@pytest.mark.parametrize(
    ("searchable", "words"), [(["splits"], "searchable has 'splits'"), ("depth", "must be a list")]
)
def test_an_unknown_kind_is_refused(searchable: Any, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        create(Architecture("partialnet_micro", OPTIONS), searchable=searchable)


def space() -> SearchSpace:
    levels = ((0, 1), (1, 2, 4), (8, 16))
    return SearchSpace(
        ("b", "c"),
        (("b", "b.mixer", "b.mlp"), ("c",)),
        (("presence", "active_channels", "hidden_channels"), ("active_channels",)),
        (options_of(levels, droppable=True), options_of([(1, 2)], droppable=False)),
    )


def test_options_and_settings_are_inverse() -> None:
    known = space()
    assert len(known.options[0]) == 7
    for b in range(7):
        for c in range(2):
            assert known.chosen(known.settings([b, c])) == (b, c)
    assert known.settings([0, 1]) == {"b": 0, "c": 2}
    assert known.active_channels([3, 0]) == {"b.mixer": 2, "c": 1}
    with pytest.raises(BudgetError, match=r"b\.mlp: hidden_channels is 9, but the space has 8, 16"):
        known.chosen({"b": 1, "b.mixer": 1, "b.mlp": 9, "c": 1})


def test_blocks_are_absent_as_often_as_wanted() -> None:
    units = tuple(f"b{i}" for i in range(9))
    options = options_of(((0, 1), tuple(range(1, 17))), droppable=True)
    many = SearchSpace(
        units, tuple((name, f"{name}.mixer") for name in units), (("presence", "active_channels"),) * 9, (options,) * 9
    )
    table = CostTable.of(many, [[0.0, *range(100, 116)]] * 9)
    drawn = sample_within(
        table, 600, torch.Generator().manual_seed(0), 600, tolerance=0.5, weights=presence_weights(many, 1 / 3)
    )
    assert len(drawn) == 600
    assert all(300 <= table.total(row) <= 900 for row in drawn)
    share = sum(place == 0 for row in drawn for place in row) / (9 * len(drawn))
    assert 0.28 < share < 0.38


class Images:
    """Batches of noise whose class is their brightness."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(3)
        for _ in range(4):
            x = torch.randn(8, *SHAPE, generator=generator)
            yield x, (x.mean((1, 2, 3)) > 0).long()


@pytest.mark.parametrize(
    ("method", "kinds"),
    [("gates", ALL), ("supernet", ALL), ("fractional", ALL), ("gates", ("depth",))],
)
def test_every_method_ends_within_the_budget(method: str, kinds: tuple[str, ...]) -> None:
    model = network(kinds, embed_dim=8, feature_dim=16, depths=[1, 1])
    table = partialnet.search.cost.layer_costs(model, SHAPE, "macs", "network")
    budget = Budget(unit="macs", scope="network", target=(table.minimum + table.maximum) / 2, input_shape=SHAPE)
    extra: dict[str, Any] = {}
    if method == "supernet":
        extra = {"validation": list(Images()), "supernet": partialnet.SupernetOptions(sampled=1, samples=8, best=2)}
    result = learn_split(
        model, Images(), nn.functional.cross_entropy, budget, method=method, steps=6, max_ratio=1.0, **extra
    )  # type: ignore[arg-type]
    counted = partialnet.search.operations.macs_by_module(fuse(result.fixed), SHAPE)[""]
    assert counted == pytest.approx(result.cost, rel=1e-3)
    assert result.within_budget or result.note
    assert table.space.settings(table.space.chosen(result.settings)) == result.settings
    assert architecture_of(result.fixed) == architecture_of(model)


@pytest.mark.timeout(60)
def test_the_blocks_of_a_teacher_are_found() -> None:
    """A small task with a known answer; ``bench_known_answer`` has those that count."""
    instance = wide_answer.WideInstance(16, ((4, 32), None, (8, 8)), 5, 1)
    found = wide_answer.search(instance, "gates", 0, 80)
    assert found.error <= 0.45
    assert abs(found.cost - 1) <= 0.02
    assert wide_answer.random_error(instance) > 0.6
