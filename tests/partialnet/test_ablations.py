"""The papers' ablations as options of one constructor: counts as published, and every form works."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.dpconv import dpconv_layers
from partialnet.models.partialnet import PartialNet, create
from partialnet.search.cost import layer_costs
from partialnet.search.operations import macs_by_module
from partialnet.variants import VARIANTS
from tests.partialnet.reference_state import randomize
from tests.partialnet.searchable import scramble

CHANNEL = "channel_attention"


def first_three(rest: str) -> tuple[str, ...]:
    return (rest,) * 3 + ("self_attention",)


# of T2: options, millions of parameters to the digits published and counted, G multiply-adds where they are known
PUBLISHED: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "no_PAT_sp_no_PAT_sf": ({"rests": (CHANNEL,) * 4, "use_spatial_attn": False}, 11.090, 0.917),
    "no_PAT_sf": ({"rests": (CHANNEL,) * 4}, 11.471, None),
    "all": ({}, 12.650, None),
    "depths_2_2_8_2": ({"depths": (2, 2, 8, 2)}, 9.721, 0.981),
    "full_channel": ({"full_attention": ("channel",)}, 13.032, 1.043),
    "full_spatial": ({"full_attention": ("spatial",)}, 12.652, 1.042),
    "full_self": ({"full_attention": ("self",)}, 14.487, 1.134),
    "regular": ({"mixers": ("conv",) * 3 + ("partial",)}, 15.820, 2.124),
    "se": ({"rests": first_three("se_attention")}, 12.283, 1.041),
    "srm": ({"rests": first_three("srm_attention")}, 12.165, None),
}
# what the table has no figures for, or only an unknown width
OTHERS: dict[str, dict[str, Any]] = {
    "depthwise": {"mixers": ("depthwise",) * 3 + ("partial",), "embed_dim": 24},
    "pconv": {"rests": ("identity",) * 4},
    "pconv_then_PAT_sf": {"rests": first_three("identity")},
    "no_PAT_ch_no_PAT_sp": {"rests": first_three("identity"), "use_spatial_attn": False},
    "full_all": {"full_attention": ("self", "spatial", "channel")},
    "full_se": {"rests": first_three("se_attention"), "full_attention": ("channel",)},
    "no_convolution_is_partial": {"mixers": ("depthwise", "conv", "conv", "depthwise")},
    "two_heads": {"num_heads": 2},
    "five_by_five": {"kernel_size": 5, "mixers": ("conv", "depthwise", "partial", "partial")},
    "relu": {"act_layer": "relu"},
}
OPTIONS = {**{name: options for name, (options, _, _) in PUBLISHED.items()}, **OTHERS}


def micro(name: str, **options: Any) -> PartialNet:
    torch.manual_seed(0)
    return timm.create_model("partialnet_micro", num_classes=5, **{"depths": (1,) * 4, **OPTIONS[name], **options})


def published(name: str) -> PartialNet:
    with torch.device("meta"):  # of which no value matters
        return timm.create_model("partialnet_t2", **PUBLISHED[name][0]).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    assert round(sum(parameter.numel() for parameter in published(name).parameters()) / 1e6, 3) == PUBLISHED[name][1]


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("no_PAT_sp_no_PAT_sf", "full_self", "regular") else pytest.param(name, marks=pytest.mark.long)
        for name, (_, _, giga) in PUBLISHED.items()
        if giga is not None
    ],
)
def test_multiply_adds_are_those_published(name: str) -> None:
    """In the reading that leaves out PAT_sp's convolution and nothing else."""
    options, _, giga = PUBLISHED[name]
    counts = macs_by_module(published(name).to_empty(device="cpu"), (3, 224, 224))
    left_out = sum(count for module, count in counts.items() if module.endswith("mlp.spatial.conv"))
    assert left_out > 0 or not options.get("use_spatial_attn", True)
    assert (counts[""] - left_out) / 1e9 == pytest.approx(giga, rel=0.005)


@pytest.mark.parametrize("name", OPTIONS)
def test_training_reaches_every_parameter(name: str) -> None:
    model = randomize(micro(name)).train()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", OPTIONS)
