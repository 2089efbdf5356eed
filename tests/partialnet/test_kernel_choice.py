"""Kernel sizes as a choice: nested kernels, values of rings, fixed forms, architectures, known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import partialnet
from partialnet.architecture import Architecture
from partialnet.blocks import block_rows
from partialnet.errors import ArchitectureError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.choice import choices_of
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.kernel_size import KernelSize, kernel_sizes
from partialnet.models.partialnet import create
from partialnet.networks import architecture_of
from partialnet.search.budget import Budget
from partialnet.search.cost import layer_costs
from partialnet.search.learn_split import learn_split
from tests.benchmarks import known_answer
from tests.partialnet.test_wide_space import OPTIONS, SHAPE, Images, randomised

KINDS = ("split", "kernel", "mlp_ratio", "depth")


def layer_at(size: int, active: int, rest: str = "identity", **more: Any) -> DPConv2d:
    torch.manual_seed(0)
    layer = DPConv2d(16, rest=rest, kernel_sizes=(3, 5), **more).double().eval()  # type: ignore[arg-type]
    assert layer.kernel is not None
    layer.set_active_channels(active)
    layer.kernel.choose(size)
    return layer


@pytest.mark.parametrize("rest", ["identity", "channel_attention", "self_attention"])
@pytest.mark.parametrize("size", [3, 5])
def test_a_smaller_kernel_is_the_centre_of_a_larger_one(rest: str, size: int) -> None:
    layer = layer_at(size, 8, rest)
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    fixed = layer.fixed()
    assert fixed.conv.kernel_size == (size, size)
    edge = (5 - size) // 2
    assert torch.equal(fixed.conv.weight, layer.conv.weight[:8, :8, edge : 5 - edge, edge : 5 - edge])
    assert torch.allclose(fixed(x), layer(x), atol=1e-12)


@pytest.mark.parametrize("size", [3, 5])
def test_probes_are_the_derivatives_of_switches(size: int) -> None:
    """D+ and D- of the kernel size by evaluation; those of the split are as in a layer with this kernel alone."""
    layer = layer_at(size, 4)
    assert layer.kernel is not None
    x = torch.randn(3, 16, 6, 6, dtype=torch.float64)
    outputs = {}
    for other in (3, 5):
        layer.kernel.choose(other)
        outputs[other] = layer(x).detach()
    layer.kernel.choose(size)
    pairs = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    for choice, pair in zip((layer, layer.kernel), pairs.unbind(), strict=True):
        choice.probing, choice.probe_target = True, pair
    out = layer(x)
    out.retain_grad()
    out.square().sum().backward()
    assert out.grad is not None
    assert pairs.grad is not None
    value = float((out.grad * (outputs[5] - outputs[3])).sum())
    assert pairs.grad[1].tolist() == pytest.approx([0.0, value] if size == 3 else [value, 0.0], rel=1e-9)
    plain = DPConv2d(16, size).double().eval()
    plain.load_state_dict({"gates": layer.gates, "conv.weight": layer._weight()})
    target = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    plain.probing, plain.probe_target = True, target
    plain(x).square().sum().backward()
    assert target.grad is not None
    assert pairs.grad[0].tolist() == pytest.approx(target.grad.tolist(), rel=1e-9)


def test_a_step_trains_the_centre_of_the_kernel_alone() -> None:
    layer = layer_at(3, 4)
    layer(torch.randn(2, 16, 6, 6, dtype=torch.float64)).square().sum().backward()
    gradient = layer.conv.weight.grad
    assert gradient is not None
    assert int(gradient.count_nonzero()) == int(gradient[:4, :4, 1:4, 1:4].count_nonzero()) == 4 * 4 * 9


def test_from_a_searched_network_to_a_package(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = randomised(create(Architecture("partialnet_micro", OPTIONS), searchable=KINDS)).eval()
    choices = choices_of(model)
    choices["stages.0.blocks.0.mixer.kernel"].choose(5)
    choices["stages.1.blocks.0.mixer.kernel"].choose(5)
    choices["stages.1.blocks.1"].choose(0)
    fixed = to_fixed(model, input_shape=SHAPE)
    found = architecture_of(fixed)
    assert found == architecture_of(model)
    assert found.kernel_sizes == {"stages.0.blocks.0.mixer": 5, "stages.1.blocks.0.mixer": 5}
    assert found.to_dict()["schema"] == 2
    assert Architecture.from_dict(found.to_dict()) == found
    assert [row.kernel_size for row in block_rows(found)] == [5, 5, None]
    again = partialnet.create(found)
    again.load_state_dict(fixed.state_dict(), strict=True)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(again.eval()(x), model(x), atol=1e-6)
        assert torch.allclose(fuse(fixed)(x), model(x), atol=1e-5)
    assert architecture_of(create(found, searchable=KINDS)) == found


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        ({}, {"kernel_sizes": {"stages.9.blocks.0.mixer": 5}}, "kernel_sizes: unknown layers stages.9.blocks.0.mixer"),
        ({}, {"kernel_sizes": {"stages.0.blocks.0.mixer": 4}}, "kernel_size is 4, but must be odd"),
        ({"mixers": ["partial", "depthwise"]}, {"kernel_sizes": {"stages.1.blocks.0.mixer": 5}},
         "kernel_sizes is 5, but a mixer 'depthwise' has the option kernel_size"),
    ],
)  # fmt: skip
def test_an_impossible_kernel_is_refused(options: dict[str, Any], given: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        create(Architecture("partialnet_micro", {**OPTIONS, **options}, **given))


def test_kernels_are_chosen_with_splits_among_several_odd_sizes() -> None:
    with pytest.raises(ArchitectureError, match="searchable has 'kernel' without 'split'"):
        create(Architecture("partialnet_micro", OPTIONS), searchable=("kernel",))
    for levels in ((3,), (5, 3), (2, 3)):
        with pytest.raises(ArchitectureError, match="must be several, odd and ascending"):
            KernelSize(8, levels, 3)
    assert kernel_sizes(7) == (3, 5, 7)


@pytest.mark.parametrize("method", ["gates", "fractional", "supernet"])
def test_methods_end_within_the_budget(method: str) -> None:
    options = {**OPTIONS, "embed_dim": 8, "feature_dim": 16}
    model = create(Architecture("partialnet_micro", options), searchable=("split", "kernel"))
    table = layer_costs(model, SHAPE, "macs", "conv")
    budget = Budget(unit="macs", scope="conv", target=table.maximum / 9, input_shape=SHAPE)
    extra: dict[str, Any] = {}
    if method == "supernet":
        extra = {"validation": list(Images()), "supernet": partialnet.SupernetOptions(sampled=1, samples=8, best=2)}
    result = learn_split(
        model, Images(), nn.functional.cross_entropy, budget, method=method, steps=6, max_ratio=1.0, **extra
    )  # type: ignore[arg-type]
    assert result.within_budget or result.note
    assert architecture_of(result.fixed) == architecture_of(model)


@pytest.mark.timeout(60)
def test_the_kernels_of_a_teacher_are_found() -> None:
    """A small task with a known answer; ``bench_known_answer`` has those that count."""
    instance = known_answer.Instance(16, (8, 4, 8, 4), 6, 5, (5, 5, 3, 3))
    found = known_answer.search(instance, "gates", 0, 80)
    assert found.error <= 0.45
    assert found.kernel_error <= 0.25
    assert abs(found.cost - 1) <= 0.02
