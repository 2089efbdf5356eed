"""Networks as TorchScript: compiled from source, from a symbolic trace, and recorded; in both forms, as timm demands.

TorchScript compiles a class once a process. A class that fails to compile leaves its methods behind, so that the next
network fails with another message; so all of it runs in one process here.
"""

from __future__ import annotations

import copy
import inspect
import io
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm import set_scriptable
from torch import Tensor, nn

import partialnet.layers.channel_attention
import partialnet.layers.partial_conv
import partialnet.layers.self_attention
import partialnet.layers.spatial_attention
import partialnet.models.partialnet
from partialnet.fuse import fuse
from partialnet.layers.partial_conv import REST_KINDS, PartialConv2d
from partialnet.layers.self_attention import RelativePositionBias, distance_buckets, scripted_distance_buckets
from partialnet.layers.spatial_attention import FullSpatialAttention, PartialSpatialAttention
from partialnet.retrofit import convert_to_patconv
from tests.partialnet.reference_state import randomize
from tests.partialnet.test_timm_contract import graph_of, image, real
from tests.samples import sampled

# Deprecated by torch, and still demanded by timm; what a trace takes for a constant is one: the size of a map.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is:FutureWarning"),
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained by tracing the model in eval mode:UserWarning"),
]

MODULES = (
    partialnet.layers.channel_attention,
    partialnet.layers.partial_conv,
    partialnet.layers.self_attention,
    partialnet.layers.spatial_attention,
    partialnet.models.partialnet,
)
EVERY_REST = {"rests": ("se_attention", "srm_attention", "identity", "self_attention"), "use_spatial_attn": False}
ABLATION = {
    "mixers": ("conv", "depthwise", "partial", "partial"), "full_attention": ("channel", "spatial", "self"),
    "drop_rate": 0.1, "drop_path_rate": 0.1, "act_layer": "relu", "active_channels": {"stages.2.blocks.0.mixer": 64},
}  # fmt: skip
SHORT = {"depths": (1, 1), "merge_strides": (2,), "rests": ("channel_attention", "self_attention")}
SAMPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "micro": ("partialnet_micro", {}),
    "rests": ("partialnet_micro", EVERY_REST),
    "ablation": ("partialnet_micro", ABLATION),
}
PUBLISHED = {
    name: (name, {})
    for name in timm.list_models("partialnet_*") + timm.list_models("patnet_*")
    if name != "partialnet_micro"
}


def training_form(model: nn.Module) -> nn.Module:
    return model


FORMS = (training_form, fuse)
BOTH_FORMS = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


@pytest.fixture(autouse=True)
def _scriptable_layers() -> Iterator[None]:
    """Have timm build layers that can be scripted, as its tests do."""
    with set_scriptable(True):
        yield


