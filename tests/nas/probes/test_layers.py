"""The table of layers: rows sum up to the project's count, whatever is shown of the module tree."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError
from nas.probes.flops import probe_flops
from nas.probes.layers import LayerRow, LayerTable, layer_kind, probe_layers
from partialnet.architecture import Architecture
from partialnet.fuse import fuse
from partialnet.models.partialnet import PartialNet, create
from tests.nas.probes.clock import Clock

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def micro() -> PartialNet:
    torch.manual_seed(0)
    active = {"stages.0.blocks.0.mixer": 3, "stages.1.blocks.0.mixer": 32}
    return create(Architecture("partialnet_micro", {"num_classes": 10}, active)).eval()


def counts_of(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, float]:
    return {item.metric: item.value for item in probe_flops(network, shape)}


def check_sums(table: LayerTable, counted: dict[str, float]) -> None:
    assert table.macs == counted["macs"] == sum(row.macs for row in table.rows)
    assert table.params == counted["params_inference"] == sum(row.params for row in table.rows)


@pytest.fixture(scope="module")
def counted(micro) -> dict[str, float]:
    return counts_of(micro, SHAPE)


@pytest.mark.parametrize("depth", [1, *(pytest.param(depth, marks=pytest.mark.long) for depth in (3, 6)), 5, 20])
def test_rows_sum_up_to_the_count_at_every_depth(micro, counted, depth):
    check_sums(probe_layers(fuse(micro), SHAPE, depth=depth), counted)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_rows_of_other_families_sum_up_as_well(name):
    network = timm.create_model(name).eval()
    shape = (3, 224, 224) if name.startswith("vit") else (3, 64, 64)
    check_sums(probe_layers(fuse(network), shape, depth=6), counts_of(network, shape))


def test_the_training_form_has_its_own_parameters(micro):
    table = probe_layers(micro, SHAPE, depth=5)
    assert table.params == sum(parameter.numel() for parameter in micro.parameters())
    assert table.macs > probe_layers(fuse(micro), SHAPE, depth=5).macs


def test_rows(micro):
    rows = {row.layer: row for row in probe_layers(fuse(micro), SHAPE, depth=5).rows}
    mixer = rows["stages.0.blocks.0.mixer"]
    assert mixer[:5] == ("stages.0.blocks.0.mixer", "PartialConv2d 3x3 + channel attention", 16, 3, (16, 16, 16))
    # the convolution of 3 channels, the channels' statistics and their 13 gates from 26 numbers
    assert mixer.macs >= 9 * 3 * 3 * 256 + 13 * 26
    whole = rows["stages.1.blocks.0.mixer"]
    assert (whole.kind, whole.channels, whole.active_channels) == ("PartialConv2d 3x3 + channel attention", 32, 32)
    assert rows["patch_embed.proj"].kind == "Conv2d 2x2 /2"
    assert rows["classifier"] == LayerRow("classifier", "Linear", 10, None, (10,), 1280, 1290)
    assert not any("drop" in name for name in rows)


def test_what_a_container_computes_itself_has_a_row(micro):
    rows = probe_layers(fuse(micro), SHAPE, depth=20).rows
    [attention] = [row for row in rows if row.layer == "stages.3.blocks.0.mixer.rest"]
    assert attention.kind == "SelfAttentionRest, itself"
    assert attention.macs == 2 * (4 * 4) ** 2 * 96
    assert rows.index(attention) < [row.layer for row in rows].index("stages.3.blocks.0.mixer.rest.qkv")


def test_maps_with_channels_at_the_end():
    table = probe_layers(timm.create_model("swin_tiny_patch4_window7_224").eval(), (3, 224, 224), depth=3)
    rows = {row.layer: row for row in table.rows}
    assert rows["layers.0.blocks"].output == (56, 56, 96)
    assert rows["layers.0.blocks"].channels == 96


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Conv2d(4, 8, (1, 3)), "Conv2d 1x3"),
        (nn.Conv2d(8, 8, 3, 2, groups=8), "Conv2d 3x3 /2 depthwise"),
        (nn.Conv2d(8, 8, 3, groups=2), "Conv2d 3x3 in 2 groups"),
        (nn.GELU(), "GELU"),
    ],
)
def test_kinds(module, kind):
    assert layer_kind(module) == kind


class Pause(nn.Module):
    def __init__(self, clock: Clock, ms: float) -> None:
        super().__init__()
        self.clock, self.ms = clock, ms

    def forward(self, x):
        self.clock.advance(self.ms)
        return x + 1


class Slow(nn.Module):
    """Two layers, the first one called twice, and a pause between them that belongs to none."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.first, self.last = Pause(clock, 4), Pause(clock, 40)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.first(self.first(x))
        self.clock.advance(6)
        return self.last(x)


def test_times_belong_to_their_layers(clock):
    spec = LatencySpec(n=10, warmup=1, batch=2)
    table = probe_layers(Slow(clock).eval(), (1, 4, 4), depth=1, spec=spec)
    rows = {row.layer: row for row in table.rows}
    assert {name: row.time_ms for name, row in rows.items()} == {"first": 8.0, "last": 40.0, "unused": None}
    times = table.times
    assert times is not None
    assert (times.n, times.clocked_ms, times.between_ms) == (10, 54.0, 6.0)
    assert (times.plain_ms, times.plain_interval) == (54.0, (54.0, 54.0))
    assert "/b2/1x4x4/" in times.fingerprint
    assert [table.share(rows[name]) for name in ("first", "last", "unused")] == [8 / 54, 40 / 54, None]


def test_no_hook_is_left_behind(micro):
    network = fuse(micro)
    probe_layers(network, SHAPE, depth=5, spec=LatencySpec(n=10, warmup=1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_an_image_that_does_not_fit():
    with pytest.raises(InputError, match="SwinTransformer cannot process an image of 3x160x160: Input height"):
        probe_layers(timm.create_model("swin_tiny_patch4_window7_224").eval(), (3, 160, 160), depth=1)
