"""The authors' checkpoints: other names, the same numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.models.partialnet import PartialNet, create
from partialnet.state_dicts import not_finite, plain_names
from partialnet.variants import PREFIX, VARIANTS

# Their stages and mergings share one list: stages at even places, mergings at odd ones.
_MERGING = re.compile(r"^stages\.(\d+)\.(reduction|norm)\.")
_BLOCK = re.compile(r"^stages\.(\d+)\.blocks\.")
_HOLDERS = ("state_dict", "model", "module")
_RENAMED = (
    (r"\.spatial_mixing\.partial_conv3\.", ".mixer.conv."),
    (r"\.spatial_mixing\.attn\.cfc1\.", ".mixer.rest.attention.conv."),
    (r"\.spatial_mixing\.attn\.bn\.", ".mixer.rest.attention.norm."),
    (r"\.spatial_mixing\.attn\.rpe_k\.lookup_table_bias$", ".mixer.rest.position.table"),
    (r"\.spatial_mixing\.attn\.(qkv|proj)\.", r".mixer.rest.\1."),
    (r"\.spatial_mixing\.norm\.", ".mixer.rest.norm."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.1\.", ".mlp.norm."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"\.mlp\.4\.conv_attn\.", ".mlp.spatial.gate."),
    (r"\.mlp\.4\.norm2\.", ".mlp.spatial.conv_norm."),
    (r"\.mlp\.4\.(conv|norm)\.", r".mlp.spatial.\1."),
    (r"^avgpool_pre_head\.1\.", "conv_head."),
    (r"^head\.", "classifier."),
)


def rename_authors_key(key: str) -> str:
    """Return our name of a parameter or buffer that the authors' code calls ``key``."""
    if found := _MERGING.match(key):
        key = f"stages.{(int(found[1]) + 1) // 2}.downsample.{key[found.start(2) :]}"
    elif found := _BLOCK.match(key):
        key = f"stages.{int(found[1]) // 2}.{key[key.index('blocks.') :]}"
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    return key


def load_authors_checkpoint(state_dict: Mapping[str, Any], *, activation: str) -> PartialNet:
    """Build the network of an authors' checkpoint and load its weights.

    Widths, depths, active channels, heads and classes are read off the shapes.

    Args:
        state_dict: Result of ``torch.load``: the weights, or a mapping that holds them as ``state_dict``, ``model`` or
            ``module``. Names of wrappers (``_orig_mod.``, ``module.``, ``model.``) before all others are taken off,
            in any order.
        activation: ``"gelu"`` or ``"relu"``: no weight tells which. T0 and T1 have GELU, the others ReLU.

    Returns:
        The network in eval mode.

    Raises:
        ArchitectureError: If the weights are not those of a PartialNet, or not finite; names what is missing,
            unexpected or misshapen.
    """
    state = {rename_authors_key(key): value for key, value in _weights(state_dict).items()}
    network = create(_architecture(state, activation))
    expected = network.state_dict()
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    misshapen = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if missing or unexpected or misshapen:
        raise ArchitectureError(
            "the checkpoint does not fit the network that its shapes describe: "
            f"missing {missing[:3]}, unexpected {unexpected[:3]}, misshapen {misshapen[:3]}"
        )
    if broken := not_finite(state):
        raise ArchitectureError(f"the checkpoint holds values that are not finite: {', '.join(broken[:3])}")
    network.load_state_dict(state)
    return network.eval()


def _weights(state_dict: Any) -> dict[str, Tensor]:
    if not isinstance(state_dict, Mapping):
        raise ArchitectureError(
            f"state_dict is a {type(state_dict).__name__}, but must map names to tensors, as torch.load(path) gives it"
        )
    while inner := next((state_dict[key] for key in _HOLDERS if isinstance(state_dict.get(key), Mapping)), None):
        state_dict = inner
    tensors = {}
    for key, value in plain_names({str(key): value for key, value in state_dict.items()}).items():
        if isinstance(value, Mapping):
            continue
        try:
            tensors[key] = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise ArchitectureError(
                f"the checkpoint holds {key!r}, a {type(value).__name__}, but must map names to tensors"
            ) from None
    return tensors


def _architecture(state: Mapping[str, Tensor], activation: str) -> Architecture:
    embed_dim, in_chans, patch_size, _ = _shape(state, "patch_embed.proj.weight", 4)
    depths: list[int] = []
    merge_strides = []
    active_channels = {}
    while f"stages.{len(depths)}.blocks.0.mixer.conv.weight" in state:
        stage, depth = len(depths), 0
        while (name := f"stages.{stage}.blocks.{depth}.mixer") + ".conv.weight" in state:
            active_channels[name] = _shape(state, f"{name}.conv.weight", 4)[0]
            depth += 1
        depths.append(depth)
        if stage:
            merge_strides.append(_shape(state, f"stages.{stage}.downsample.reduction.weight", 4)[2])
    if not depths:
        raise ArchitectureError("the checkpoint has no stages.0.blocks.0.spatial_mixing.partial_conv3.weight")
    rests = []
    options: dict[str, Any] = {}
    for stage in range(len(depths)):
        rest = re.compile(rf"stages\.{stage}\.blocks\.\d+\.mixer\.rest\.(position\.table|attention)")
        found = [key for key in state if rest.match(key)]
        tables = [key for key in found if key.endswith("position.table")]
        if tables:
            options["num_heads"] = _shape(state, tables[0], 2)[0]
        rests.append("self_attention" if tables else "channel_attention" if found else "identity")
    hidden, width, _, _ = _shape(state, "stages.0.blocks.0.mlp.fc1.weight", 4)
    classes, feature_dim = (
        _shape(state, "classifier.weight", 2)
        if "classifier.weight" in state
        else (0, _shape(state, "conv_head.weight", 4)[0])
    )
    options |= {
        "in_chans": in_chans, "embed_dim": embed_dim, "depths": depths, "merge_strides": merge_strides,
        "patch_size": patch_size, "rests": rests, "mlp_ratio": hidden / width, "act_layer": activation,
        "use_spatial_attn": "stages.0.blocks.0.mlp.spatial.conv.weight" in state,
        "num_classes": classes, "feature_dim": feature_dim, "drop_path_rate": 0.0,
        "kernel_size": _shape(state, "stages.0.blocks.0.mixer.conv.weight", 4)[2],
    }  # fmt: skip
    return Architecture(_nearest_variant(embed_dim, depths, activation), options, active_channels)


def _shape(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state or state[key].dim() != dimensions:
        found = f"has shape {list(state[key].shape)}" if key in state else "is missing"
        raise ArchitectureError(
            f"the checkpoint is not one of a PartialNet: {key} {found}, but must have {dimensions} dimensions"
        )
    return tuple(state[key].shape)


def _nearest_variant(embed_dim: int, depths: list[int], activation: str) -> str:
    # Every option is written down, so the name is only what a reader sees.
    def distance(name: str) -> tuple[bool, bool, bool]:
        variant = VARIANTS[name]
        return variant.embed_dim != embed_dim, variant.depths != tuple(depths), variant.act_layer != activation

    return PREFIX + min(VARIANTS, key=distance)
