"""Checks of the options of PartialNet's constructor."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.partial_conv import REST_KINDS, RestKind

MixerKind = Literal["partial", "conv", "depthwise"]
AttentionKind = Literal["channel", "spatial", "self"]

ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType({"gelu": nn.GELU, "relu": nn.ReLU})


def default_rests(stages: int) -> tuple[RestKind, ...]:
    """Return the published attention of each stage: over positions in the last one, over channels in the others."""
    return tuple("self_attention" if i == stages - 1 else "channel_attention" for i in range(stages))


def attention_of(rest: RestKind) -> AttentionKind | None:
    """Return the kind of attention that ``rest`` is; None if it is not one of the three."""
    if rest == "identity":
        return None
    return "self" if rest == "self_attention" else "channel"


def check_options(options: Mapping[str, Any], num_classes: int, global_pool: str) -> None:
    """Check all options of the constructor.

    Raises:
        ArchitectureError: If one is out of its range; the message gives its name, its value and what would be right.
    """
    stages = len(options["depths"])
    if stages < 1 or any(depth < 1 for depth in options["depths"]):
        raise ArchitectureError(f"depths is {list(options['depths'])}, but each stage needs at least 1 block")
    for key, length in (("merge_strides", stages - 1), ("rests", stages), ("mixers", stages)):
        if len(options[key]) != length:
            raise ArchitectureError(
                f"{key} is {list(options[key])}, but must have {length} entries for {stages} stages"
            )
    sizes = {key: options[key] for key in ("in_chans", "embed_dim", "patch_size", "feature_dim", "num_heads")}
    if options["resolution"] is not None:
        sizes["resolution"] = options["resolution"]
    sizes |= {f"merge_strides[{i}]": stride for i, stride in enumerate(options["merge_strides"])}
    for key, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArchitectureError(f"{key} is {value!r}, but must be an integer of at least 1")
    if options["act_layer"] not in ACTIVATIONS:
        raise ArchitectureError(f"act_layer is {options['act_layer']!r}, but must be one of {', '.join(ACTIVATIONS)}")
    _check_entries(options)
    for key in ("drop_rate", "drop_path_rate", "attn_drop_rate"):
        if not 0 <= options[key] < 1:
            raise ArchitectureError(f"{key} is {options[key]}, but must be in [0, 1)")
    if options["use_spatial_attn"] and options["embed_dim"] % 2:
        raise ArchitectureError(f"embed_dim is {options['embed_dim']}, but must be even: PAT_sp halves every width")
    if options["mlp_ratio"] <= 0:
        raise ArchitectureError(f"mlp_ratio is {options['mlp_ratio']}, but must be positive")
    if num_classes < 0:
        raise ArchitectureError(f"num_classes is {num_classes}, but must not be negative")
    if global_pool not in ("avg", "") or (not global_pool and num_classes > 0):
        raise ArchitectureError(f"global_pool is {global_pool!r}, but must be 'avg' (or '' without a classifier)")


def _check_entries(options: Mapping[str, Any]) -> None:
    kinds = {"rests": REST_KINDS, "mixers": get_args(MixerKind), "full_attention": get_args(AttentionKind)}
    for key, known in kinds.items():
        for entry in options[key]:
            if entry not in known:
                raise ArchitectureError(f"{key} has {entry!r}, but entries must be one of {', '.join(known)}")
    present = {
        attention_of(rest)
        for rest, mixer in zip(options["rests"], options["mixers"], strict=True)
        if mixer == "partial"
    }
    present |= {"spatial"} if options["use_spatial_attn"] else set()
    for kind in options["full_attention"]:
        if kind not in present:
            raise ArchitectureError(f"full_attention has {kind!r}, but no block of these options has {kind} attention")