def test_inference_form_is_the_same_function_without_norms(name: str) -> None:
    model = randomize(micro(name, drop_path_rate=0.1, drop_rate=0.1)).eval()
    fused = fuse(model)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        assert float((fused(x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    left = [key for key, module in fused.named_modules() if isinstance(module, (nn.BatchNorm2d, nn.Dropout, DropPath))]
    assert left == []
    assert not any(norm.elementwise_affine for norm in fused.modules() if isinstance(norm, nn.LayerNorm))


@pytest.mark.parametrize("name", ["full_channel", "full_self", "full_all", "full_se", "se", "srm", "five_by_five"])
def test_searched_form_is_exported_and_counted(name: str) -> None:
    model = micro(name, searchable=True, embed_dim=8)
    scramble(model)
    layers = dpconv_layers(model)
    partial = [mixer for mixer in model.architecture().active_channels if mixer in layers]
    assert partial == list(model.architecture().active_channels)
    for layer in layers.values():
        layer.set_active_channels(layer.levels[-2])
    fixed = to_fixed(model)  # compares the outputs of both
    assert isinstance(fixed, PartialNet)
    assert fixed.architecture() == model.architecture()
    if name in ("full_all", "srm"):
        table = layer_costs(model, (3, 16, 16), "macs", "network")
        counted = macs_by_module(fuse(fixed), (3, 16, 16))
        assert table.total([len(row) - 2 for row in table.levels]) == pytest.approx(counted[""], rel=1e-3)


@pytest.mark.parametrize("name", OPTIONS)
def test_architecture_describes_it(name: str) -> None:
    model = micro(name)
    architecture = model.architecture()
    again = create(Architecture.from_dict(architecture.to_dict()))
    again.load_state_dict(model.state_dict(), strict=True)
    assert again.architecture() == architecture
    assert ("mixers" in architecture.options) == ("mixers" in OPTIONS[name])
    assert ("full_attention" in architecture.options) == ("full_attention" in OPTIONS[name])


def test_mixers_that_convolve_all_channels_have_no_split() -> None:
    model = micro("regular")
    assert list(model.architecture().active_channels) == ["stages.3.blocks.0.mixer"]
    assert isinstance(model.get_submodule("stages.0.blocks.0.mixer"), nn.Conv2d)
    with torch.no_grad():
        block = model.stages[0].blocks[0].eval()
        x = torch.randn(1, 16, 4, 4)
        assert torch.equal(block(x), x + block.mlp(block.mixer(x)))


def test_full_attention_acts_on_the_convolved_channels_too() -> None:
    """A change of a convolved channel's scale changes the gates of the others only where attention is full."""
    x = torch.randn(2, 16, 6, 6)
    for name, expected in (("all", False), ("full_channel", True)):
        block = randomize(micro(name)).stages[0].blocks[0].eval()

        def mixed(inputs: torch.Tensor, block: nn.Module = block) -> torch.Tensor:
            out = block.mixer(inputs)
            return out if block.attention is None else block.attention(out)

        changed = x.clone()
        changed[:, 0] += 1
        with torch.no_grad():
            assert bool((mixed(changed) != mixed(x))[:, 4:].any()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixers": ("conv",)}, r"mixers is \['conv'\], but must have 4 entries for 4 stages"),
        ({"mixers": ("dense",) * 4}, r"mixers has 'dense', but entries must be one of partial, conv, depthwise"),
        ({"full_attention": ("time",)}, r"full_attention has 'time', but .* one of channel, spatial, self"),
        ({"full_attention": ("spatial",), "use_spatial_attn": False}, r"'spatial', but no block .* has spatial att"),
        ({"full_attention": ("channel",), "mixers": ("conv",) * 3 + ("partial",)}, r"'channel', but no block"),
        ({"full_attention": ("self",), "rests": (CHANNEL,) * 4}, r"'self', but no block"),
        ({"full_attention": ("self",), "num_heads": 3}, r"stages\.3\.blocks\.0\.mixer: self-attention over 128 chann"),
        ({"mixers": ("conv",) * 4, "kernel_size": 2}, r"stages\.0\.blocks\.0\.mixer: kernel_size is 2"),
        (
            {"mixers": ("conv",) * 4, "active_channels": {"stages.0.blocks.0.mixer": 4}},
            r"stages\.0\.blocks\.0\.mixer: active_channels is 4, but a mixer 'conv' convolves all channels",
        ),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        timm.create_model("partialnet_micro", **options)


class TestPatnet:
    """The second paper's names."""

    def test_registered(self) -> None:
        assert timm.list_models("patnet_*") == sorted(f"patnet_{variant}" for variant in VARIANTS if variant != "micro")
        assert timm.get_pretrained_cfg("patnet_t0").input_size == (3, 224, 224)

    @pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "micro"])
    def test_are_the_same_networks(self, variant: str) -> None:
        with torch.device("meta"):
            model = timm.create_model(f"patnet_{variant}", num_classes=3)
            same = timm.create_model(f"partialnet_{variant}", num_classes=3)
        assert model.architecture() == same.architecture()
        assert [(key, value.shape) for key, value in model.state_dict().items()] == [
            (key, value.shape) for key, value in same.state_dict().items()
        ]

    def test_architectures_by_these_names_are_built(self) -> None:
        options = {"depths": [1, 1, 1, 1], "num_classes": 2}
        assert create(Architecture("patnet_t0", options)).architecture().model == "partialnet_t0"
