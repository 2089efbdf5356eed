"""Affine maps as numbers: what folding needs to know of normalisations and pointwise layers. Double precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError


def batch_norm_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return scale and shift that equal ``norm`` in eval mode, float64, one per channel.

    Args:
        norm: A batch normalisation.

    Raises:
        ArchitectureError: If ``norm`` keeps no running statistics, so that it is no affine map.
    """
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise ArchitectureError(f"only a BatchNorm2d with running statistics can be folded, but got {norm}")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def pointwise(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a 1x1 convolution with ``weight`` [out, in] and ``bias`` [out], in ``like``'s type and place."""
    return convolution(like, weight[:, :, None, None], bias)


def convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a copy of ``like`` with another ``weight`` [out, in / groups, k, k] and ``bias`` [out]."""
    kernel_size = (int(weight.shape[2]), int(weight.shape[3]))
    if isinstance(like.padding, str):
        raise ArchitectureError(f"padding is {like.padding!r}, but must be given in pixels to fold {like}")
    with torch.device("meta"):
        conv = nn.Conv2d(
            like.in_channels, len(weight), kernel_size, like.stride, like.padding, like.dilation, like.groups
        )
    conv.weight = nn.Parameter(weight.to(like.weight).contiguous())
    conv.bias = nn.Parameter(bias.to(like.weight))
    return conv.train(like.training)
