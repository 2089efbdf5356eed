"""Partial convolutions in networks of other families: what is replaced, what stays and why, and that all else works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune
from torchvision.models.resnet import Bottleneck

from partialnet.errors import ArchitectureError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.layers.partial_conv import REST_KINDS, PartialConv2d
from partialnet.retrofit import Conversion, convert_to_patconv
from partialnet.search.budget import Budget
from partialnet.search.cost import layer_costs
from partialnet.search.learn_split import learn_split
from partialnet.search.levels import uniform_active_channels
from partialnet.search.operations import macs_by_module
from partialnet.search.result import SplitResult
from tests.partialnet.reference_state import randomize
from tests.partialnet.searchable import scramble
from tests.samples import sampled

# per network: how many convolutions are replaced, how many there are; parameters before and after, at a quarter
NETWORKS = {
    "timm_resnet50": (lambda: timm.create_model("resnet50"), 13, 53, 25_557_032, 18_886_376),
    "torchvision_resnet50": (torchvision.models.resnet50, 13, 53, 25_557_032, 18_886_376),
    "timm_mobilenetv2": (lambda: timm.create_model("mobilenetv2_100"), 13, 52, 3_504_872, 10_409_912),
    "torchvision_mobilenetv2": (torchvision.models.mobilenet_v2, 13, 52, 3_504_872, 10_409_912),
    "timm_convnext_tiny": (lambda: timm.create_model("convnext_tiny"), 18, 22, 28_589_128, 41_823_592),
    "torchvision_convnext_tiny": (torchvision.models.convnext_tiny, 18, 22, 28_589_128, 41_823_592),
}


SMALL: dict[str, Callable[[], nn.Module]] = {
    "small_resnet": lambda: timm.create_model("resnet50", layers=(1, 1, 1, 1), channels=(16, 16, 32, 32)),
    "small_mobilenetv2": lambda: timm.create_model("mobilenetv2_035"),
    "small_convnext": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1)),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def resnet(channels: tuple[int, ...] = (16, 16, 32, 32), **options: Any) -> nn.Module:
    """Return a ResNet-18 narrow enough for a test, its norms scrambled."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("resnet18", channels=channels, num_classes=4, **options)
    scramble(model)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("timm_resnet50", "torchvision_mobilenetv2", "timm_convnext_tiny")
        else pytest.param(name, marks=pytest.mark.long)
        for name in NETWORKS
    ],
)
def test_networks_of_the_papers(name: str) -> None:
    build, replaced, total, before, after = NETWORKS[name]
    with torch.device("meta"):  # of which no value matters
        model = build().eval()
        converted, report = convert_to_patconv(model)
    assert (len(report.replaced), len(report.rows)) == (replaced, total)
    assert (parameters(model), parameters(converted)) == (before, after)
    growth = 0
    for row in report.replaced:
        conv, layer = model.get_submodule(row.name), converted.get_submodule(row.name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(layer, PartialConv2d)
        assert layer.kernel_size == conv.kernel_size[0]
        assert layer.active_channels == row.active_channels == conv.in_channels // 4
        assert not layer.training
        n, left = layer.active_channels, layer.channels - layer.active_channels
        growth += layer.kernel_size**2 * n**2 + 2 * left**2 + 4 * left - parameters(conv)
    assert after - before == growth
    for row in report.left:
        assert isinstance(converted.get_submodule(row.name), nn.Conv2d)
    with torch.no_grad():
        assert converted(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_report_says_why_what_stays_stays() -> None:
    model = resnet()
    before = copy.deepcopy(model.state_dict())
    converted, report = convert_to_patconv(model)
    rows = {row.name: row for row in report.rows}
    assert rows["conv1"].reason == "the width changes"
    assert rows["conv1"].was == "7x7 stride 2, 3 to 64 channels"
    assert rows["layer2.0.conv1"].reason == "stride 2"
    assert rows["layer3.0.downsample.0"].reason == "1x1 kernel, mixes no space"
    assert rows["layer1.0.conv2"].was == "3x3, 16 channels"
    assert rows["layer1.0.conv2"].became == "PartialConv2d(16, active_channels=4, rest='channel_attention')"
    assert report.active_channels == uniform_active_channels(converted, 0.25)
    lines = str(report).splitlines()
    assert lines[-1] == f"{len(report.replaced)} of {len(report.rows)} convolutions replaced; " + (
        "4 with a 1x1 kernel are not listed"
    )
    assert len(lines) == 1 + len(report.rows) - 4 + 1
    assert any(line.startswith("layer2.0.conv1 ") and line.endswith("left: stride 2") for line in lines)
    # the model itself is as it was
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(isinstance(module, PartialConv2d) for module in model.modules())


@pytest.mark.parametrize(("rest", "searchable"), sampled(REST_KINDS, [False, True]))
def test_rest_and_kind_of_layer(rest: Any, searchable: bool) -> None:
    converted, report = convert_to_patconv(resnet(), 0.5, searchable=searchable, rest=rest, num_heads=2)
    for row in report.replaced:
        layer = converted.get_submodule(row.name)
        assert isinstance(layer, DPConv2d if searchable else PartialConv2d)
        assert layer.rest_kind == rest
        assert layer.num_heads == 2
        assert layer.active_channels * 2 == layer.channels
    assert converted(torch.randn(2, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "searchable"), sampled(["resnet18", "mobilenetv2_035", "convnext_atto"], [False, True])
)
def test_all_channels_convolved_is_the_network_it_was(name: str, searchable: bool) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).eval()
    converted, report = convert_to_patconv(model, 1.0, searchable=searchable)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)  # timm starts biases at 0, so that ConvNeXt's are no loss here
        torch.testing.assert_close(converted(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert ("bias left out" in str(report)) == (name == "convnext_atto")


def test_kept_weights_are_the_corner_and_the_diagonal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 5, padding="same", groups=8))
    dense, depthwise = model[0].weight, model[1].weight
    converted, _ = convert_to_patconv(model, 0.5)
    assert torch.equal(converted[0].conv.weight, dense[:4, :4])
    for i in range(4):
        for j in range(4):
            expected = depthwise[i, 0] if i == j else torch.zeros(5, 5)
            assert torch.equal(converted[1].conv.weight[i, j], expected)
    fresh, _ = convert_to_patconv(model, 0.5, keep_weights=False)
    assert not torch.equal(fresh[0].conv.weight, dense[:4, :4])
    assert fresh[1].conv.weight.count_nonzero() == 4 * 4 * 25


