"""The part of a full-width weight that a level uses: one range of its outputs and inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def block(weight: Tensor, start: int, stop: int, dim: int = 0, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``weight[start:stop, start:stop]``.

    Two slices would write two dense gradients; this function writes one.

    Args:
        weight: Weight [..., C, C, ...].
        start: First channel.
        stop: Channel after the last one.
        dim: Dimension of the outputs; that of the inputs follows it.
        dtype: Type of the result; None for that of ``weight``. The copy that makes the block dense also converts it.
    """
    dtype = dtype or weight.dtype
    if torch.is_grad_enabled() and weight.requires_grad and stop - start < weight.shape[dim]:
        part: Tensor = _Block.apply(weight, start, stop, dim, dtype)
        return part
    return _narrow(weight, start, stop, dim).to(dtype)


def suffix(start: int, *vectors: Tensor) -> tuple[Tensor, ...]:
    """Return ``vector[start:]`` of each of ``vectors`` [C]; their gradients are written together, not one by one."""
    if start and torch.is_grad_enabled() and all(vector.requires_grad for vector in vectors):
        parts: tuple[Tensor, ...] = _Suffix.apply(start, *vectors)
        return parts
    return tuple(vector[start:] for vector in vectors)


def compute_type(tensor: Tensor) -> torch.dtype:
    """Return the type of a product with ``tensor``: that of autocast inside autocast, but float64 stays."""
    device = tensor.device.type
    # A device without autocast, such as meta, does not even know whether it is on.
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return tensor.dtype if tensor.dtype == torch.float64 else torch.get_autocast_dtype(device)


def embed(part: Tensor, like: Tensor, start: int, dim: int = 0) -> Tensor:
    """Return zeros of the shape, type and layout of ``like`` that hold ``part`` at the place of :func:`block`."""
    if part.shape == like.shape:
        return part.to(like.dtype)
    whole = torch.zeros_like(like)
    _narrow(whole, start, start + part.shape[dim], dim).copy_(part)
    return whole


def _narrow(weight: Tensor, start: int, stop: int, dim: int) -> Tensor:
    return weight.narrow(dim, start, stop - start).narrow(dim + 1, start, stop - start)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, start: int, stop: int, dim: int, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.place = start, dim
        return _narrow(weight, start, stop, dim).to(dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        return embed(gradient, *ctx.saved_tensors, *ctx.place), None, None, None, None


class _Suffix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: int, *vectors: Tensor) -> tuple[Tensor, ...]:
        ctx.start = start
        return tuple(vector[start:].view_as(vector[start:]) for vector in vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        blank = gradients[0].new_zeros(ctx.start)
        whole = torch.cat([part for gradient in gradients for part in (blank, gradient)])
        return None, *whole.view(len(gradients), -1).unbind()
