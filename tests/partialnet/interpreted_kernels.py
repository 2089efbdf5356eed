"""Kernels for a GPU, run by Triton's interpreter on this machine's processor, against torch's operations.

What is checked here is what they compute and where they are used; how fast they are, only a GPU can tell. The variable
``TRITON_INTERPRET`` counts when Triton is first imported: ``test_kernels.py`` runs this file in a process of its own.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._dynamo import lookup_backend
from torch.utils._python_dispatch import TorchDispatchMode

from partialnet.fuse import fuse
from partialnet.layers import kernels
from partialnet.layers.channel_attention import gaussian_statistics
from partialnet.layers.kernels import plain
from partialnet.layers.matrix_conv import MatrixConv2d
from partialnet.layers.partial_conv import PartialConv2d
from tests.partialnet.reference_state import randomize
from tests.samples import sampled

assert os.environ["TRITON_INTERPRET"] == "1"

LAYOUTS = pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
MAPS = pytest.mark.parametrize(
    ("dtype", "layout", "size"),
    sampled(
        (torch.float32, torch.bfloat16, torch.float16),
        (torch.channels_last, torch.contiguous_format),
        ((2, 24, 7, 5), (3, 70, 1, 1), (1, 6, 33, 9), (2, 2, 1, 13), (1, 130, 9, 1)),
    ),
)
EVERY_REST = {"rests": ("se_attention", "srm_attention", "identity", "self_attention")}
FULL = {"full_attention": ("channel", "spatial", "self")}
RELU = {"act_layer": "relu"}
SHALLOW = pytest.mark.parametrize(
    "options",
    [
        pytest.param({"depths": (1,), "merge_strides": (), "rests": ("channel_attention",)}, id="one_block"),
        pytest.param({"depths": (1, 1), "merge_strides": (2,)}, id="two_stages", marks=pytest.mark.long),
    ],
)
NETWORKS = pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="published", marks=pytest.mark.long),
        pytest.param(RELU, id="relu", marks=pytest.mark.long),
        pytest.param(EVERY_REST, id="rests"),
        pytest.param(FULL, id="full", marks=pytest.mark.long),
    ],
)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take this machine's processor for a GPU."""
    monkeypatch.setattr(kernels, "on_gpu", lambda x: True)
    torch.manual_seed(0)
    assert kernels._works(torch.device("cpu"))  # else torch's operations would be compared with themselves
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Operations(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def kernels_that_run(run: Callable[[], object]) -> set[str]:
    with Operations() as mode:
        run()
    return {name.removeprefix("partialnet.") for name in mode.counts if name.startswith("partialnet.")}


def part_of_map(size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, mean: float = 0) -> Tensor:
    """Return all but the first 3 channels of a map, as the rest of a partial convolution is."""
    whole = torch.randn(size[0], size[1] + 3, *size[2:]) + mean
    return whole.to(dtype).to(memory_format=layout)[:, 3:]


def error(out: Tensor, expected: Tensor) -> float:
    return float((out.double() - expected).abs().max() / expected.abs().max())


def limit(dtype: torch.dtype) -> float:
    """Return the error of one rounding, which the interpreter does towards 0, or of sums in float32."""
    return max(2e-6, 1.01 * torch.finfo(dtype).eps)


@pytest.mark.usefixtures("on_gpu")
@MAPS
def test_statistics(dtype: torch.dtype, layout: torch.memory_format, size: tuple[int, int, int, int]) -> None:
    images, channels, height, width = size
    x = part_of_map(size, dtype, layout)
    out = kernels.channel_statistics(x)
    assert out.shape == (images, channels, 1, 2)
    assert out.dtype == dtype
    expected = plain.statistics(x.double())
    rounding = 1.01 * torch.finfo(dtype).eps * float(expected[..., 0].abs().max())
    assert float((out - expected)[..., 0].abs().max()) <= rounding + 1e-6 * float(x.abs().max())
    if height * width == 1:
        assert not out[..., 1].any()
    else:
        assert error(out[..., 1], expected[..., 1]) <= limit(dtype)


@pytest.mark.usefixtures("on_gpu")
@torch.no_grad()
def test_statistics_far_from_zero() -> None:
    """A sum of squares alone would lose the deviation: 1 beside 10 000."""
    x = part_of_map((2, 5, 20, 20), torch.float32, torch.channels_last, mean=1e4)
    assert error(gaussian_statistics(x), plain.statistics(x.double())) < 1e-6
    deviation, expected = gaussian_statistics(x)[..., 1], plain.statistics(x.double())[..., 1]
    assert error(deviation, expected) < 1e-4
    assert not kernels.channel_statistics(torch.full((1, 4, 5, 5), 3.25))[..., 1].any()


@pytest.mark.usefixtures("on_gpu")
@MAPS
def test_gated_shortcut(dtype: torch.dtype, layout: torch.memory_format, size: tuple[int, int, int, int]) -> None:
    channels = size[1]
    x, shortcut = part_of_map(size, dtype, layout), torch.randn(size).to(dtype)
    gate, shift = torch.randn(2, channels // 2).to(dtype)
    before = x.clone()
    out = kernels.gated_shortcut(x, shortcut, gate, shift)
    expected = plain.gated_shortcut(x.double(), shortcut.double(), gate.double(), shift.double())
    assert out.dtype == dtype
    assert out.stride() == torch.empty_like(shortcut).stride()
    assert error(out, expected) <= limit(dtype)
    assert torch.equal(x, before)


@pytest.mark.usefixtures("on_gpu")
def test_a_window_of_a_map() -> None:
    """Its rows of pixels do not follow each other."""
    x = torch.randn(2, 8, 9, 9)[:, :, 2:7, 1:5]
    gate, shift = torch.randn(2, 4)
    assert error(kernels.channel_statistics(x), plain.statistics(x.double())) < 1e-5
    out = kernels.gated_shortcut(x, x, gate, shift)
    assert error(out, plain.gated_shortcut(x.double(), x.double(), gate.double(), shift.double())) < 1e-6


@pytest.mark.usefixtures("on_gpu")
@LAYOUTS
def test_what_a_compiler_is_told_of_them_is_true(layout: torch.memory_format) -> None:
    x = part_of_map((2, 8, 5, 3), torch.float32, layout)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(kernels.channel_statistics, (x,), test_utils=checks)
    args = (x, torch.randn(2, 8, 5, 3).to(memory_format=layout), *torch.randn(2, 4))
    torch.library.opcheck(kernels.gated_shortcut, args, test_utils=checks)


def network(options: dict[str, Any]) -> nn.Module:
    return fuse(randomize(timm.create_model("partialnet_micro", num_classes=5, **options)))


@torch.no_grad()
@NETWORKS
def test_whole_networks(request: pytest.FixtureRequest, options: dict[str, Any]) -> None:
    """On what is taken for a GPU: kernels, matrix products, parts written into one map. Elsewhere none of it."""
    model, sizes = network(options), ((2, 32, 32), (1, 19, 27))
    images = [torch.randn(batch, 3, height, width) for batch, height, width in sizes]
    assert not kernels_that_run(lambda: model(images[0]))
    expected = [model(x) for x in images]
    request.getfixturevalue("on_gpu")
    used = {"channel_statistics"} if options is FULL else {"channel_statistics", "gated_shortcut"}
    assert kernels_that_run(lambda: model(images[0])) == used
    for x, out in zip(images, expected, strict=True):
        assert error(model(x), out.double()) < 1e-5
        assert error(model(x.to(memory_format=torch.channels_last)), out.double()) < 1e-5
    half = model.bfloat16()(images[0].bfloat16())
    assert error(half, expected[0].double()) < 0.05


@pytest.mark.usefixtures("on_gpu")
@torch.no_grad()
@pytest.mark.parametrize("options", [{}, pytest.param(RELU, marks=pytest.mark.long)], ids=["gelu", "relu"])
def test_autocast(options: dict[str, Any]) -> None:
    model, x = network(options), torch.randn(2, 3, 32, 32)
    expected = model(x).double()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert out.dtype == torch.bfloat16
    assert error(out, expected) < 8 * torch.finfo(torch.bfloat16).eps


@pytest.mark.usefixtures("on_gpu")
@torch.no_grad()
def test_the_input_of_a_block_stays_as_it_is() -> None:
    """The shortcut needs it, whatever the mixer writes in place."""
    model = network({})
    for x in (torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)):
        before = x.clone()
        model.stages[0].blocks[0](x)
        assert torch.equal(x, before)


@pytest.mark.usefixtures("on_gpu")
@torch.no_grad()
@pytest.mark.parametrize("act_layer", ["gelu", "relu"])
def test_matrix_products_of_convolutions(act_layer: str) -> None:
    model = network({"act_layer": act_layer})
    convolutions = [module for module in model.modules() if isinstance(module, MatrixConv2d)]
    assert {conv.kernel_size for conv in convolutions} == {(1, 1), (1, 2)}
    with Operations() as mode:
        model(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last))
    left = sum(type(module) is nn.Conv2d for module in model.modules())
    assert mode.counts["aten.convolution"] == left
    assert mode.counts["aten._addmm_activation"] == sum(getattr(module, "relu", False) for module in convolutions)
    assert bool(mode.counts["aten._addmm_activation"]) == (act_layer == "relu")
    assert mode.counts["aten.relu"] == (act_layer == "relu")  # of the head


