"""Setting many layers at once: uniform ratios, and a whole assignment of active channels."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.layers.gates import split_levels
from partialnet.layers.partial_conv import PartialConv2d, describe


def nearest_level(levels: tuple[int, ...], channels: int, ratio: float) -> int:
    """Return the level that is nearest to ``ratio * channels`` by factor; of two equally near the lower one."""
    return min(levels, key=lambda n: abs(math.log2(n / (ratio * channels))))


def uniform_active_channels(model: nn.Module, ratio: float) -> dict[str, int]:
    """Return module name to the active channels of a uniform ``ratio``, by the levels that a search has as well.

    Args:
        model: Searchable or fixed.
        ratio: In (0, 1].

    Raises:
        ArchitectureError: If the ratio is out of its range, or a layer has no level within a factor of sqrt(2) of it;
            names the layer and its levels.
    """
    if not 0 < ratio <= 1:
        raise ArchitectureError(f"ratio is {ratio}, but must be in (0, 1]")
    chosen = {}
    for name, module in model.named_modules():
        if isinstance(module, DPConv2d):
            levels = module.levels
        elif isinstance(module, PartialConv2d):
            try:
                levels = split_levels(module.channels, rest=module.rest_kind, num_heads=module.num_heads)
            except ArchitectureError as error:
                raise ArchitectureError(f"{name}: {error}") from error
        else:
            continue
        n = nearest_level(levels, module.channels, ratio)
        if abs(math.log2(n / (ratio * module.channels))) > 0.5:
            raise ArchitectureError(
                f"{name}: a ratio of {ratio:g} would be {ratio * module.channels:g} of {module.channels} channels, "
                f"but must be near one of {describe(levels)}"
            )
        chosen[name] = n
    if not chosen:
        raise ArchitectureError(f"{type(model).__name__} contains no partial convolution")
    return chosen


def set_active_channels(model: nn.Module, active_channels: Mapping[str, int]) -> None:
    """Set the gates of the named ``DPConv2d`` layers of ``model``; others stay as they are.

    Raises:
        ArchitectureError: If a name is unknown or a number is no level of its layer; nothing is changed then.
    """
    layers = dpconv_layers(model)
    unknown = sorted(set(active_channels) - set(layers))
    if unknown:
        raise ArchitectureError(f"unknown layers {', '.join(unknown)}; known: {', '.join(layers)}")
    for name, n in active_channels.items():
        if n not in layers[name].levels:
            raise ArchitectureError(
                f"{name}: active_channels is {n}, but must be one of {describe(layers[name].levels)}"
            )
    for name, n in active_channels.items():
        layers[name].set_active_channels(n)