def test_device_precision_and_mode_are_kept() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, dtype=torch.bfloat16), nn.ReLU()).eval()
    layer = convert_to_patconv(model)[0][0]
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.bfloat16}
    assert not layer.training
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    assert {parameter.device.type for parameter in convert_to_patconv(model)[0].parameters()} == {"meta"}


def test_a_convolution_itself() -> None:
    layer, report = convert_to_patconv(nn.Conv2d(8, 8, 3, padding=1), 0.5)
    assert isinstance(layer, PartialConv2d)
    assert report.active_channels == {"": 4}


class TestWhatStays:
    """Each beside one convolution that is replaced."""

    @staticmethod
    def reason(*modules: nn.Module) -> str | None:
        converted, report = convert_to_patconv(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), *modules))
        assert [row.name for row in report.replaced] == ["0"]
        assert all(type(a) is type(b) for a, b in zip(list(converted)[1:], modules, strict=True))
        return report.rows[1].reason

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"stride": 2}, "stride 2"),
            ({"stride": (1, 2)}, "stride 1x2"),
            ({"dilation": 2, "padding": 2}, "dilation 2"),
            ({"groups": 2}, "2 groups, neither dense nor depthwise"),
            ({"kernel_size": (3, 1)}, "the kernel is not odd and square"),
            ({"kernel_size": 4}, "the kernel is not odd and square"),
            ({"kernel_size": 1, "padding": 0}, "1x1 kernel, mixes no space"),
            ({"padding": 0}, "padding (0, 0) changes the map's size"),
            ({"padding": "valid"}, "padding valid changes the map's size"),
            ({"padding_mode": "reflect"}, "padding mode reflect"),
            ({"out_channels": 16}, "the width changes"),
            ({"groups": 8, "out_channels": 16}, "the width changes"),
        ],
    )
    def test_shapes(self, options: dict, reason: str) -> None:
        conv = nn.Conv2d(**{"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 1, **options})
        assert self.reason(conv) == reason

    @pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
    def test_other_kinds_of_convolution(self) -> None:
        assert self.reason(nn.ConvTranspose2d(8, 8, 3, padding=1)) == "a ConvTranspose2d, not a plain Conv2d"
        assert self.reason(timm.layers.Conv2dSame(8, 8, 3)) == "a Conv2dSame, not a plain Conv2d"
        assert self.reason(nn.LazyConv2d(8, 3)) == "a LazyConv2d, not a plain Conv2d"
        quantised = torch.ao.nn.quantized.Conv2d(8, 8, 3, padding=1)
        assert self.reason(quantised) == "quantised"

    def test_computed_weights(self) -> None:
        conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        assert self.reason(conv) == "its weight is computed (parametrised, normalised or pruned)"
        conv = nn.Conv2d(8, 8, 3, padding=1)
        prune.identity(conv, "weight")
        with torch.no_grad():
            conv(torch.zeros(1, 8, 4, 4))  # the pruned weight is a leaf now, and can be copied
        assert self.reason(conv) == "its weight is computed (parametrised, normalised or pruned)"

    @pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
    def test_weights_computed_by_hooks_cannot_be_copied(self) -> None:
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))
        with pytest.raises(ArchitectureError, match=r"Sequential cannot be copied: .*nn\.utils\.parametrizations"):
            convert_to_patconv(model)

    def test_hooks(self) -> None:
        conv = nn.Conv2d(8, 8, 3, padding=1)
        conv.register_forward_hook(lambda *_: None)
        assert self.reason(conv) == "has hooks, which would be lost"

    def test_one_module_at_two_places(self) -> None:
        conv = nn.Conv2d(8, 8, 3, padding=1)
        assert self.reason(conv, conv) == "the same module occurs at 2 places"
        block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
        assert self.reason(block, block) == "the same module occurs at 2 places"

    def test_one_weight_in_two_modules(self) -> None:
        first, second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        second.weight = first.weight
        assert self.reason(first, second) == "shares its weight with another module"

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
    def test_compiled_modules(self) -> None:
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)))
        _, report = convert_to_patconv(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), scripted))
        assert report.rows[1].reason == "inside a compiled module (torch.jit)"

    def test_layers_of_this_package(self) -> None:
        assert self.reason(PartialConv2d(8, 2)) == "part of a PartialConv2d"
        assert self.reason(DPConv2d(8)) == "part of a DPConv2d"

    def test_widths_that_cannot_be_split(self) -> None:
        model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(7, 7, 3, padding=1))
        _, report = convert_to_patconv(model, searchable=True)
        assert report.rows[1].reason == "a width of 7 channels cannot be split by halving; take a multiple of 2"
        assert convert_to_patconv(model)[1].active_channels == {"0": 2, "1": 2}
        narrow = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
        _, report = convert_to_patconv(narrow)
        assert report.rows[1].reason == "a ratio of 0.25 would be 0.5 of 2 channels, but must be near one of 1, 2"

    def test_a_second_conversion_finds_nothing(self) -> None:
        converted, _ = convert_to_patconv(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)))
        with pytest.raises(ArchitectureError, match=r"no convolution .* can replace: .*part of a PartialConv2d"):
            convert_to_patconv(converted)


