"""Gaussian channel attention: what the convolution leaves over in the first stages of PartialNet (PAT_ch).

Source: PartialNet (arXiv 2502.01303).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers.folding import Folding, NormAfter


def gaussian_statistics(x: Tensor) -> Tensor:
    """Return mean and unbiased standard deviation of every channel over space, stacked in that order.

    The standard deviation of a 1x1 map is not defined; it is 0 here.

    Args:
        x: [B, C, H, W].

    Returns:
        [B, C, 1, 2].
    """
    correction = 0 if x.shape[2] * x.shape[3] == 1 else 1
    deviation, mean = torch.std_mean(x, dim=(2, 3), correction=correction)
    return torch.stack((mean, deviation), dim=2).unsqueeze(2)


class GaussianChannelAttention(nn.Module):
    """Scale every channel by a gate that sees the mean and the standard deviation of all of them.

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 2), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def foldings(self) -> list[Folding]:
        """What :func:`partialnet.fuse.fuse` may fold here."""
        return [NormAfter("conv", "norm")]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x * F.hardsigmoid(self.norm(self.conv(gaussian_statistics(x))))


class ChannelAttentionRest(nn.Module):
    """Gaussian channel attention, then batch normalisation.

    Args:
        channels: Width of input and output: those that the convolution leaves.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = GaussianChannelAttention(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        out: Tensor = self.norm(self.attention(x))
        return out
