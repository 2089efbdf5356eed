"""Which numbers of active channels a ratio stands for."""

from __future__ import annotations

import math
from fractions import Fraction

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.partial_conv import PartialConv2d, describe, legal_active_channels


def nearest_level(levels: tuple[int, ...], channels: int, ratio: float) -> int:
    """Return the level that is nearest to ``ratio * channels`` by factor; of two equally near the lower one."""
    return min(levels, key=lambda n: abs(math.log2(n / (ratio * channels))))


def level_at_ratio(levels: tuple[int, ...], channels: int, ratio: float) -> int:
    """Return the level that is nearest to ``ratio * channels``.

    Raises:
        ArchitectureError: If it is not within a factor of sqrt(2) of it.
    """
    n = nearest_level(levels, channels, ratio)
    if abs(math.log2(n / (ratio * channels))) > 0.5:
        raise ArchitectureError(
            f"a ratio of {ratio:g} would be {ratio * channels:g} of {channels} channels, but must be near one of "
            f"{describe(levels)}"
        )
    return n


def uniform_channels(network: nn.Module, ratio: float) -> dict[str, int]:
    """Return the active channels of every layer at one ratio.

    Raises:
        ArchitectureError: If a layer cannot be split so; names it and what would be right.
    """
    channels = {}
    for name, layer in network.named_modules():
        if not isinstance(layer, PartialConv2d):
            continue
        wanted = layer.channels * ratio
        legal = legal_active_channels(layer.channels, layer.rest_kind, layer.num_heads)
        if round(wanted) not in legal or not math.isclose(wanted, round(wanted), rel_tol=1e-6):
            shown = Fraction(ratio).limit_denominator(1000)
            raise ArchitectureError(
                f"a ratio of {shown} is {wanted:.4g} of the {layer.channels} channels of {name}, but the number of "
                f"active channels must be a whole one, of {describe(legal)}"
            )
        channels[name] = round(wanted)
    return channels
