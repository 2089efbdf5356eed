"""The spatial mixing of a block: a partial convolution in two or three parts, fixed or learned, or a full one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from partialnet.errors import ArchitectureError
from partialnet.layers.partial_conv import (
    PartialConv2d,
    RestKind,
    check_partial_conv,
    describe,
    legal_active_channels,
)
from partialnet.layers.three_parts import ThreePartConv2d
from partialnet.models.chosen import Chosen
from partialnet.models.options import MixerKind


def build_mixer(
    name: str,
    kind: MixerKind,
    width: int,
    rest: RestKind,
    chosen: Chosen,
    *,
    kernel_size: int,
    heads: Mapping[str, Any],
    searched: Collection[str],
    level_step: int | None,
) -> nn.Module:
    """Return the mixer of a block.

    Args:
        name: Module name of the mixer.
        kind: Kind of mixing.
        width: Width C.
        rest: Operation on the channels that are not convolved.
        chosen: Choices of the network block by block.
        kernel_size: Kernel size, where the choices name no other.
        heads: Arguments of the self-attention.
        searched: Kinds of choices to learn.
        level_step: Step between the numbers of active channels to choose from; None for halvings.

    Raises:
        ArchitectureError: If the width cannot be split so; the message says what would be right.
    """
    active, attended = chosen.active_channels.get(name), chosen.attended_channels.get(name)
    if kind != "partial":
        return _of_all_channels(name, kind, width, rest, chosen, kernel_size, heads)
    kernel_size = chosen.kernel_sizes.get(name, kernel_size)
    if "split" in searched:
        if attended is not None and "attention" not in searched:
            raise ArchitectureError(
                f"attended_channels is {attended}, which a search keeps only if it learns 'attention' as well"
            )
        return _searchable(
            width, kernel_size, active, searched,
            attended_channels=attended, level_step=level_step, rest=rest, **heads,
        )  # fmt: skip
    if active is None and width % 4:
        legal = describe(legal_active_channels(width, rest, heads["num_heads"]))
        raise ArchitectureError(
            f"a quarter of {width} channels is not an integer; use a width that 4 divides, or give "
            f"active_channels: {legal}"
        )
    n = width // 4 if active is None else active
    if attended is not None and attended != width - n:
        return ThreePartConv2d(width, n, attended, kernel_size, rest=rest, **heads)
    return PartialConv2d(width, n, kernel_size, rest=rest, **heads)


def _of_all_channels(
    name: str, kind: MixerKind, width: int, rest: RestKind, chosen: Chosen, kernel_size: int, heads: Mapping[str, Any]
) -> nn.Module:
    for key, given, does in (
        ("active_channels", chosen.active_channels.get(name), "convolves all channels"),
        ("kernel_sizes", chosen.kernel_sizes.get(name), "has the option kernel_size"),
        ("attended_channels", chosen.attended_channels.get(name), "attends to none"),
    ):
        if given is not None:
            raise ArchitectureError(f"{key} is {given}, but a mixer {kind!r} {does}")
    check_partial_conv(width, kernel_size, rest, heads["num_heads"])
    groups = width if kind == "depthwise" else 1
    return nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)


def _searchable(
    width: int, kernel_size: int, active: int | None, searched: Collection[str], *, rest: RestKind, **common: Any
) -> nn.Module:
    # Imported here, because a fixed network needs nothing of the search.
    from partialnet.layers.dpconv import DPConv2d
    from partialnet.layers.kernel_size import kernel_sizes

    sizes = kernel_sizes(kernel_size) if "kernel" in searched else None
    parts = 3 if "attention" in searched and rest != "identity" else 2
    return DPConv2d(
        width, kernel_size, active_channels=active, kernel_sizes=sizes, parts=parts, rest=rest, **common
    )
