"""The authors' numbers, through the converter that users have: in training form, in inference form, and searched.

Searched means that the authors' weights stand in full-width layers at a quarter of the channels, which ``to_fixed``
then makes plain ones.
"""

from __future__ import annotations

import math

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from partialnet.checkpoints import load_authors_checkpoint, rename_authors_key
from partialnet.export import to_fixed
from partialnet.fuse import fuse
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.layers.spatial_attention import PartialSpatialAttention
from partialnet.models.partialnet import PartialNet, create
from tests.partialnet.reference_state import load_reference, make_input, make_state
from tests.partialnet.searchable import embed

BLOCKS = load_reference("authors_blocks.json")
MODELS = load_reference("authors_models.json")


def searched(module: nn.Module) -> nn.Module:
    """Return ``module`` with layers that learn their split, at the present one, and nothing usable at the others."""
    if isinstance(module, PartialConv2d):
        layer = DPConv2d(module.channels, rest=module.rest_kind)
        assert 4 * layer.active_channels == module.channels
        embed(layer, module)
        return layer.eval()
    assert isinstance(module, PartialNet)
    network = create(module.architecture(), searchable=True)
    network.load_state_dict({k: v for k, v in module.state_dict().items() if ".mixer." not in k}, strict=False)
    for name, layer in module.named_modules():
        if isinstance(layer, PartialConv2d):
            assert 4 * layer.active_channels == layer.channels
            searchable = network.get_submodule(name)
            assert isinstance(searchable, DPConv2d)
            embed(searchable, layer)
    return network.eval()


def searched_to_fixed(module: nn.Module) -> nn.Module:
    return to_fixed(searched(module))


def searched_to_fused(module: nn.Module) -> nn.Module:
    return fuse(to_fixed(searched(module)))


def training_form(module: nn.Module) -> nn.Module:
    return module


FORMS = (training_form, fuse, searched, searched_to_fixed, searched_to_fused)


def cases(entries: list[dict]) -> list:
    """Return every entry in every form that it has: PAT_sp has no split; T0 takes a while in each."""
    return [
        pytest.param(
            entry,
            form,
            id=f"{entry['name'].split(' (')[0].replace(' ', '_')}-{form.__name__}",
            marks=[pytest.mark.long] * (entry["name"] == "T0" and form in (fuse, searched, searched_to_fixed)),
        )
        for entry in entries
        for form in (FORMS[:2] if "conv_attn.weight" in entry["shapes"] else FORMS)
    ]


def build_block(entry: dict) -> nn.Module:
    """Return our block of an entry, with the entry's weights under our names."""
    shapes = entry["shapes"]
    channels = entry["input_shape"][1]
    block: nn.Module
    if "conv_attn.weight" in shapes:
        prefix, ours, block = "mlp.4", "mlp.spatial", PartialSpatialAttention(channels)
    else:
        rest = "identity"
        if "attn.cfc1.weight" in shapes:
            rest = "channel_attention"
        elif "attn.qkv.weight" in shapes:
            rest = "self_attention"
        block = PartialConv2d(channels, shapes["partial_conv3.weight"][0], rest=rest)  # type: ignore[arg-type]
        prefix, ours = "spatial_mixing", "mixer"
    state = {}
    for name, value in make_state(shapes, entry["seed"]).items():
        renamed = rename_authors_key(f"stages.0.blocks.0.{prefix}.{name}")
        state[renamed.removeprefix(f"stages.0.blocks.0.{ours}.")] = value
    block.load_state_dict(state)
    return block.eval()


@pytest.mark.parametrize(("entry", "form"), cases(BLOCKS))
def test_block(entry: dict, form) -> None:
    with torch.no_grad():
        out = form(build_block(entry))(make_input(entry["input_shape"], entry["seed"]))
    assert list(out.shape) == entry["output_shape"]
    torch.testing.assert_close(out.flatten(), torch.tensor(entry["output"]), rtol=0, atol=3e-6)


def build_model(entry: dict) -> nn.Module:
    state = make_state(entry["shapes"], entry["seed"])
    return load_authors_checkpoint(state, activation=entry["config"]["act_layer"].lower())


@pytest.mark.parametrize(("entry", "form"), cases(MODELS))
def test_model(entry: dict, form) -> None:
    model = form(build_model(entry))
    maps: list[Tensor] = []
    for stage in model.stages:
        stage.register_forward_hook(lambda _module, _inputs, out: maps.append(out))
    with torch.no_grad():
        logits = model(make_input(entry["input_shape"], entry["seed"]))
    torch.testing.assert_close(logits, torch.tensor(entry["logits"]), rtol=0, atol=5e-6)
    statistics = [[float(x.mean()), float(x.std()), float(x.abs().max())] for x in maps]
    torch.testing.assert_close(
        torch.tensor(statistics), torch.tensor(entry["stage_mean_std_absmax"]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry["name"])
def test_parameters(entry: dict) -> None:
    assert sum(parameter.numel() for parameter in build_model(entry).parameters()) == entry["parameters"]


def attention_products(inputs: list, outputs: list) -> int:
    """Count the two matrix products of an attention: fvcore counts the fused operation as nothing."""
    query, key = inputs[0].type().sizes(), inputs[1].type().sizes()
    return 2 * math.prod(query) * key[-2]


# multiply-adds at 224x224 in G: without PAT_sp (as published), and of the training form
FLOPS = {
    "t0": (0.252, 0.2630),
    "t1": (0.556, 0.5808),
    "t2": (1.039, 1.0866),
    "s": (2.716, 2.8427),
    "m": (6.693, 7.0217),
    "l": (11.909, 12.5022),
}


@pytest.mark.parametrize(
    "variant", [name if name in ("t0", "t2") else pytest.param(name, marks=pytest.mark.long) for name in FLOPS]
)
def test_flops(variant: str) -> None:
    image = torch.zeros(1, 3, 224, 224)
    for use_spatial_attn, digits, expected in zip((False, True), (3, 4), FLOPS[variant], strict=True):
        with torch.device("meta"):  # of which no value matters
            model = timm.create_model(f"partialnet_{variant}", use_spatial_attn=use_spatial_attn).eval()
        model.to_empty(device="cpu")
        analysis = FlopCountAnalysis(model, image)
        analysis.set_op_handle("aten::scaled_dot_product_attention", attention_products)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert round(analysis.total() / 1e9, digits) == expected
