"""Compiled steps of searches: code for a block at a level, made once, and the same decisions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch._dynamo.utils import counters

from partialnet import Architecture, create
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.retrofit import convert_to_patconv
from partialnet.search import loop
from partialnet.search.budget import Budget
from partialnet.search.phases import PhaseSchedule
from partialnet.search.regions import CompiledRegions, region_of
from partialnet.search.result import SearchProgress
from partialnet.train.recipe import Recipe
from tests.partialnet.search_runs import METHODS, SHAPE, random_batches, search, small_net

CPU = torch.device("cpu")
COMPILED = Recipe(compile=True)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def backend() -> str:
    """The compiler's front end alone, if a test names no other: the same operations."""
    return "eager"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, backend: str) -> list[CompiledRegions]:
    """The compiled regions of the searches of a test."""
    found: list[CompiledRegions] = []

    def make(*arguments: object) -> CompiledRegions:
        found.append(CompiledRegions(*arguments, backend=backend))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(loop, "CompiledRegions", make)
    return found


def test_a_region_is_the_block_of_a_layer() -> None:
    model = create(Architecture("partialnet_micro", {"num_classes": 4}), searchable=True)
    for name, layer in dpconv_layers(model).items():
        assert region_of(model, layer) is model.get_submodule(name.removesuffix(".mixer"))
    net = small_net()
    assert region_of(net, net.first) is net.first
    resnet, _ = convert_to_patconv(timm.create_model("resnet18", num_classes=4), searchable=True)
    regions = {name: region_of(resnet, layer) for name, layer in dpconv_layers(resnet).items()}
    blocks = [region for region in regions.values() if not isinstance(region, DPConv2d)]
    assert all(type(region).__name__ == "BasicBlock" for region in blocks)
    assert regions["layer1.0.conv1"] is resnet.get_submodule("layer1.0.conv1")  # its block has another such layer


def drawn_levels(model: nn.Module) -> int:
    """Return how many pieces of code there may be: levels of every layer, plain, with both probes or with one."""
    return sum(4 * len(layer.levels) for layer in dpconv_layers(model).values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "method"),
    [
        ("eager", METHODS[0]),
        *(pytest.param("eager", name, marks=pytest.mark.long) for name in METHODS[1:]),
        *(pytest.param("aot_eager", name, marks=pytest.mark.long) for name in METHODS),
    ],
)
def test_a_compiled_search_decides_alike_and_compiles_each_level_once(
    method: str, made: list[CompiledRegions]
) -> None:
    budget = Budget.from_b(2, input_shape=SHAPE)
    schedule = None if method == "supernet" else PhaseSchedule(0.05, 0.5, 0.15, 0.3)
    options = {"method": method, "steps": 24, "schedule": schedule}
    expected = search(small_net(width=4), budget, **options)
    counts: list[int] = []
    model = small_net(width=4)

    def note(progress: SearchProgress) -> None:
        counts.append(counters["stats"]["unique_graphs"])
        assert not any("forward" in vars(module) for module in model.modules())

    found = search(model, budget, recipe=COMPILED, callback=note, **options)
    assert [record.active_channels for record in found.history] == [r.active_channels for r in expected.history]
    assert [record.loss for record in found.history] == pytest.approx([r.loss for r in expected.history], rel=1e-4)
    assert found.active_channels == expected.active_channels
    # One graph for each piece of code, none of them twice, and none whole networks.
    assert counts[-1] == len(made[0]) <= drawn_levels(model)
    assert not counters["graph_break"]
    assert counts[-1] == counts[18]  # all levels were met by then


@pytest.mark.slow
def test_blocks_of_one_stage_share_code(made: list[CompiledRegions]) -> None:
    options = {"num_classes": 4, "depths": (3,), "merge_strides": (), "rests": ("identity",), "embed_dim": 8}
    model = create(Architecture("partialnet_micro", options), searchable=True)
    result = search(
        model,
        Budget.from_b(4, input_shape=(3, 8, 8)),
        recipe=COMPILED,
        steps=4,
        schedule=PhaseSchedule(0.7, 0, 0, 0.3),
        batches=[(torch.randn(4, 3, 8, 8), torch.randint(4, (4,)))],
    )
    assert len(result.history) == 4
    assert len(made[0]) == counters["stats"]["unique_graphs"] == 1  # three blocks at the largest level


@pytest.mark.long
def test_the_default_compiler_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CompiledRegions", partial(CompiledRegions, backend="inductor"))
    options = {"steps": 10, "schedule": PhaseSchedule(0, 0.1, 0, 0.9), "batches": random_batches(1)}
    budget = Budget.from_b(2, input_shape=SHAPE)
    expected = search(small_net(width=4), budget, **options)
    found = search(small_net(width=4), budget, recipe=COMPILED, **options)
    assert counters["stats"]["unique_graphs"] >= 2
    assert [record.loss for record in found.history] == pytest.approx([r.loss for r in expected.history], rel=1e-4)


def test_nothing_is_left_in_a_network_whose_step_fails() -> None:
    model = small_net(width=4)
    regions = CompiledRegions(model, list(dpconv_layers(model).values()), CPU, backend="eager")

    def fail() -> None:
        with regions.installed():
            assert "forward" in vars(model.first)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not any("forward" in vars(module) for module in model.modules())
