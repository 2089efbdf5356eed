"""The variants of PartialNet in one table: the only place for widths and depths. Loads no torch.

These depths, widths and activations reproduce both published figures of each variant (the papers' tables of depths
disagree for T0 and T1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from partialnet.errors import ArchitectureError


@dataclass(frozen=True)
class Variant:
    """Constructor arguments of one variant.

    Args:
        embed_dim: Width of the first stage; each merging doubles it.
        depths: Number of blocks in each stage.
        act_layer: Activation, ``"gelu"`` or ``"relu"``.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0.
        patch_size: Kernel and stride of the embedding, in pixels.
        merge_strides: Kernel and stride of each merging between stages.
        feature_dim: Width of the head.
        input_size: Channels, height, width of the images that it was built for.
    """

    embed_dim: int
    depths: tuple[int, ...]
    act_layer: str
    drop_path_rate: float
    patch_size: int = 4
    merge_strides: tuple[int, ...] = (2, 2, 2)
    feature_dim: int = 1280
    input_size: tuple[int, int, int] = (3, 224, 224)


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "micro": Variant(16, (1, 1, 2, 1), "gelu", 0.0, 2, (2, 2, 1), 128, (3, 32, 32)),
        "t0": Variant(32, (1, 2, 6, 4), "gelu", 0.0),
        "t1": Variant(48, (1, 2, 6, 4), "gelu", 0.02),
        "t2": Variant(64, (2, 2, 6, 4), "relu", 0.05),
        "s": Variant(96, (2, 2, 9, 4), "relu", 0.1),
        "m": Variant(128, (2, 3, 16, 4), "relu", 0.2),
        "l": Variant(160, (2, 3, 20, 4), "relu", 0.3),
    }
)

PREFIX = "partialnet_"
PATNET_PREFIX = "patnet_"  # names of the same networks in the second paper


def model_name(variant: str) -> str:
    """Return the registered model name of ``variant``: ``partialnet_t0`` for ``T0``, and for ``patnet_t0``.

    Raises:
        ArchitectureError: If there is no such variant; the message lists the known ones.
    """
    short = variant.lower().removeprefix(PREFIX).removeprefix(PATNET_PREFIX)
    if short not in VARIANTS:
        raise ArchitectureError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    return PREFIX + short
