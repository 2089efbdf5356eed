"""The authors' numbers, through the converter that users have, in training form and in inference form."""

from __future__ import annotations

import pytest
import torch
from tests.partialnet.reference_state import load_reference, make_input, make_state
from torch import Tensor, nn

from partialnet.checkpoints import load_authors_checkpoint, rename_authors_key
from partialnet.fuse import fuse
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.layers.spatial_attention import PartialSpatialAttention

BLOCKS = load_reference("authors_blocks.json")
MODELS = load_reference("authors_models.json")
FORMS = pytest.mark.parametrize("form", [lambda module: module, fuse], ids=["training_form", "inference_form"])


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


@FORMS
@pytest.mark.parametrize("entry", BLOCKS, ids=lambda entry: entry["name"].split(" (")[0].replace(" ", "_"))
def test_block(entry: dict, form) -> None:
    with torch.no_grad():
        out = form(build_block(entry))(make_input(entry["input_shape"], entry["seed"]))
    assert list(out.shape) == entry["output_shape"]
    torch.testing.assert_close(out.flatten(), torch.tensor(entry["output"]), rtol=0, atol=3e-6)


def build_model(entry: dict) -> nn.Module:
    state = make_state(entry["shapes"], entry["seed"])
    return load_authors_checkpoint(state, activation=entry["config"]["act_layer"].lower())


@FORMS
@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry["name"])
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
