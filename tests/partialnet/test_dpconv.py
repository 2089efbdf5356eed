"""The layer whose split is learned: gradients (P3), one function (P4, P5), export (P6, P7), isolation (P11), P14."""

from __future__ import annotations

import ast
import copy
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import partialnet
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.export import to_fixed
from partialnet.layers.block import block
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.gates import binary_gates, legal_gates, split_levels
from partialnet.layers.partial_conv import REST_KINDS, PartialConv2d
from partialnet.models.partialnet import PartialNet, create
from partialnet.variants import VARIANTS
from tests.partialnet.kronecker import dense_output
from tests.partialnet.searchable import make_layer, scramble

P6_WIDTHS = (48, 64, 96, 128, 160, 256, 320)
VARIANT_WIDTHS = {variant.embed_dim * 2**i for variant in VARIANTS.values() for i in range(len(variant.depths))}
WIDTHS = sorted({*P6_WIDTHS} | VARIANT_WIDTHS)
PACKAGE = Path(partialnet.__file__).parent
SOURCES = sorted([*(PACKAGE / "search").glob("*.py"), *(PACKAGE / "layers").glob("*.py"), PACKAGE / "export.py"])
IMMUTABLE = {"re.compile", "get_args", "TypeVar", "MappingProxyType"}
EXPORTS = [(width, rest) for width in WIDTHS for rest in REST_KINDS]
EXPORT_SAMPLE = random.Random(0).sample([case for case in EXPORTS if case[0] in P6_WIDTHS], 8)
ALL_LAYERS = [(m * 2**k, rest) for m in (1, 3, 5, 7) for k in range(1, 9) if m * 2**k < 512 for rest in REST_KINDS]
LAYERS = [(c, rest) for c in (8, 12, 40, 48) for rest in REST_KINDS if (c, rest) != (12, "self_attention")]


def gate_gradient(layer: DPConv2d, x: Tensor, upstream: Tensor) -> Tensor:
    layer.zero_grad()
    layer.probing = True
    layer(x).backward(upstream)
    layer.probing = False
    assert layer.gates.grad is not None
    return layer.gates.grad.clone()


def explicit_gradient(layer: DPConv2d, x: Tensor, upstream: Tensor) -> Tensor:
    """Half of the outputs' differences, from whole forwards at n/2, n and 2n."""
    level = layer.level
    with torch.no_grad():
        at = {k: layer.at_level(x, k) for k in (level - 1, level, level + 1) if 0 <= k < len(layer.levels)}
    growth = (upstream * (at[level + 1] - at[level])).sum() if level + 1 in at else torch.zeros(())
    removal = (upstream * (at[level] - at[level - 1])).sum() if level - 1 in at else torch.zeros(())
    return torch.where(layer.gates.detach() >= 0, removal, growth) / 2


def assert_same_gradient(got: Tensor, expected: Tensor) -> None:
    assert float((got - expected).norm() / expected.norm()) <= 1e-6


def check_gate_gradient(channels: int, rest: str, training: bool) -> None:
    torch.manual_seed(channels)
    layer = make_layer(channels, rest).double().train(training)
    x = torch.randn(3, channels, 4, 5, dtype=torch.float64)
    upstream = torch.randn_like(x)
    for n in layer.levels:
        layer.set_active_channels(n)
        assert_same_gradient(gate_gradient(layer, x, upstream), explicit_gradient(layer, x, upstream))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "rest"), LAYERS)
def test_the_gate_gradient_is_the_difference_of_whole_outputs(channels: int, rest: str, training: bool) -> None:
    check_gate_gradient(channels, rest, training)


@pytest.mark.parametrize("rest", REST_KINDS)
def test_the_gate_gradient_between_levels_in_steps(rest: str) -> None:
    torch.manual_seed(0)
    layer = make_layer(24, rest, level_step=8).double()
    assert (layer.levels, layer.active_channels) == ((8, 16, 24), 8)
    x = torch.randn(3, 24, 4, 5, dtype=torch.float64)
    upstream = torch.randn_like(x)
    for n in layer.levels:
        layer.set_active_channels(n)
        assert_same_gradient(gate_gradient(layer, x, upstream), explicit_gradient(layer, x, upstream))
        assert torch.allclose(layer.fixed().eval()(x), layer.eval()(x), atol=1e-9)
        layer.train()


