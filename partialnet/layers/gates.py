"""Algebra of the binary gates that choose a split: the widths that they can express, and their legal orders.

A width C = m * 2^K has K gates. Gate k is 1 (factor J, "connect") or 0 (factor I, "separate"), and the number of
convolved channels is n = m * 2^(sum of gates). Gate 1 is the outermost Kronecker factor, so the convolved channels are
contiguous exactly when all 0 come before all 1; there are K + 1 such legal vectors.

Sources: DGConv (arXiv 1908.05867), PartialNet (arXiv 2502.01303), equations 2 to 9, corrected.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from partialnet.errors import ArchitectureError
from partialnet.layers.partial_conv import describe

MARGIN = 0.05


def split_levels(
    channels: int,
    *,
    rest: str = "identity",
    num_heads: int = 4,
    min_channels: int | None = None,
    level_step: int | None = None,
) -> tuple[int, ...]:
    """Return the numbers of active channels that a search offers for a width, ascending.

    They are ``channels`` halved repeatedly, down to the odd part of the width or to ``min_channels``; or the multiples
    of ``level_step`` and the width itself, if these are several. With self-attention, halving ends at the last number
    that the heads divide. Channel c belongs to head c mod ``num_heads``, so both parts of a split must be divisible.

    Args:
        channels: Width C.
        rest: Operation on the channels that are not convolved.
        num_heads: Number of heads of the self-attention.
        min_channels: Lower bound of the levels.
        level_step: Step between the levels; None for halvings.

    Raises:
        ArchitectureError: If only the width itself is possible, so that there is no choice; or the step is below 1.
    """
    if level_step is not None and level_step < 1:
        raise ArchitectureError(f"level_step is {level_step}, but must be at least 1")
    if min_channels is not None and not 1 <= min_channels <= channels:
        raise ArchitectureError(f"min_channels is {min_channels}, but must be in 1 to {channels}, the width")
    step = num_heads if rest == "self_attention" else 1
    if level_step is not None and channels % step == 0:
        multiples = range(level_step, channels, level_step)
        stepped = [n for n in multiples if n >= (min_channels or 1) and n % step == 0]
        if stepped:
            return (*stepped, channels)
    levels = [channels]
    while levels[0] % 2 == 0 and levels[0] // 2 >= (min_channels or 1) and (levels[0] // 2) % step == 0:
        levels.insert(0, levels[0] // 2)
    if len(levels) == 1 or channels % step:
        needs = f" with both parts divisible by {num_heads} attention heads" if step > 1 else ""
        raise ArchitectureError(
            f"a width of {channels} channels cannot be split by halving{needs}"
            + (f" and min_channels={min_channels}" if min_channels is not None else "")
            + f"; take a multiple of {2 * step}"
        )
    return tuple(levels)


def check_level(levels: tuple[int, ...], value: int, quantity: str = "active_channels") -> int:
    """Return the index of ``value`` in ``levels``; ``quantity`` is its name in a message.

    Raises:
        ArchitectureError: If it is not one of them; the message lists the levels.
    """
    try:
        return levels.index(value)
    except ValueError:
        raise ArchitectureError(f"{quantity} is {value}, but must be one of {describe(levels)}") from None


def binary_gates(gates: Tensor) -> Tensor:
    """Return 1 for a gate of at least 0, otherwise 0; the gradient is half the identity within [-1, 1], otherwise 0.

    Zero counts as 1: with ``sign`` a gate of exactly 0 would give a half connected matrix.

    Args:
        gates: Real gates [K].
    """
    hard = (gates >= 0).to(gates.dtype)
    # Not clamp: its gradient is 0 at the borders, so a saturated gate would never return from there.
    soft = gates * (gates.detach().abs() <= 1) / 2
    return hard + (soft - soft.detach())


def gate_level(gates: Tensor) -> int:
    """Return the number of gates that are 1.

    Raises:
        ArchitectureError: If a gate is not a number.
    """
    values = gates.detach().tolist()
    if any(math.isnan(value) for value in values):
        raise ArchitectureError(f"gates are {values}, but must be numbers: the training of the gates diverged")
    return sum(value >= 0 for value in values)


def legal_gates(level: int, count: int, margin: float = MARGIN) -> Tensor:
    """Return the legal vector of ``count`` gates at ``level``: gates closer to the boundary are closer to 0.

    All gates on one side of the boundary receive the same task gradient. With equal values they would all flip at once;
    with steps of ``margin`` they flip one by one, in legal order.

    Args:
        level: Number of gates that are 1.
        count: Number of gates K.
        margin: Distance from 0 of the two gates beside the boundary; less for many gates, which stay within 1.
    """
    position = torch.arange(count, dtype=torch.float32)
    boundary = count - level
    # Beyond 1 a gate would receive no gradient.
    margin = min(margin, 1 / max(1, count))
    return torch.where(position < boundary, position - boundary, position - boundary + 1) * margin


def order_loss(gates: Tensor) -> Tensor:
    """Return the sum of |gate| from the first 0 after a 1 onwards (equation 8): 0 exactly if the order is legal.

    Args:
        gates: Real gates [K].
    """
    hard = gates.detach() >= 0
    after_one = hard.cumsum(0) > 0
    illegal = (~hard & after_one).cumsum(0) > 0
    return (gates.abs() * illegal).sum()


def flip_efforts(gates: Tensor) -> list[float]:
    """Return for each level the total distance that gates must move until that many of them are 1.

    Args:
        gates: Real gates [K].

    Returns:
        Numbers [K + 1]; 0 at the present level.
    """
    values = gates.detach().double()
    off = torch.sort(-values[values < 0]).values.cumsum(0).tolist()
    on = torch.sort(values[values >= 0]).values.cumsum(0).tolist()
    return [*reversed(on), 0.0, *off]