@pytest.mark.usefixtures("on_gpu")
@torch.no_grad()
@SHALLOW
def test_a_compiled_network_contains_them(options: dict[str, Any]) -> None:
    model, x = network(options), torch.randn(2, 3, 32, 32)
    expected = model(x).double()
    targets: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        targets.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return lookup_backend("aot_eager")(graph, inputs)

    assert error(torch.compile(model, backend=backend, fullgraph=True)(x), expected) < 1e-5
    assert any("gated_shortcut" in target for target in targets)
    assert any("var_mean" in target for target in targets)  # of which a compiler makes one pass itself


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("on_gpu")
@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_network_compiled_for_this_processor(layout: torch.memory_format) -> None:
    model, x = network({}), torch.randn(2, 3, 32, 32).to(memory_format=layout)
    assert error(torch.compile(model, fullgraph=True)(x), model(x).double()) < 1e-5


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is:FutureWarning")
@SHALLOW
def test_what_runs_elsewhere_does_not_contain_them(options: dict[str, Any]) -> None:
    model, x = network(options), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        traced, scripted = torch.jit.trace(model, x), torch.jit.script(model)
    for graph in (str(program.graph), str(traced.inlined_graph), str(scripted.inlined_graph)):
        assert "aten" in graph
        assert "partialnet::" not in graph
        assert "partialnet.gated" not in graph
        assert "partialnet.channel" not in graph
    file = io.BytesIO()
    torch.jit.save(scripted, file)


