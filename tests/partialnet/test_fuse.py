"""The inference form computes the same with fewer operations."""

from __future__ import annotations

import copy
import importlib
from collections import Counter

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import partialnet
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.fuse import fuse
from partialnet.layers.folding import NormBefore
from partialnet.layers.matrix_conv import MatrixConv2d
from partialnet.layers.partial_conv import REST_KINDS
from partialnet.layers.spatial_attention import FullSpatialAttention, GatedHalf, PartialSpatialAttention, Shortcut
from partialnet.models.options import attention_of
from partialnet.models.partialnet import create
from partialnet.variants import VARIANTS
from tests.partialnet.reference_state import randomize
from tests.partialnet.test_partialnet import NAMES, WIDTHS, splits
from tests.samples import examples


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(x)


def assert_same(model: nn.Module, fused: nn.Module, x: Tensor) -> None:
    expected = outputs(model.eval(), x)
    assert float(expected.std()) > 1e-3
    # relative to the size of the outputs, not to each one: single logits may lie near 0
    assert float((outputs(fused, x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_is_one_function_by_each_of_its_names() -> None:
    """The package's attribute is the function or, once something imported it, the module of that name."""
    model = randomize(timm.create_model("partialnet_micro"))
    x = torch.randn(1, 3, 16, 16)
    expected = outputs(fuse(model), x)
    assert torch.equal(outputs(partialnet.fuse(model), x), expected)
    assert torch.equal(outputs(importlib.import_module("partialnet.fuse")(model), x), expected)
    assert fuse.__module__ == "partialnet.fuse"


SHORT = (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("variant", "depths"),
    [
        *(
            pytest.param(
                name,
                VARIANTS[name].depths if name == "micro" else SHORT,
                marks=[pytest.mark.long] * (name in ("t1", "s", "m", "l")),
                id=name,
            )
            for name in VARIANTS
        ),
        *(
            pytest.param(name, VARIANTS[name].depths, marks=pytest.mark.long, id=f"{name}-deep")
            for name in ("t0", "t1")
        ),
    ],
)
def test_variants(variant: str, depths: tuple[int, ...]) -> None:
    """Wide ones are shortened, and deep ones in the sample: what is folded does not depend on how often."""
    model = randomize(timm.create_model(f"partialnet_{variant}", num_classes=10, depths=depths))
    assert_same(model, fuse(model), torch.randn(2, 3, 64, 64))


@given(active=splits())
@settings(max_examples=examples(20))
def test_any_split(active: dict[str, int]) -> None:
    model = randomize(create(Architecture("partialnet_micro", {"num_classes": 5}, active)))
    assert_same(model, fuse(model), torch.randn(2, 3, 24, 40))


@pytest.mark.parametrize(
    "options",
    [
        {"use_spatial_attn": False},
        {"rests": ("channel_attention",) * 4},
        {"rests": ("self_attention",) * 4},
        {"rests": ("identity",) * 4},
        {"num_heads": 6, "act_layer": "relu", "kernel_size": 5, "drop_path_rate": 0.2, "drop_rate": 0.1},
        {"active_channels": {f"{name}.mixer": width for name, width in zip(NAMES, WIDTHS, strict=True)}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options(options: dict) -> None:
    model = randomize(timm.create_model("partialnet_micro", num_classes=10, **options))
    fused = fuse(model)
    assert_same(model, fused, torch.randn(2, 3, 32, 32))
    norms = (nn.BatchNorm2d, nn.Dropout, DropPath, PartialSpatialAttention)
    assert not [name for name, module in fused.named_modules() if isinstance(module, norms)]
    assert not any(norm.elementwise_affine for norm in fused.modules() if isinstance(norm, nn.LayerNorm))


@given(
    rests=st.tuples(*[st.sampled_from(REST_KINDS)] * 3),
    mixers=st.tuples(*[st.sampled_from(["partial", "partial", "partial", "conv", "depthwise"])] * 3),
    full=st.sets(st.sampled_from(["channel", "spatial", "self"])),
    options=st.fixed_dictionaries({
        "use_spatial_attn": st.booleans(), "act_layer": st.sampled_from(["gelu", "relu"]),
        "kernel_size": st.sampled_from([1, 3, 5]), "num_heads": st.sampled_from([1, 2, 3]),
        "mlp_ratio": st.sampled_from([1.0, 2.0, 3.5]), "merge_strides": st.sampled_from([(1, 2), (2, 2)]),
    }),
    active=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=examples(25))
def test_any_network(
    rests: tuple[str, ...], mixers: tuple[str, ...], full: set[str], options: dict, active: list[int], seed: int
) -> None:
    """Of widths 24, 48, 96; a quarter to all of the channels are convolved."""
    kinds = {attention_of(rest) for rest, mixer in zip(rests, mixers, strict=True) if mixer == "partial"}
    full &= kinds | ({"spatial"} if options["use_spatial_attn"] else set())
    names = [f"stages.{i}.blocks.0.mixer" for i in range(3) if mixers[i] == "partial"]
    splits = {name: 6 * 2 ** int(name[7]) * (1 + active[int(name[7])]) for name in names}
    shape = {"embed_dim": 24, "depths": (1, 1, 1), "patch_size": 2, "feature_dim": 16, "num_classes": 5}
    ablation = {"rests": rests, "mixers": mixers, "full_attention": tuple(full), "drop_path_rate": 0.1}
    model = randomize(create(Architecture("partialnet_micro", {**shape, **options, **ablation}, splits)), seed)
    assert_same(model, fuse(model), torch.randn(2, 3, 18, 22))


@pytest.mark.parametrize("act_layer", ["gelu", "relu"])
@pytest.mark.parametrize("full", [(), ("spatial",)])
def test_what_ends_a_branch(act_layer: str, full: tuple[str, ...]) -> None:
    """A rectifier goes into the convolution before it; the gate of one half meets the shortcut, one of all cannot."""
    model = randomize(timm.create_model("partialnet_micro", act_layer=act_layer, full_attention=full))
    fused = fuse(model)
    assert_same(model, fused, torch.randn(2, 3, 32, 32))
    block = fused.stages[0].blocks[0]
    assert isinstance(block.mlp.fc1, MatrixConv2d)
    assert block.mlp.fc1.relu == isinstance(block.mlp.act, nn.Identity) == (act_layer == "relu")
    assert isinstance(block.join, Shortcut if full else GatedHalf)
    assert isinstance(block.mlp.spatial, FullSpatialAttention if full else nn.Identity)


def test_single_pixel_maps() -> None:
    model = randomize(timm.create_model("partialnet_micro", patch_size=4, merge_strides=(2, 2, 2)))
    assert_same(model, fuse(model), torch.randn(2, 3, 32, 32))


class Operations(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module, x: Tensor) -> Counter[str]:
    with torch.no_grad(), Operations() as mode:
        model(x)
    return mode.counts


def test_operations_that_run() -> None:
    rests = ("self_attention", "channel_attention", "channel_attention", "self_attention")
    model = randomize(timm.create_model("partialnet_micro", rests=rests, drop_path_rate=0.1, drop_rate=0.1)).eval()
    fused, x, wide = fuse(model), torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 48)

    def norms(counts: Counter[str]) -> int:
        return sum(count for name, count in counts.items() if "batch_norm" in name)

    first = operations(fused, x)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in fused.modules())
    assert norms(operations(model, x)) == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) > 0
    assert norms(first) == 0
    assert first["convolution"] <= convolutions
    assert not [name for name in first if "dropout" in name or "bernoulli" in name]
    # every layer looks its relative positions up once for a size of map
    assert first["index"] == 2
    assert operations(fused, x)["index"] == 0
    assert operations(fused, wide)["index"] == 2
    assert operations(fused, x)["index"] == operations(fused, wide)["index"] == 0


def test_leaves_the_model_alone() -> None:
    model = randomize(timm.create_model("partialnet_micro")).train()
    before = copy.deepcopy(model.state_dict())
    fused = fuse(model)
    assert model.training
    assert not fused.training
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fused.architecture() == model.architecture()


def test_twice_is_once() -> None:
    once = fuse(randomize(timm.create_model("partialnet_micro")))
    twice = fuse(once)
    x = torch.randn(2, 3, 32, 32)
    assert str(twice) == str(once)
    assert torch.equal(outputs(once, x), outputs(twice, x))


def test_gradients_pass_and_leave_no_trace() -> None:
    """Without gradients the gating works in place, with them it must not."""
    fused = fuse(randomize(timm.create_model("partialnet_micro", num_classes=4)))
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    out = fused(x)
    torch.testing.assert_close(out, outputs(fused, x), rtol=1e-5, atol=1e-6)
    out.sum().backward()
    assert float(x.grad.abs().max()) > 0
    assert all(parameter.grad is not None for parameter in fused.parameters())


def test_maps_are_channels_last() -> None:
    fused = fuse(randomize(timm.create_model("partialnet_micro")))
    seen: list[bool] = []
    for stage in fused.stages:
        stage.register_forward_hook(
            lambda _module, _inputs, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    outputs(fused, torch.randn(2, 3, 64, 64))
    assert seen == [True] * 4


def test_state_dict_round_trip() -> None:
    model = randomize(timm.create_model("partialnet_micro"))
    fused, other = fuse(model), fuse(randomize(timm.create_model("partialnet_micro"), seed=1))
    other.load_state_dict(fused.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(outputs(fused, x), outputs(other, x))


def test_a_scale_of_zero_stays_exact() -> None:
    """A gated channel that the normalisation scales to 0 still feeds the gate, so its scale must not move."""
    model = randomize(timm.create_model("partialnet_micro"))
    norm = model.get_submodule("stages.0.blocks.0.mlp.spatial.norm")
    with torch.no_grad():
        norm.weight[2] = 0
    fused = fuse(model)
    assert_same(model, fused, torch.randn(2, 3, 32, 32))
    assert [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)] == [
        "stages.0.blocks.0.join.norm"
    ]


def test_a_scale_of_zero_stays_exact_where_all_channels_are_gated() -> None:
    model = randomize(timm.create_model("partialnet_micro", full_attention=("spatial",)))
    name = "stages.1.blocks.0.mlp.spatial.norm"
    with torch.no_grad():
        model.get_submodule(name).weight[2] = 0
    fused = fuse(model)
    assert_same(model, fused, torch.randn(2, 3, 32, 32))
    assert [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)] == [name]
    assert str(fuse(fused)) == str(fused)


def test_parts_in_another_network() -> None:
    """Where nothing is known of the neighbours, only what is inside a part is folded."""

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3)
            self.norm = nn.BatchNorm2d(16)
            self.mixer = timm.create_model("partialnet_micro").stages[0].blocks[0].mixer
            self.spatial = PartialSpatialAttention(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.spatial(self.mixer(self.norm(self.stem(x))))

    model = randomize(Other())
    fused = fuse(model)
    assert_same(model, fused, torch.randn(2, 3, 12, 12))
    left = [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == ["norm", "mixer.rest.norm", "spatial.norm"]


def test_statistics_of_the_batch_cannot_be_folded() -> None:
    model = timm.create_model("partialnet_micro")
    model.patch_embed.norm = nn.BatchNorm2d(16, track_running_stats=False)
    with pytest.raises(ArchitectureError, match="running statistics"):
        fuse(model)


def test_a_padded_convolution_takes_no_shift() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def foldings(self) -> list[NormBefore]:
            return [NormBefore("norm", "conv")]

    with pytest.raises(ArchitectureError, match="pointwise"):
        fuse(Wrong())


def test_a_network_that_still_learns_its_split_is_refused() -> None:
    model = create(Architecture("partialnet_micro"), searchable=True)
    with pytest.raises(ArchitectureError, match=r"stages\.0\.blocks\.0\.mixer still learns its split.*to_fixed"):
        fuse(model)