@pytest.mark.long
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "rest"), ALL_LAYERS)
def test_the_gate_gradient_of_every_width(channels: int, rest: str, training: bool) -> None:
    try:
        split_levels(channels, rest=rest)
    except ArchitectureError:
        pytest.skip("four heads leave this width nothing to choose")
    check_gate_gradient(channels, rest, training)


@pytest.mark.parametrize("form", ["multilinear", "product", "constant"])
@pytest.mark.parametrize(("m", "count"), [(1, 3), (3, 2), (5, 3)])
def test_of_the_dense_forms_only_the_multilinear_one_has_this_gradient(m: int, count: int, form: str) -> None:
    torch.manual_seed(0)
    channels = m * 2**count
    layer = DPConv2d(channels).double()
    x = torch.randn(2, channels, 3, 3, dtype=torch.float64)
    upstream = torch.randn_like(x)
    for level in range(1, count):
        layer.set_active_channels(layer.levels[level])
        real = legal_gates(level, count).double().requires_grad_()
        out = dense_output(x, layer.conv.weight.detach(), binary_gates(real), m, form)
        assert torch.allclose(out, layer(x), atol=1e-12)
        (upstream * out).sum().backward()
        assert real.grad is not None
        # Only the gates beside the boundary lead to another legal vector when they flip.
        beside = slice(count - level - 1, count - level + 1)
        got, expected = real.grad[beside], gate_gradient(layer, x, upstream)[beside]
        if form == "multilinear":
            assert_same_gradient(got, expected)
        else:
            with pytest.raises(AssertionError):
                assert_same_gradient(got, expected)


def test_saturated_gates_have_no_gradient() -> None:
    layer = DPConv2d(8).double()
    with torch.no_grad():
        layer.gates.copy_(torch.tensor([-1.2, -0.5, 1.3]))
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64)
    gradient = gate_gradient(layer, x, torch.randn_like(x))
    assert gradient[0] == gradient[2] == 0
    assert gradient[1] != 0


@pytest.mark.parametrize("rest", REST_KINDS)
def test_a_level_is_trained_as_the_fixed_layer_and_nothing_else_is(rest: str) -> None:
    torch.manual_seed(0)
    layer = make_layer(16, rest).double().eval()
    for n in layer.levels[:-1]:
        layer.set_active_channels(n)
        fixed = layer.fixed()
        x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
        found = []
        for each in (layer, fixed):
            each.zero_grad()
            leaf = x.clone().requires_grad_()
            each(leaf).square().sum().backward()
            norms = [p.grad for p in each.parameters() if p is not each.conv.weight and p.grad is not None]
            found.append((leaf.grad, each.conv.weight.grad, sum(float(g.square().sum()) for g in norms)))
        (ours, kernel, others), (theirs, expected, their_others) = found
        assert ours is not None
        assert theirs is not None
        assert kernel is not None
        assert expected is not None
        assert torch.allclose(ours, theirs)
        assert torch.allclose(kernel[:n, :n], expected)
        assert int(kernel.count_nonzero()) == int(expected.count_nonzero())
        # Rows of self-attention are permuted in the fixed layer; what they amount to is not.
        assert others == pytest.approx(their_others)


@pytest.mark.parametrize(("start", "stop", "dim"), [(0, 3, 0), (2, 6, 0), (1, 4, 1), (0, 6, 1)])
def test_a_block_has_the_gradient_of_its_slices(start: int, stop: int, dim: int) -> None:
    shape = (6, 6, 2) if dim == 0 else (3, 6, 6)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    index = (*(slice(None),) * dim, slice(start, stop), slice(start, stop))
    part, expected = block(weight, start, stop, dim), weight[index]
    assert torch.equal(part, expected)
    upstream = torch.randn_like(expected)
    (got,) = torch.autograd.grad(part, weight, upstream)
    assert torch.equal(got, torch.autograd.grad(expected, weight, upstream)[0])


@pytest.mark.parametrize("rest", REST_KINDS)
def test_weights_and_inputs_get_the_same_gradient_with_and_without_probing(rest: str) -> None:
    torch.manual_seed(0)
    layer = make_layer(24, rest).double()
    x = torch.randn(2, 24, 3, 3, dtype=torch.float64, requires_grad=True)
    weights = [p for name, p in layer.named_parameters() if name != "gates"]
    plain = torch.autograd.grad(layer(x).square().sum(), [x, *weights])
    layer.probing = True
    probed = torch.autograd.grad(layer(x).square().sum(), [x, *weights])
    # Not bitwise: the probe takes the weight gradient on the grown block, of which this is the corner.
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(plain, probed, strict=True))