class TestChoice:
    MODEL = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1, stride=stride) for stride in (1, 1, 2)))

    def test_active_channels_take_precedence(self) -> None:
        assert convert_to_patconv(self.MODEL, active_channels={"1": 5})[1].active_channels == {"0": 4, "1": 5}

    def test_ratios_by_name_leave_the_others(self) -> None:
        _, report = convert_to_patconv(self.MODEL, {"1": 0.5})
        assert report.active_channels == {"1": 8}
        assert report.rows[0].reason == "not named"
        assert convert_to_patconv(self.MODEL, {}, active_channels={"0": 16})[1].active_channels == {"0": 16}

    def test_levels_of_searchable_layers(self) -> None:
        converted, _ = convert_to_patconv(self.MODEL, 0.5, searchable=True, min_channels=4)
        assert dpconv_layers(converted)["0"].levels == (4, 8, 16)
        assert dpconv_layers(converted)["0"].active_channels == 8

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ratio": 0.0}, r"ratio is 0\.0, but must be in \(0, 1\]"),
            ({"ratio": {"1": 1.5}}, r"1: ratio is 1\.5"),
            ({"ratio": {"2": 0.5}}, r"2: cannot be replaced: stride 2 \(3x3 stride 2, 16 channels\)"),
            ({"active_channels": {"1": 17}}, r"1: cannot be replaced: active_channels is 17, .* 1 to 16"),
            ({"active_channels": {"1": 3}, "searchable": True}, r"1: .* 3, but must be one of 1, 2, 4, 8, 16"),
            ({"active_channels": {"9": 4}}, r"no convolutions: 9; the network has 0 \(3x3, 16 channels\)"),
            ({"ratio": {"1": 0.5}, "active_channels": {"1": 4}}, r"both ratio and active_channels name 1"),
            ({"rest": "se"}, r"rest is 'se'"),
            ({"min_channels": 4}, r"min_channels is 4, but only searchable layers have levels"),
        ],
    )
    def test_refusals(self, options: dict, message: str) -> None:
        with pytest.raises(ArchitectureError, match=message):
            convert_to_patconv(self.MODEL, **options)

    def test_nothing_to_replace(self) -> None:
        with pytest.raises(ArchitectureError, match=r"Sequential contains no convolution .*: it has none"):
            convert_to_patconv(nn.Sequential(nn.Linear(4, 4)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        *(pytest.param(build, id=name) for name, build in SMALL.items()),
        *(
            pytest.param(build, id=name, marks=pytest.mark.long)
            for name, (build, *_) in NETWORKS.items()
            if not name.startswith("torchvision_conv")
        ),
    ],
)
def test_inference_form_of_converted_networks(build: Callable[[], nn.Module]) -> None:
    """What gates see is normalised within our layers, so that goes; the networks' own norms are not ours to fold."""
    converted, report = convert_to_patconv(build(), 0.25)
    model = randomize(converted).eval()
    fused = fuse(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        assert float(expected.std()) > 1e-3
        assert float((fused(x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    folded = {f"{row.name}.rest.attention.norm" for row in report.replaced}

    def norms(network: nn.Module) -> set[str]:
        return {key for key, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}

    assert folded < norms(model)
    assert norms(fused) == norms(model) - folded


def assert_costs_are_those_of_the_exported_network(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Compare both scopes with what fvcore counts on the fixed network."""
    fixed = fuse(to_fixed(model, input_shape=shape))
    counted = macs_by_module(fixed, shape)
    layers = dpconv_layers(model)
    for scope in ("conv", "network"):
        table = layer_costs(model, shape, "macs", scope)  # type: ignore[arg-type]
        chosen = [layers[name].level for name in table.names]
        for name, row, level in zip(table.names, table.costs, chosen, strict=True):
            assert row[level] == counted[f"{name}.conv" if scope == "conv" else name]
        if scope == "network":
            assert table.total(chosen) == pytest.approx(counted[""], rel=1e-3)


@pytest.mark.parametrize(
    "blocks", [(1, 1, 1, 1), pytest.param((3, 4, 6, 3), marks=pytest.mark.long)], ids=["short", "whole"]
)
def test_converted_resnet50_is_exported_and_counted(blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    resnet50 = torchvision.models.ResNet(Bottleneck, list(blocks), num_classes=4)
    model, report = convert_to_patconv(resnet50, searchable=True, min_channels=16)
    assert isinstance(report, Conversion)
    scramble(model)
    assert_costs_are_those_of_the_exported_network(model.eval(), (3, 32, 32))


def learn(model: nn.Module, budget: Budget, method: Any = "gates") -> SplitResult:
    torch.manual_seed(0)
    batches = [(torch.randn(4, *budget.input_shape), torch.randint(4, (4,))) for _ in range(2)]
    validation = batches if method == "supernet" else None
    return learn_split(
        model, batches, nn.functional.cross_entropy, budget, method=method, steps=8, validation=validation
    )


@pytest.mark.parametrize("scope", ["conv", "network"])
def test_a_split_is_learned_in_a_converted_resnet(scope: Any) -> None:
    shape = (3, 32, 32)
    short = resnet((16, 32, 32, 32), layers=(1, 1, 1, 1))
    short.layer3, short.layer4 = nn.Identity(), nn.Identity()  # they would be two more of the same
    model, report = convert_to_patconv(short, searchable=True)
    table = layer_costs(model, shape, "macs", scope)
    target = table.minimum + (table.maximum - table.minimum) / 4
    result = learn(model, Budget("macs", scope, target, shape))
    assert result.within_budget
    assert set(result.active_channels) == set(report.active_channels)
    fixed = {name: module for name, module in result.fixed.named_modules() if isinstance(module, PartialConv2d)}
    assert {name: layer.active_channels for name, layer in fixed.items()} == result.active_channels
    assert_costs_are_those_of_the_exported_network(model, shape)


@pytest.mark.parametrize("method", ["gates", "fractional", "supernet"])
def test_a_split_is_learned_in_a_network_of_ones_own(method: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1),
        nn.Sequential(DPConv2d(8, rest="channel_attention"), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Conv2d(8, 12, 1),
        DPConv2d(12, 5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    result = learn(model, Budget.from_b(2, input_shape=(1, 8, 8)), method)
    assert set(result.active_channels) == {"1.0", "3"}
    assert result.within_budget == (result.note is None)
    assert_costs_are_those_of_the_exported_network(model, (1, 8, 8))