def scripted(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return torch.jit.script(model)


def scripted_graph(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    graph = torch.jit.script(graph_of(model))
    return lambda images: next(iter(graph(images).values()))


def traced(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return torch.jit.trace(model, x)


def frozen(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return torch.jit.optimize_for_inference(torch.jit.script(model))


def saved(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    return torch.jit.load(file)


def assert_close(out: Tensor, expected: Tensor) -> None:
    assert out.isfinite().all()
    assert float(expected.std()) > 1e-3
    assert float((out - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


HOWS = (scripted, scripted_graph, traced)


def networks_and_ways() -> Iterator[Any]:
    """Yield all triples; beyond the sample, where each network, way and form occurs, they are marked ``long``."""
    for place, (label, (name, options)) in enumerate({**SAMPLE, **PUBLISHED}.items()):
        for turn, how in enumerate(HOWS):
            for form in FORMS:
                in_sample = label in SAMPLE and place == turn and form is FORMS[(place + 1) % 2]
                marks = () if in_sample else (pytest.mark.long, pytest.mark.timeout(1800))
                yield pytest.param(name, options, how, form, id=f"{label}-{how.__name__}-{form.__name__}", marks=marks)


@torch.no_grad()
@pytest.mark.parametrize(("name", "options", "how", "form"), list(networks_and_ways()))
def test_same_outputs(name: str, options: dict[str, Any], how, form) -> None:
    """For any batch, and however often it runs: the executor specialises a graph in its first runs."""
    model = form(real(name, num_classes=5, **options))
    x, more = image(model, batch=1), image(model, batch=3)
    compiled = how(copy.deepcopy(model), x)
    for images in (x, x, more, more):
        assert_close(compiled(images), model(images))


@torch.no_grad()
@pytest.mark.parametrize(("how", "form"), sampled([frozen, saved], FORMS))
def test_same_outputs_when_frozen_or_loaded_again(how, form) -> None:
    model = form(real("partialnet_micro", num_classes=5, **SHORT))
    compiled = how(copy.deepcopy(model), image(model))
    for size in (16, 16, 24, 24):
        x = torch.randn(2, 3, size, size)
        assert_close(compiled(x), model(x))


@torch.no_grad()
@BOTH_FORMS
def test_a_network_that_ran_is_scripted_as_often_as_wanted(form) -> None:
    """What it keeps of earlier runs is not looked at, and it is the same network afterwards."""
    model = form(real("partialnet_micro", num_classes=5, **SHORT))
    x = image(model)
    expected = model(x)
    for _ in range(2):
        assert_close(torch.jit.script(model)(x), expected)
        assert torch.equal(model(x), expected)


def test_a_scripted_network_learns() -> None:
    model = real("partialnet_micro", num_classes=5, attn_drop_rate=0.0, **SHORT).train()
    compiled = torch.jit.script(copy.deepcopy(model))
    compiled.train()
    x = image(model, batch=4)
    model(x).square().sum().backward()
    compiled(x).square().sum().backward()
    for (name, parameter), expected in zip(compiled.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(dict(compiled.named_buffers()), dict(model.named_buffers()))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["fx", "list"])
def test_maps_of_all_stages(kind: str) -> None:
    options = {"features_only": True, "feature_cls": kind, "depths": (1, 1, 1, 1)}
    model = randomize(timm.create_model("partialnet_micro", **options)).eval()
    x = image(model)
    for out, expected in zip(torch.jit.script(model)(x), model(x), strict=True):
        assert_close(out, expected)


@torch.no_grad()
@pytest.mark.parametrize(("how", "form"), sampled(HOWS, FORMS))
@pytest.mark.parametrize(
    "rest", [pytest.param(rest, marks=[pytest.mark.long] * (rest != "channel_attention")) for rest in REST_KINDS]
)
def test_partial_convolutions_in_networks_of_other_families(rest: str, how, form) -> None:
    resnet = timm.create_model("resnet18", num_classes=5, layers=(1, 1, 1, 1), channels=(16, 32, 32, 32))
    resnet.layer3, resnet.layer4 = nn.Identity(), nn.Identity()  # they would be two more of the same
    network, report = convert_to_patconv(resnet, 0.25, rest=rest)
    assert any(isinstance(module, PartialConv2d) for module in network.modules()), report
    model = form(randomize(network).eval())
    x = torch.randn(2, 3, 32, 32)
    compiled = how(copy.deepcopy(model), x)
    for _ in range(2):
        assert_close(compiled(x), model(x))


@torch.no_grad()
@pytest.mark.parametrize(
    "layer",
    [
        *(PartialConv2d(8, 4, rest=rest) for rest in REST_KINDS),
        PartialConv2d(8, 8),
        PartialSpatialAttention(8),
        FullSpatialAttention(8),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{getattr(layer, 'rest_kind', '')}",
)
def test_layers_alone(layer: nn.Module) -> None:
    layer = randomize(layer).eval()
    x = torch.randn(2, 8, 5, 7)
    expected = layer(x)
    for how in (scripted, scripted_graph, traced):
        assert_close(how(layer, x)(x), expected)


@pytest.mark.parametrize(
    "module",
    [
        member
        for source in MODULES
        for member in vars(source).values()
        if inspect.isclass(member) and issubclass(member, nn.Module) and member.__module__ == source.__name__
    ],
    ids=lambda module: module.__name__,
)
def test_types_of_forward_are_types(module: type[nn.Module]) -> None:
    """A symbolic trace hands them to TorchScript as they are, and strings are not understood there."""
    assert vars(module)["forward"].__annotations__ == typing.get_type_hints(vars(module)["forward"])


@given(height=st.integers(1, 30), width=st.integers(1, 30))
def test_relative_positions(height: int, width: int) -> None:
    bucket_of = RelativePositionBias(1).bucket_of
    assert torch.equal(scripted_distance_buckets(height, width, bucket_of), distance_buckets(height, width))


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (2, 170), (3, 161)])
def test_relative_positions_far_apart(size: tuple[int, int]) -> None:
    bucket_of = RelativePositionBias(1).bucket_of
    assert torch.equal(scripted_distance_buckets(*size, bucket_of), distance_buckets(*size))