def test_a_probe_leaves_the_running_statistics_alone() -> None:
    layer = make_layer(16, "channel_attention").train()
    layer.set_active_channels(4)
    before = copy.deepcopy(layer.state_dict())
    layer.probing = True
    layer(torch.randn(2, 16, 3, 3)).sum().backward()
    for name, tensor in layer.state_dict().items():
        if "running" in name:
            changed = (tensor != before[name]).any(dim=1)
            assert changed.tolist() == [level == layer.level for level in range(len(layer.levels))], name


@torch.no_grad()
@pytest.mark.parametrize("rest", REST_KINDS)
@pytest.mark.parametrize("channels", [16, 48])
def test_evaluation_depends_on_parameters_only(channels: int, rest: str) -> None:
    layer = make_layer(channels, rest).eval()
    x = torch.randn(2, channels, 3, 3)
    for n in layer.levels:
        layer.set_active_channels(n)
        fresh = DPConv2d(channels, rest=rest, attn_drop=0.0).eval()  # type: ignore[arg-type]
        fresh.load_state_dict(layer.state_dict())
        assert fresh.active_channels == n
        assert float((fresh(x) - layer.fixed()(x)).abs().max()) <= 1e-6


@torch.no_grad()
@pytest.mark.parametrize("rest", REST_KINDS)
def test_training_and_evaluation_are_one_function_with_frozen_norms(rest: str) -> None:
    layer = make_layer(32, rest)
    x = torch.randn(2, 32, 3, 3)
    for n in layer.levels:
        layer.set_active_channels(n)
        expected = layer.eval()(x)
        layer.train()
        for name, module in layer.named_modules():
            if name.endswith("norm"):
                module.eval()
        assert float((layer(x) - expected).abs().max()) <= 1e-6


def check_export(channels: int, rest: str) -> None:
    layer = make_layer(channels, rest).eval()
    x = torch.randn(2, channels, 2, 3)
    with torch.no_grad():
        for n in layer.levels:
            layer.set_active_channels(n)
            expected = layer(x)
            fixed = layer.fixed()
            assert isinstance(fixed, PartialConv2d)
            assert fixed.active_channels == n
            assert float((fixed(x) - expected).abs().max()) <= 1e-5
            assert all(p.numel() < layer.conv.weight.numel() or n == channels for p in fixed.parameters())
    again = PartialConv2d(channels, n, rest=rest, attn_drop=0.0).eval()  # type: ignore[arg-type]
    again.load_state_dict(fixed.state_dict(), strict=True)
    assert torch.equal(again(x), fixed(x))


@pytest.mark.parametrize(("channels", "rest"), EXPORT_SAMPLE)
def test_the_fixed_layer_equals_the_searched_one_at_every_level(channels: int, rest: str) -> None:
    check_export(channels, rest)


@pytest.mark.long
@pytest.mark.parametrize(("channels", "rest"), EXPORTS)
def test_the_fixed_layer_of_every_width_equals_the_searched_one(channels: int, rest: str) -> None:
    check_export(channels, rest)


@torch.no_grad()
def test_statistics_of_another_level_are_not_exported_unnoticed() -> None:
    layer = make_layer(48, "channel_attention").eval()
    layer.set_active_channels(12)
    x = torch.randn(2, 48, 3, 3)
    right, state_at = layer(x), layer.rest.state_at
    layer.rest.state_at = lambda start, level: state_at(start, level + 1)  # type: ignore[method-assign]
    assert float((layer.fixed()(x) - right).abs().max()) >= 1e-2


@pytest.mark.parametrize("rest", REST_KINDS)
def test_the_fixed_layer_shares_nothing_and_keeps_mode_and_type(rest: str) -> None:
    layer = make_layer(16, rest).double().train()
    fixed = layer.fixed()
    assert fixed.training
    assert all(p.dtype == torch.float64 and p.requires_grad for p in fixed.parameters())
    storages = {p.untyped_storage().data_ptr() for p in layer.state_dict().values()}
    assert not storages & {p.untyped_storage().data_ptr() for p in fixed.state_dict().values()}


