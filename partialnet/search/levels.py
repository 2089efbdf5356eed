"""Setting many layers at once: uniform ratios, and a whole assignment of active channels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.layers.gates import split_levels
from partialnet.layers.levels import level_at_ratio
from partialnet.layers.partial_conv import PartialConv2d, describe


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
        if not isinstance(module, (DPConv2d, PartialConv2d)):
            continue
        try:
            levels = (
                module.levels
                if isinstance(module, DPConv2d)
                else split_levels(module.channels, rest=module.rest_kind, num_heads=module.num_heads)
            )
            chosen[name] = level_at_ratio(levels, module.channels, ratio)
        except ArchitectureError as error:
            raise ArchitectureError(f"{name}: {error}") from error
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
