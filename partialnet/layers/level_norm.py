"""Batch normalisation with statistics for each level: those of one split are invalid for another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers.block import suffix


class LevelBatchNorm2d(nn.Module):
    """Batch normalisation of a suffix of the channels, with running statistics for each level.

    Args:
        channels: Width C.
        levels: Number of levels.
        eps: Number that is added to the variance.
        momentum: Momentum of the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, channels: int, levels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(levels, channels))
        self.register_buffer("running_var", torch.ones(levels, channels))
        self.register_buffer("num_batches_tracked", torch.zeros(levels, dtype=torch.long))

    def reset_running_stats(self) -> None:
        """Reset the statistics of all levels."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.zero_()

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """Normalise [B, C - start, H, W]; a ``probe`` leaves the running statistics unchanged."""
        mean = self.running_mean[level, start:]
        var = self.running_var[level, start:]
        weight, bias = suffix(start, self.weight, self.bias)
        if self.training and probe:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked[level].add_(1)
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)

    def affine(
        self, mean: Tensor, variance: Tensor, start: int, levels: slice, images: int
    ) -> tuple[Tensor, Tensor]:
        """Return scale and shift, [levels, C - start], for probes of inputs with these batch moments.

        Args:
            mean: Means [levels, C - start]; used in training mode, like ``variance``.
            variance: Biased variances [levels, C - start].
            start: First channel.
            levels: Indices of the levels.
            images: Number of images that the moments are of, by which several processes weight theirs.
        """
        del images
        if not self.training:
            mean, variance = self.running_mean[levels, start:], self.running_var[levels, start:]
        scale = self.weight[start:] * (variance + self.eps).rsqrt()
        return scale, torch.addcmul(self.bias[start:], mean, scale, value=-1)

    def probes(self, x: Tensor, start: int, levels: slice) -> Tensor:
        """Normalise [B, levels, C - start], each level by its own statistics, and leave the running ones unchanged."""
        mean = var = None
        if not self.training:
            mean, var = self.running_mean[levels, start:].flatten(), self.running_var[levels, start:].flatten()
        plain = F.batch_norm(x.flatten(1), mean, var, None, None, self.training, 0.0, self.eps).view(x.shape)
        return torch.addcmul(self.bias[start:], plain, self.weight[start:])

    def state_at(self, start: int, level: int) -> dict[str, Tensor]:
        """Return the state of an equal ``BatchNorm2d`` at ``level``."""
        assert self.num_batches_tracked is not None
        return {
            "weight": self.weight[start:],
            "bias": self.bias[start:],
            "running_mean": self.running_mean[level, start:],
            "running_var": self.running_var[level, start:],
            "num_batches_tracked": self.num_batches_tracked[level],
        }
