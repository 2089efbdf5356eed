"""What the kernels compute, in torch's operations: what runs where there are no kernels, and what they must equal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def statistics(x: Tensor) -> Tensor:
    """Return mean and unbiased standard deviation (0 for one pixel) of every channel over space.

    One pass on a GPU, eager or compiled. Its gradient is not defined where a channel is constant.

    Args:
        x: [B, C, H, W].

    Returns:
        [B, C, 1, 2].
    """
    variance, mean = torch.var_mean(x, (2, 3), correction=min(1, x.shape[2] * x.shape[3] - 1))
    return torch.stack((mean, variance.sqrt()), dim=2).unsqueeze(2)


def gated_shortcut(x: Tensor, shortcut: Tensor, gate: Tensor, shift: Tensor) -> Tensor:
    """Return ``shortcut + x``, the first half of the channels of ``x`` gated by a map of theirs and shifted before.

    Args:
        x: [B, C, H, W].
        shortcut: As ``x``.
        gate: [C / 2], weight of the map before the hard sigmoid.
        shift: [C / 2].
    """
    width = len(gate)
    gated, passed = x.narrow(1, 0, width), x.narrow(1, width, width)
    scores = torch.matmul(gate.view(1, -1), gated.flatten(2)).view(-1, 1, x.shape[2], x.shape[3])
    return shortcut + torch.cat((torch.addcmul(shift.view(1, -1, 1, 1), gated, F.hardsigmoid(scores)), passed), dim=1)
