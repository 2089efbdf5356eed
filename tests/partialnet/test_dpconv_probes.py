"""What a search can ask of the probes: raw differences, one side only, a part of the batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import REST_KINDS
from tests.partialnet.searchable import make_layer


def raw_differences(layer: DPConv2d, x: Tensor, upstream: Tensor, *, checkpointed: bool = False) -> Tensor:
    """Return (D-, D+) as the layer writes them to a target."""
    target = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    layer.probing, layer.probe_target = True, target
    out = checkpoint(layer, x, use_reentrant=False) if checkpointed else layer(x)
    out.backward(upstream)
    layer.probing, layer.probe_target = False, None
    assert target.grad is not None
    return target.grad


def whole_differences(layer: DPConv2d, x: Tensor, upstream: Tensor) -> Tensor:
    """Return (D-, D+) from whole forwards at n/2, n and 2n."""
    level = layer.level
    with torch.no_grad():
        at = {k: layer.at_level(x, k) for k in (level - 1, level, level + 1) if 0 <= k < len(layer.levels)}
    zero = torch.zeros((), dtype=x.dtype)
    removal = (upstream * (at[level] - at[level - 1])).sum() if level - 1 in at else zero
    growth = (upstream * (at[level + 1] - at[level])).sum() if level + 1 in at else zero
    return torch.stack((removal, growth))


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("rest", REST_KINDS)
def test_a_target_receives_both_differences_and_the_gates_nothing(rest: str, checkpointed: bool) -> None:
    torch.manual_seed(0)
    layer = make_layer(40, rest).double()
    x = torch.randn(3, 40, 4, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    for level in range(len(layer.levels)):
        layer.set_level(level)
        expected = whole_differences(layer, x, upstream)
        assert torch.allclose(raw_differences(layer, x, upstream, checkpointed=checkpointed), expected, rtol=1e-9)
    assert layer.gates.grad is None


@pytest.mark.parametrize("rest", REST_KINDS)
def test_each_side_can_be_had_alone(rest: str) -> None:
    torch.manual_seed(0)
    layer = make_layer(16, rest).double()
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    both = raw_differences(layer, x, torch.ones_like(x))
    layer.probe_growth = False
    assert torch.allclose(raw_differences(layer, x, torch.ones_like(x)), both * torch.tensor([1.0, 0.0]))
    layer.probe_growth, layer.probe_removal = True, False
    assert torch.allclose(raw_differences(layer, x, torch.ones_like(x)), both * torch.tensor([0.0, 1.0]))


def test_a_target_collects_over_forwards_and_is_not_part_of_the_layer() -> None:
    torch.manual_seed(0)
    layer = make_layer(16, "channel_attention").double().eval()
    x, y = torch.randn(2, 2, 16, 3, 3, dtype=torch.float64)
    names = set(layer.state_dict())
    expected = raw_differences(layer, x, x) + raw_differences(layer, y, y)
    target = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    layer.probing, layer.probe_target = True, target
    torch.autograd.backward([layer(x), layer(y)], [x, y])
    assert target.grad is not None
    assert torch.allclose(target.grad, expected)
    assert set(layer.state_dict()) == names
    assert all(parameter is not target for parameter in layer.parameters())


def test_a_target_serves_when_the_gates_are_frozen() -> None:
    layer = make_layer(16, "identity").double()
    layer.gates.requires_grad_(False)
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    assert raw_differences(layer, x, torch.ones_like(x)).abs().min() > 0


@pytest.mark.parametrize("rest", REST_KINDS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_part_of_the_batch_is_an_unbiased_probe(rest: str, level: int) -> None:
    torch.manual_seed(0)
    layer = make_layer(16, rest).double()
    layer.set_level(min(level, len(layer.levels) - 1))
    x = torch.randn(5, 16, 3, 3, dtype=torch.float64)
    upstream = torch.randn_like(x)
    whole = raw_differences(layer, x, upstream)
    layer.probe_fraction = 0.4
    parts = [raw_differences(layer, x.roll(shift, 0), upstream.roll(shift, 0)) for shift in range(5)]
    assert torch.allclose(torch.stack(parts).mean(0), whole, rtol=1e-9)
    if level == 0:
        assert len({round(float(part[1]), 6) for part in parts}) > 1 or rest not in ("identity", "self_attention")


@pytest.mark.parametrize("rest", REST_KINDS)
def test_the_weights_gradient_does_not_depend_on_the_part(rest: str) -> None:
    torch.manual_seed(0)
    layer = make_layer(16, rest).double()
    x = torch.randn(5, 16, 3, 3, dtype=torch.float64, requires_grad=True)
    weights = [parameter for name, parameter in layer.named_parameters() if name != "gates"]
    plain = torch.autograd.grad(layer(x).square().sum(), [x, *weights])
    layer.probing, layer.probe_fraction = True, 0.2
    probed = torch.autograd.grad(layer(x).square().sum(), [x, *weights])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(plain, probed, strict=True))


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_part_that_is_none_is_refused(fraction: float) -> None:
    layer = DPConv2d(8)
    layer.probing, layer.probe_fraction = True, fraction
    with pytest.raises(ArchitectureError, match="probe_fraction is"):
        layer(torch.randn(2, 8, 3, 3))


def test_where_there_is_nothing_to_probe_the_target_receives_zeros() -> None:
    layer = DPConv2d(8).double()
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    layer.set_level(0)
    layer.probe_growth = False
    assert raw_differences(layer, x, x).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.zeros(3, requires_grad=True), r"shape \(3,\)"),
        (torch.zeros(2, dtype=torch.bfloat16, requires_grad=True), "bfloat16"),
        (torch.zeros(2), "require a gradient"),
    ],
)
def test_a_target_that_cannot_receive_them_is_refused(target: Tensor, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        DPConv2d(8).probe_target = target


def test_a_copy_has_no_target() -> None:
    layer = DPConv2d(8)
    rows = torch.zeros(3, 2, requires_grad=True)
    layer.probe_target = rows[1]
    assert copy.deepcopy(layer).probe_target is None
    assert layer.probe_target is not None
