"""The network family: variants, options, timm's interface, architectures as data, and what it refuses."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.models.partialnet import PartialNet, create
from partialnet.variants import VARIANTS, model_name
from tests.partialnet.reference_state import randomize
from tests.samples import examples

PARAMETERS = {
    "t0": 4_292_072,
    "t1": 7_793_328,
    "t2": 12_650_424,
    "s": 28_975_704,
    "m": 61_366_776,
    "l": 104_465_336,
}


WIDTHS = (16, 32, 64, 64, 128)
NAMES = ("stages.0.blocks.0", "stages.1.blocks.0", "stages.2.blocks.0", "stages.2.blocks.1", "stages.3.blocks.0")


def micro(**options) -> PartialNet:
    options = {"num_classes": 10, **options}
    return timm.create_model("partialnet_micro", **options)


def meta(variant: str, **options) -> PartialNet:
    with torch.device("meta"):
        return timm.create_model(model_name(variant), **options)


def mixers(model: nn.Module) -> dict[str, PartialConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PartialConv2d)}


class TestVariants:
    @pytest.mark.parametrize(("variant", "expected"), PARAMETERS.items())
    def test_parameters(self, variant: str, expected: int) -> None:
        assert sum(parameter.numel() for parameter in meta(variant).parameters()) == expected

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_a_quarter_is_convolved(self, variant: str) -> None:
        layers = mixers(meta(variant))
        assert len(layers) == sum(VARIANTS[variant].depths)
        assert all(4 * layer.active_channels == layer.channels for layer in layers.values())

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_stochastic_depth_grows_to_the_variants_rate(self, variant: str) -> None:
        blocks = [block for stage in meta(variant).stages for block in stage.blocks]
        rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
        assert rates == sorted(rates)
        assert rates[0] == 0
        assert rates[-1] == pytest.approx(VARIANTS[variant].drop_path_rate)

    def test_every_variant_is_registered(self) -> None:
        assert timm.list_models("partialnet_*") == sorted(model_name(variant) for variant in VARIANTS)


class TestInit:
    def test_weights(self) -> None:
        model = micro()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                assert float(module.weight.detach().abs().max()) <= 0.1
                assert module.bias is None or not module.bias.any()
                if module.weight.numel() > 1000:
                    assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        tables = [value for name, value in model.named_parameters() if name.endswith("position.table")]
        assert len(tables) == 1
        assert not tables[0].any()

    def test_training_reaches_every_parameter(self) -> None:
        model = randomize(micro()).train()
        model(torch.randn(4, 3, 16, 16)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            if not name.endswith("position.table"):
                assert parameter.grad.any(), name


class TestInterface:
    def test_features_then_head(self) -> None:
        model = randomize(micro()).eval()
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            features = model.forward_features(x)
            hidden = model.forward_head(features, pre_logits=True)
            assert features.shape == (2, model.num_features, 4, 4)
            assert hidden.shape == (2, model.head_hidden_size)
            torch.testing.assert_close(model.get_classifier()(hidden), model(x))

    def test_reset_classifier(self) -> None:
        model = micro().eval()
        model.reset_classifier(3)
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)
        assert model.architecture().options["num_classes"] == 3
        model.reset_classifier(0)
        assert isinstance(model.get_classifier(), nn.Identity)
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, model.head_hidden_size)
        model.reset_classifier(0, "")
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, model.head_hidden_size, 2, 2)

    def test_created_without_classifier(self) -> None:
        assert micro(num_classes=0)(torch.randn(2, 3, 16, 16)).shape == (2, 128)

    def test_features_only(self) -> None:
        model = micro(features_only=True).eval()
        maps = model(torch.randn(2, 3, 32, 32))
        assert [tuple(x.shape[1:]) for x in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 4, 4)]
        assert model.feature_info.channels() == [16, 32, 64, 128]
        assert model.feature_info.reduction() == [2, 4, 8, 8]

    def test_forward_intermediates(self) -> None:
        model = randomize(micro()).eval()
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            last, maps = model.forward_intermediates(x, indices=[0, 3])
            assert [tuple(y.shape[1:]) for y in maps] == [(16, 16, 16), (128, 4, 4)]
            torch.testing.assert_close(last, model.forward_features(x))
            (only,) = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
        assert only.shape == (2, 32, 8, 8)
        with pytest.raises(ArchitectureError, match="'NLC'"):
            model.forward_intermediates(x, output_fmt="NLC")

    def test_prune_intermediate_layers(self) -> None:
        model = micro().eval()
        model.prune_intermediate_layers([0, 1])
        assert len(model.stages) == 2
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, 32, 4, 4)
        with pytest.raises(ArchitectureError, match="pruned"):
            model.architecture()

    def test_no_weight_decay(self) -> None:
        model = micro()
        assert model.no_weight_decay() == {"stages.3.blocks.0.mixer.rest.position.table"}
        exempt, decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
        assert exempt["weight_decay"] == 0
        assert all(parameter.dim() > 1 for parameter in decayed["params"])

    def test_group_matcher_orders_layers_by_depth(self) -> None:
        model = micro()
        groups = param_groups_layer_decay(model, layer_decay=0.5)
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
        scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
        path = ("patch_embed.proj", *(f"{name}.mlp.fc1" for name in (NAMES[0], *NAMES[2:])), "classifier")
        depths = [scale[id(model.get_submodule(name).weight)] for name in path]
        assert depths == sorted(depths)
        assert depths[-1] == 1
        assert len(set(depths)) == len(depths)
        assert set(model.group_matcher(coarse=True)) == {"stem", "blocks"}

    def test_grad_checkpointing_changes_nothing(self) -> None:
        model = randomize(micro(attn_drop_rate=0.0)).train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        x = torch.randn(4, 3, 16, 16)
        gradients = []
        for enable in (False, True):
            model.set_grad_checkpointing(enable)
            assert all(stage.grad_checkpointing is enable for stage in model.stages)
            model.zero_grad()
            model(x).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        for plain, recomputed in zip(*gradients, strict=True):
            torch.testing.assert_close(recomputed, plain)

    def test_half_and_mixed_precision(self) -> None:
        model = randomize(micro()).eval()
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            expected = model(x)
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(model(x).float(), expected, rtol=0.1, atol=0.05)
            torch.testing.assert_close(model.bfloat16()(x.bfloat16()).float(), expected, rtol=0.1, atol=0.1)

    @pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
    def test_traced_network_equals_it(self) -> None:
        rests = ("channel_attention", "self_attention")
        model = randomize(micro(depths=(1, 1), merge_strides=(2,), rests=rests)).eval()
        x = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            exported = torch.export.export(model, (x,)).module()
            torch.testing.assert_close(exported(x), model(x), rtol=0, atol=1e-6)
            torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x), rtol=0, atol=1e-6)

    def test_pickles(self) -> None:
        model = randomize(micro()).eval()
        x = torch.randn(1, 3, 16, 16)
        with torch.no_grad():
            expected = model(x)
            torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), expected)


class TestMaps:
    @pytest.mark.parametrize(("patch_size", "merge_strides", "size"), [(1, (2, 2, 1), 8), (2, (2, 2, 1), 16)])
    def test_small_images_have_a_last_stage(self, patch_size: int, merge_strides: tuple[int, ...], size: int) -> None:
        model = micro(patch_size=patch_size, merge_strides=merge_strides)
        assert model.map_sizes(size, size)[-1] == (2, 2)
        assert [info["reduction"] for info in model.feature_info][-1] == size // 2

    @given(height=st.integers(8, 40), width=st.integers(8, 40))
    @settings(max_examples=examples(15))
    def test_map_sizes_are_those_of_the_forward(self, height: int, width: int) -> None:
        model = micro(features_only=True).eval()
        with torch.no_grad():
            maps = model(torch.zeros(1, 3, height, width))
        assert [tuple(x.shape[2:]) for x in maps] == micro().map_sizes(height, width)

    def test_single_pixel_maps_are_finite(self) -> None:
        model = randomize(micro(patch_size=4, merge_strides=(2, 2, 2))).train()
        out = model(torch.randn(2, 3, 32, 32))
        out.sum().backward()
        assert out.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        single = randomize(micro(patch_size=8, merge_strides=(1, 1, 1))).eval()
        assert single.map_sizes(8, 8) == [(1, 1)] * 4
        assert single(torch.randn(1, 3, 8, 8)).isfinite().all()

    def test_image_too_small(self) -> None:
        model = micro(patch_size=4, merge_strides=(2, 2, 2)).eval()
        with pytest.raises(ArchitectureError, match=r"8x8 pixels leaves no map in stages\.2.*at least 32"):
            model(torch.zeros(1, 3, 8, 8))

    def test_wrong_channels(self) -> None:
        with pytest.raises(ArchitectureError, match=r"\[2, 1, 32, 32\].*\[batch, 3,"):
            micro()(torch.zeros(2, 1, 32, 32))


def splits() -> st.SearchStrategy[dict[str, int]]:
    """Any number of active channels in the first stages; in the last those that leave the heads a multiple of 4."""
    counts = [st.integers(1, width) for width in WIDTHS[:-1]] + [st.integers(1, 32).map(lambda i: 4 * i)]
    return st.fixed_dictionaries({f"{name}.mixer": count for name, count in zip(NAMES, counts, strict=True)})


class TestArchitecture:
    @given(active=splits())
    @settings(max_examples=examples(15))
    def test_round_trip(self, active: dict[str, int]) -> None:
        first = create(Architecture("partialnet_micro", {"num_classes": 7}, active))
        described = first.architecture()
        assert dict(described.active_channels) == active
        second = create(Architecture.from_dict(described.to_dict()))
        second.load_state_dict(first.state_dict(), strict=True)
        assert second.architecture() == described

    def test_complete(self) -> None:
        options = {
            "in_chans": 1, "num_classes": 3, "embed_dim": 24, "depths": (1, 2, 1, 1), "mlp_ratio": 3.0,
            "act_layer": "relu", "patch_size": 1, "merge_strides": (2, 1, 2), "feature_dim": 40, "num_heads": 6,
            "rests": ("identity", "channel_attention", "self_attention", "self_attention"), "kernel_size": 5,
            "use_spatial_attn": False, "drop_rate": 0.1, "drop_path_rate": 0.2, "attn_drop_rate": 0.3,
            "global_pool": "avg",
        }  # fmt: skip
        model = create(Architecture("partialnet_s", options))
        assert dict(model.architecture().options) == options
        assert model.architecture().model == "partialnet_s"
        assert len(model.architecture().active_channels) == 5
        assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)

    def test_searchable_round_trip(self) -> None:
        model = create(Architecture("partialnet_micro", {}, {f"{NAMES[2]}.mixer": 32}), searchable=True)
        active = model.architecture().active_channels
        assert active[f"{NAMES[2]}.mixer"] == 32
        assert active[f"{NAMES[0]}.mixer"] == 4
        assert set(active) == {f"{name}.mixer" for name in NAMES}
        again = create(model.architecture(), searchable=True)
        again.load_state_dict(model.state_dict(), strict=True)
        assert again.architecture() == model.architecture()
        assert not mixers(again)

    def test_convolving_everything_leaves_no_rest(self) -> None:
        everything = {f"{name}.mixer": width for name, width in zip(NAMES, WIDTHS, strict=True)}
        model = create(Architecture("partialnet_micro", {}, everything)).train()
        assert all(layer.rest is None for layer in mixers(model).values())
        assert model(torch.randn(2, 3, 32, 32)).isfinite().all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"embed_dim": 18}, r"stages\.0\.blocks\.0\.mixer: a quarter of 18 channels is not an integer.*1 to 18"),
            ({"embed_dim": 15}, r"embed_dim is 15, but must be even"),
            ({"embed_dim": 0}, r"embed_dim is 0, but must be an integer of at least 1"),
            ({"num_heads": 5}, r"stages\.3\.blocks\.0\.mixer: active_channels is 32, .* 128 channels with 5 attention"),
            ({"active_channels": {"stages.9.blocks.0.mixer": 4}}, r"unknown layers stages\.9\.blocks\.0\.mixer; known"),
            ({"active_channels": {"stages.0.blocks.0.mixer": 17}}, r"stages\.0\.blocks\.0\.mixer: .* is 17.*1 to 16"),
            ({"active_channels": {"stages.3.blocks.0.mixer": 33}}, r"is 33, but must be one of 4, 8, 12, 16, .*, 128"),
            ({"depths": (1, 1)}, r"merge_strides is \[2, 2, 1\], but must have 1 entries for 2 stages"),
            ({"depths": (1, 0, 1, 1)}, r"each stage needs at least 1 block"),
            ({"act_layer": "swish"}, r"act_layer is 'swish', but must be one of gelu, relu"),
            ({"rests": ("identity",) * 3 + ("se",)}, r"rests has 'se'"),
            ({"drop_path_rate": 1.0}, r"drop_path_rate is 1\.0, but must be in \[0, 1\)"),
            ({"patch_size": 2.5}, r"patch_size is 2\.5"),
            ({"merge_strides": (2, 0, 1)}, r"merge_strides\[1\] is 0"),
            ({"kernel_size": 2}, r"kernel_size is 2, but must be odd"),
            ({"num_classes": -1}, r"num_classes is -1"),
            ({"global_pool": "max"}, r"global_pool is 'max'"),
        ],
    )
    def test_options(self, options: dict, message: str) -> None:
        with pytest.raises(ArchitectureError, match=message):
            micro(**options)

    def test_misspelt_option(self) -> None:
        with pytest.raises(TypeError, match="n_dvi"):
            micro(n_dvi=8)
        with pytest.raises(ArchitectureError, match=r"unknown options n_dvi; known: act_layer"):
            create(Architecture("partialnet_micro", {"n_dvi": 8}))

    def test_unknown_model(self) -> None:
        with pytest.raises(ArchitectureError, match="resnet50"):
            create(Architecture("resnet50"))

    def test_searchable_names_the_layer(self) -> None:
        with pytest.raises(ArchitectureError, match=r"stages\.0\.blocks\.0\.mixer: .*9"):
            create(Architecture("partialnet_micro", {}, {"stages.0.blocks.0.mixer": 9}), searchable=True)