@pytest.mark.usefixtures("on_gpu")
def test_gradients_do_not_meet_them() -> None:
    model, x = network({}), torch.randn(2, 3, 32, 32, requires_grad=True)
    assert not kernels_that_run(lambda: model(x).sum().backward())
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
    constant = torch.ones(1, 2, 4, 4, requires_grad=True)
    gaussian_statistics(constant).sum().backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("fault", ["fails", "is wrong"])
def test_a_kernel_that_does_not_work_costs_no_network(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from partialnet.layers.kernels import triton_kernels

    model, x = network({}), torch.randn(2, 3, 32, 32)
    expected = model(x).double()
    request.getfixturevalue("on_gpu")
    statistics = triton_kernels.statistics

    def broken(x: Tensor, out: Tensor) -> None:
        if fault == "fails":
            raise RuntimeError("out of resources")
        statistics(x, out)
        out[0, 1] *= 1.001

    kernels._works.cache_clear()
    monkeypatch.setattr(triton_kernels, "statistics", broken)
    with pytest.warns(UserWarning, match="Triton kernels are not used on cpu, so that inference is slower: ") as warned:
        out = model(x)
    assert len(warned) == 1
    assert error(out, expected) < 1e-5
    assert torch.equal(model(x), out)
    kernels._works.cache_clear()


@torch.no_grad()
@LAYOUTS
def test_a_map_written_in_parts(request: pytest.FixtureRequest, layout: torch.memory_format) -> None:
    layers = [PartialConv2d(12, 4, rest=rest) for rest in ("channel_attention", "se_attention", "identity")]
    x = torch.randn(2, 12, 5, 6).to(memory_format=layout)
    expected = [randomize(layer).eval()(x) for layer in layers]
    request.getfixturevalue("on_gpu")
    for layer, out in zip(layers, expected, strict=True):
        again = layer(x)
        assert error(again, out.double()) < 1e-6
        assert again.is_contiguous(memory_format=layout)
