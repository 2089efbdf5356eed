"""The layer under what a training may add: autocast, compilation, checkpointing, several processes (P11, P15)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from partialnet.layers.dpconv import dpconv_layers
from partialnet.layers.level_norm import LevelBatchNorm2d
from tests.partialnet.searchable import SmallNet, make_layer, scramble
from tests.partialnet.several import fork_server

RESTS = ("identity", "channel_attention", "self_attention")


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(got[name], tensor, rtol=tolerance, atol=tolerance), name


def probed_net(first: int | None = 2, second: int | None = 1) -> SmallNet:
    """Return a scrambled network in training mode that probes both layers at these levels."""
    torch.manual_seed(0)
    net = SmallNet()
    scramble(net)
    net.first.set_level(first)
    net.second.set_level(second)
    for layer in dpconv_layers(net).values():
        layer.probing = True
    return net.train()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rest", RESTS)
def test_the_gates_gradient_is_summed_in_float32_under_autocast(rest: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = make_layer(16, rest)
    layer.probing = True
    x = torch.randn(2, 16, 4, 4)
    upstream = torch.randn_like(x)
    layer(x).backward(upstream)
    expected = gradients(layer)
    layer.zero_grad()
    with torch.autocast("cpu", dtype):
        out = layer(x)
    out.float().backward(upstream)
    got = gradients(layer)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in got.values())
    for name in ("gates", "conv.weight"):
        assert float((got[name] - expected[name]).norm() / expected[name].norm()) < 0.1, name


def test_sums_beyond_float16_stay_finite() -> None:
    torch.manual_seed(0)
    layer = make_layer(16, "channel_attention")
    layer.probing = True
    nn.init.constant_(layer.conv.weight, 20.0)
    x = torch.randn(8, 16, 8, 8)
    with torch.autocast("cpu", torch.float16):
        out = layer(x)
    out.backward(64.0 * x.sign())  # no weight's gradient is too large
    assert layer.gates.grad is not None
    assert layer.gates.grad.isfinite().all()
    assert float(layer.gates.grad.abs().max()) > torch.finfo(torch.float16).max


@pytest.mark.slow
@pytest.mark.parametrize("probing", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_compiled_step_is_the_same_without_graph_breaks(probing: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), make_layer(16, "channel_attention")).train()
    net[1].probing = probing
    reference = copy.deepcopy(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 3, 6, 6)
    for level in (2, 1):  # the second level compiles anew
        for model in (net, reference):
            model[1].set_level(level)
            model.zero_grad()
        compiled(x).square().sum().backward()
        reference(x).square().sum().backward()
        assert_same(gradients(net), gradients(reference), 1e-5)
        assert ("1.gates" in gradients(net)) == probing
    assert_same(dict(net.named_buffers()), dict(reference.named_buffers()), 1e-5)


@pytest.mark.slow
def test_self_attention_is_compiled_whole() -> None:
    """On a map of which it has seen none so large before, too."""
    torch._dynamo.reset()
    layer = make_layer(16, "self_attention")
    layer.set_level(1)
    layer.probing = True
    x = torch.randn(2, 16, 3, 3)
    torch.compile(layer, backend="aot_eager", fullgraph=True)(x).square().sum().backward()
    compiled = gradients(layer)
    layer.zero_grad()
    layer(x).square().sum().backward()
    assert_same(compiled, gradients(layer), 1e-5)


@pytest.mark.parametrize("kind", ["not reentrant", "reentrant", "sequence"])
@pytest.mark.parametrize("rest", RESTS)
def test_checkpointing_changes_no_gradient(rest: str, kind: str) -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(make_layer(16, rest), nn.ReLU(), make_layer(16, rest)).double().train()
    for layer in dpconv_layers(blocks).values():
        layer.set_level(1)
        layer.probing = True
    x = torch.randn(3, 16, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(checkpointed: bool) -> dict[str, Tensor]:
        blocks.zero_grad()
        if not checkpointed:
            out = blocks(x)
        elif kind == "sequence":
            out = checkpoint_seq(blocks, x)
        else:
            out = checkpoint(blocks, x, use_reentrant=kind == "reentrant")
        out.square().sum().backward()
        return gradients(blocks)

    expected = run(False)
    assert "0.gates" in expected
    assert_same(run(True), expected, 1e-12)


def test_recomputed_statistics_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = LevelBatchNorm2d(6, 2), nn.BatchNorm2d(6)
    x = torch.randn(4, 6, 3, 3, requires_grad=True)
    for _ in range(3):
        checkpoint(ours, x, 0, 1, use_reentrant=False).sum().backward()
        checkpoint(theirs, x, use_reentrant=False).sum().backward()
    state = ours.state_at(0, 1)
    for name, tensor in theirs.state_dict().items():
        assert torch.allclose(state[name], tensor), name
    assert ours.num_batches_tracked[0] == 0


def test_a_level_is_that_of_the_forward_even_if_it_changes_before_the_backward() -> None:
    net = probed_net()
    x = torch.randn(2, 3, 5, 5)
    net(x).square().sum().backward()
    expected = gradients(net)
    net.zero_grad()
    loss = net(x).square().sum()
    net.first.set_level(0)
    net.second.set_level(4)
    loss.backward()
    assert_same(gradients(net), expected, 1e-6)


def _batch(rank: int) -> Tensor:
    return torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


LEVELS = ((4, 1), (2, 0), (1, 4))  # of each step; at 4 nothing is left to the rest, whose weights take no part


def _train(rank: int, meeting: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    net = probed_net().double()
    model = DistributedDataParallel(net, find_unused_parameters=True)
    found: list[dict[str, Any]] = []
    for step, (first, second) in enumerate(LEVELS):
        net.first.set_level(first)
        net.second.set_level(second)
        for layer in dpconv_layers(net).values():
            layer.probing = step != 1
        model.zero_grad()
        model(_batch(rank)).square().mean().backward()
        found.append(gradients(net))
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.forks
def test_two_processes_average_the_gradients_of_gates_and_weights(tmp_path: Path) -> None:
    fork_server()
    arguments = (str(tmp_path / "meeting"), str(tmp_path))
    torch.multiprocessing.start_processes(_train, args=arguments, nprocs=2, start_method="forkserver")
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    net = probed_net().double()
    for step, (first, second) in enumerate(LEVELS):
        net.first.set_level(first)
        net.second.set_level(second)
        alone = []
        for rank in (0, 1):
            net.zero_grad()
            for layer in dpconv_layers(net).values():
                layer.probing = step != 1
            net(_batch(rank)).square().mean().backward()
            alone.append(gradients(net))
        mean = {name: (alone[0][name] + alone[1][name]) / 2 for name in alone[0]}
        assert ("first.gates" in mean) == (step != 1)
        for rank in (0, 1):
            assert_same({name: found[rank][step][name] for name in mean}, mean, 1e-9)
        assert_same(found[0][step], found[1][step], 0)


def test_gradients_of_gradients_exist_without_probes() -> None:
    layer = make_layer(4, "identity").double()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)

    def output(weight: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, {"conv.weight": weight}, (x,))
        return result

    assert torch.autograd.gradgradcheck(output, (layer.conv.weight.detach().requires_grad_(),))


def test_shapes_are_computed_without_values() -> None:
    """Feasibility runs networks on the meta device, which knows no autocast."""
    model = SmallNet()
    for layer in dpconv_layers(model).values():
        layer.set_level(1)
    model.to("meta")
    assert model(torch.zeros(2, 3, 8, 8, device="meta")).shape[0] == 2