@pytest.mark.parametrize("rest", REST_KINDS)
@pytest.mark.parametrize("size", [1, 2])
def test_tiny_maps_and_extreme_levels_are_finite(rest: str, size: int) -> None:
    layer = make_layer(16, rest).train()
    layer.probing = True
    for n in layer.levels:
        layer.set_active_channels(n)
        layer.zero_grad()
        x = torch.randn(4, 16, size, size, requires_grad=True)
        out = layer(x)
        out.square().sum().backward()
        assert out.isfinite().all()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_an_explicit_level_is_not_stored() -> None:
    layer = DPConv2d(16)
    layer.set_level(0)
    assert layer.active_channels == 1
    assert set(layer.state_dict()) == {"gates", "conv.weight"}
    layer.set_level(None)
    assert layer.active_channels == 4
    with pytest.raises(ArchitectureError, match="level 5 does not exist: active_channels has levels 0 to 4"):
        layer.set_level(5)


@pytest.mark.parametrize("rest", REST_KINDS)
def test_two_models_two_forwards_and_checkpointing_do_not_interfere(rest: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 16, 3, 3, dtype=torch.float64)
    layer, other = make_layer(16, rest).double().eval(), make_layer(16, rest).double().eval()
    other.set_active_channels(8)
    for each in (layer, other):
        each.probing = True

    def gradient(*losses: Tensor) -> Tensor:
        layer.zero_grad()
        for loss in losses:
            loss.backward()
        assert layer.gates.grad is not None
        return layer.gates.grad

    separate = gradient(layer(x).square().sum()).clone() + gradient(layer(y).square().sum())
    assert_same_gradient(gradient(layer(x).square().sum(), layer(y).square().sum()), separate)
    assert_same_gradient(gradient(layer(x).square().sum() + layer(y).square().sum()), separate)
    first, between = layer(x), other(x)
    second = layer(y)
    between.square().sum().backward()
    assert_same_gradient(gradient(first.square().sum() + second.square().sum()), separate)
    again = [checkpoint(layer, z, use_reentrant=False).square().sum() for z in (x, y)]
    assert_same_gradient(gradient(*again), separate)


def test_only_the_active_block_is_computed() -> None:
    channels, size = 32, 8
    x = torch.randn(1, channels, size, size)

    def step(layer: torch.nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            F.relu(layer(x)).sum().backward()
        return counter.get_total_flops()

    searched = DPConv2d(channels)
    searched.set_active_channels(8)
    plain, found = step(PartialConv2d(channels, 8)), step(searched)
    assert found <= 1.01 * plain
    searched.probing = True
    # The weight gradient is taken on the grown block: 4 n^2 for n^2.
    assert step(searched) - plain == 2 * 9 * size**2 * (16**2 - 8**2)


def test_scrambling_reaches_every_level() -> None:
    layer = make_layer(8, "channel_attention")
    scramble(layer, seed=1)
    rows = layer.state_dict()["rest.norm.running_mean"]
    assert rows.unique(dim=0).shape == rows.shape


def test_a_step_of_a_block_costs_at_most_a_fifth_more_while_gates_learn() -> None:
    def step(model: PartialNet) -> int:
        block, x = model.stages[1].blocks[0], torch.randn(2, 64, 8, 8)
        with FlopCounterMode(display=False) as counter:
            block(x).sum().backward()
        return counter.get_total_flops()

    searched = create(Architecture("partialnet_t0", {"depths": [1, 1, 1, 1]}), searchable=True).train()
    plain = step(to_fixed(searched))
    assert step(searched) <= 1.01 * plain
    searched.stages[1].blocks[0].mixer.probing = True
    assert step(searched) <= 1.20 * plain


def test_a_copy_and_a_pickle_are_the_same_layer() -> None:
    layer = make_layer(16, "self_attention").eval()
    layer.set_active_channels(8)
    x = torch.randn(1, 16, 3, 3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
        twin.set_active_channels(4)
    assert layer.active_channels == 8


@pytest.mark.parametrize("path", SOURCES, ids=[path.name for path in SOURCES])
def test_no_state_lives_outside_of_objects(path: Path) -> None:
    tree = ast.parse(path.read_text())
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and ast.unparse(node).split()[0] != "__all__":
            assert not isinstance(node.value, mutable), ast.unparse(node)
            if isinstance(node.value, ast.Call):
                assert ast.unparse(node.value.func) in IMMUTABLE, ast.unparse(node)
    assert not any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in ast.walk(tree))


@pytest.mark.parametrize("rest", ["identity", "channel_attention", "self_attention", "se_attention"])
def test_costs_are_counted_without_numbers(rest: Any) -> None:
    """On the meta device: it has no autocast, and torch does not even answer whether that is on."""
    with torch.device("meta"):
        layer = DPConv2d(16, rest=rest)
        layer.set_level(2)
        assert layer(torch.empty(2, 16, 4, 4)).shape == (2, 16, 4, 4)
