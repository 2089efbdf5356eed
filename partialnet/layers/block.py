"""The part of a full-width weight that a level uses: one range of its outputs and inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def block(weight: Tensor, start: int, stop: int, dim: int = 0) -> Tensor:
    """Return ``weight[start:stop, start:stop]``.

    Two slices would write two dense gradients, this writes one.

    Args:
        weight: [..., C, C, ...].
        start: First channel.
        stop: One past the last channel.
        dim: Of the outputs; that of the inputs follows it.
    """
    if torch.is_grad_enabled() and weight.requires_grad and stop - start < weight.shape[dim]:
        part: Tensor = _Block.apply(weight, start, stop, dim)
        return part
    return _narrow(weight, start, stop, dim)


def embed(part: Tensor, shape: torch.Size, start: int, dim: int = 0) -> Tensor:
    """Return zeros of ``shape`` that hold ``part`` where :func:`block` takes it."""
    if part.shape == shape:
        return part
    whole = part.new_zeros(shape)
    _narrow(whole, start, start + part.shape[dim], dim).copy_(part)
    return whole


def _narrow(weight: Tensor, start: int, stop: int, dim: int) -> Tensor:
    return weight.narrow(dim, start, stop - start).narrow(dim + 1, start, stop - start)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, start: int, stop: int, dim: int) -> Tensor:
        ctx.place = weight.shape, start, dim
        return _narrow(weight, start, stop, dim).clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return embed(gradient, *ctx.place), None, None, None
