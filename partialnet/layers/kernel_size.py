"""The kernel size of a partial convolution as a choice: a smaller kernel is the centre of a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from partialnet.errors import ArchitectureError
from partialnet.kinds import Kind
from partialnet.layers.block import compute_type
from partialnet.layers.choice import GROWTH, REMOVAL, Choice, PartValue

KERNELS = (3, 5)
"""Kernel sizes that a search tries beside the usual one."""


def kernel_sizes(usual: int) -> tuple[int, ...]:
    """Return the kernel sizes that a search tries, ascending."""
    return tuple(sorted({*KERNELS, usual}))


class KernelSize(Choice):
    """The kernel size of the layer that holds it; a ring is the border that the next larger kernel adds.

    Args:
        channels: Width C of the layer.
        levels: Kernel sizes to choose from, odd and ascending.
        kernel_size: First kernel size.

    Raises:
        ArchitectureError: If the levels are not at least two odd ascending sizes, or do not have ``kernel_size``.
    """

    kind: ClassVar[Kind] = "kernel"
    quantity: ClassVar[str] = "kernel_size"
    stands_alone: ClassVar[bool] = False

    def __init__(self, channels: int, levels: Sequence[int], kernel_size: int) -> None:
        super().__init__()
        levels = tuple(levels)
        odd = all(size > 0 and size % 2 for size in levels)
        if len(levels) < 2 or not odd or list(levels) != sorted(set(levels)):
            raise ArchitectureError(f"kernel sizes are {list(levels)}, but must be several, odd and ascending")
        self.channels = channels
        self._offer(levels)
        self.choose(kernel_size)

    def probed(self, out: Tensor, x: Tensor, weight: Tensor, pair: Tensor) -> Tensor:
        """Return an output unchanged, whose backward gives D- and D+ of the kernel size to ``pair``.

        Args:
            out: Output [B, C, H, W], of which the first n channels are the convolution's.
            x: Its input [B, n, H, W].
            weight: Largest kernel [n, n, K, K].
            pair: Tensor that receives both.
        """
        size, below, above = self.chosen, self._below(self.level), self._above(self.level)
        if below is not None:
            out = PartValue.apply(out, _border(x, weight, below, size), 0, pair, REMOVAL)
        if above is not None:
            out = PartValue.apply(out, _border(x[: self._images(len(x))], weight, size, above), 0, pair, GROWTH)
        return out

    def fixed(self) -> NoReturn:
        """Refuse: the fixed form is that of the layer around it."""
        raise ArchitectureError("a kernel size alone has no fixed form")


def centre(weight: Tensor, size: int) -> Tensor:
    """Return the ``size`` x ``size`` centre of a kernel [..., K, K]."""
    edge = (weight.shape[-1] - size) // 2
    return weight[..., edge : edge + size, edge : edge + size] if edge else weight


@torch.no_grad()
def _border(x: Tensor, weight: Tensor, inner: int, outer: int) -> Tensor:
    """Return what the border of the ``outer`` kernel around the ``inner`` one adds to the output."""
    kernel = centre(weight, outer).to(compute_type(x), copy=True)
    centre(kernel, inner).zero_()
    return F.conv2d(x.to(kernel.dtype), kernel, padding=outer // 2)
