"""Batch normalisations over the batches of all processes; torch's own works only on GPUs, and only for fixed layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.nn import functional as differentiable

from partialnet.layers.block import suffix
from partialnet.layers.level_norm import LevelBatchNorm2d


class _Moments(NamedTuple):
    """Moments of a channel over all processes.

    Args:
        centred: Inputs without the mean, at least in float32.
        mean: Means [C].
        variance: Biased variances [C].
        unbiased: Factor from biased to unbiased variances.
    """

    centred: Tensor
    mean: Tensor
    variance: Tensor
    unbiased: float

    def normalised(self, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
        scaled = self.centred * _by_channel(torch.rsqrt(self.variance + eps), self.centred)
        if weight is not None and bias is not None:
            scaled = scaled * _by_channel(weight, scaled) + _by_channel(bias, scaled)
        return scaled.to(dtype)

    def remembered_by(self, mean: Tensor, variance: Tensor, momentum: float) -> None:
        """Move running statistics towards these moments."""
        mean.lerp_(self.mean.detach().to(mean.dtype), momentum)
        variance.lerp_((self.variance.detach() * self.unbiased).to(variance.dtype), momentum)


def _moments(input: Tensor) -> _Moments:
    """Return the moments of inputs [B, C, ...] over the batches of all processes."""
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    axes = (0, *range(2, x.ndim))
    count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
    totals = _total(torch.cat((x.sum(axes), count)))
    mean = totals[:-1] / totals[-1]
    # Squares of differences lose no digits where the mean is large.
    centred = x - _by_channel(mean, x)
    variance = _total(centred.square().sum(axes)) / totals[-1]
    values = float(totals[-1].detach())
    return _Moments(centred, mean, variance, values / max(1.0, values - 1))


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[2:]))


def _total(values: Tensor) -> Tensor:
    total: Tensor = differentiable.all_reduce(values)  # type: ignore[no-untyped-call]
    return total


class SummedBatchNorm2d(nn.BatchNorm2d):
    """A batch normalisation over the batches of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, H, W]."""
        if not self.training:
            return super().forward(input)
        found = _moments(input)
        if self.running_mean is not None and self.running_var is not None:
            momentum = self.momentum
            # Batches are not counted inside ``statistics_kept``, whose momentum is 0.
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
            assert momentum is not None
            found.remembered_by(self.running_mean, self.running_var, momentum)
        return found.normalised(self.weight, self.bias, self.eps, input.dtype)


class SummedLevelBatchNorm2d(LevelBatchNorm2d):
    """A batch normalisation with statistics for each level, over the batches of all processes."""

    def forward(self, x: Tensor, start: int, level: int, *, probe: bool = False) -> Tensor:
        """See the base class."""
        if not self.training:
            return super().forward(x, start, level, probe=probe)
        found = _moments(x)
        if not probe:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked[level].add_(1)
            found.remembered_by(self.running_mean[level, start:], self.running_var[level, start:], self.momentum)
        weight, bias = suffix(start, self.weight, self.bias)
        return found.normalised(weight, bias, self.eps, x.dtype)

    def affine(
        self, mean: Tensor, variance: Tensor, start: int, levels: slice, images: int
    ) -> tuple[Tensor, Tensor]:
        """See the base class."""
        if self.training:
            count = mean.new_full((1,), float(images))
            first, second = mean.flatten() * count, (variance + mean.square()).flatten() * count
            totals = _total(torch.cat((first, second, count)))
            mean, square = (totals[:-1] / totals[-1]).view(2, *mean.shape)
            variance = square - mean.square()
        return super().affine(mean, variance, start, levels, images)

    def probes(self, x: Tensor, start: int, levels: slice) -> Tensor:
        """See the base class."""
        if not self.training:
            return super().probes(x, start, levels)
        plain = _moments(x.flatten(1)).normalised(None, None, self.eps, x.dtype).view(x.shape)
        return torch.addcmul(self.bias[start:], plain, self.weight[start:])
