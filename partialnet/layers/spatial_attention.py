"""Partial spatial attention (PAT_sp): half of the channels gated by a map, half convolved 1x1.

Source: PartialNet (arXiv 2502.01303).
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which takes no strings.
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers import kernels
from partialnet.layers.folding import Folding, NormBefore
from partialnet.layers.linear_algebra import batch_norm_affine, weights, with_weights
from partialnet.layers.recording import is_recorded, is_scripting

LEAST_SCALE = 1e-12  # of a normalisation, to be moved before a gate that is to see what it saw


class PartialSpatialAttention(nn.Module):
    """Gate the first half of the channels by one map of theirs; normalise and convolve the last half.

    Args:
        channels: Width of input and output; even.

    Raises:
        ArchitectureError: If ``channels`` is odd.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = half_width(channels)
        self.gate = nn.Conv2d(self.width, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.width)
        self.conv_norm = nn.BatchNorm2d(self.width)
        self.conv = nn.Conv2d(self.width, self.width, 1, bias=False)

    def foldings(self) -> list[Folding]:
        """What :func:`partialnet.fuse.fuse` may fold here, whatever comes before."""
        return [NormBefore("conv_norm", "conv")]

    def absorbed_by(self, conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Module]:
        """Hand the convolved half, and the scale of the gated half, to the pointwise convolution before.

        Args:
            conv: What computes this module's input, and nothing else's.

        Returns:
            The convolution that does both, and the gating that is left.
        """
        weight, bias = weights(conv)
        weight = weight.flatten(1)
        scale, shift = batch_norm_affine(self.norm)
        gate = self.gate.weight.detach().double()
        norm: nn.BatchNorm2d | None = None
        if bool((scale.abs() > LEAST_SCALE).all()):
            gate = gate / scale.view(1, -1, 1, 1)
        else:  # a channel scaled to 0 still feeds the gate, so the scale cannot move before it
            norm, scale = self.norm, torch.ones_like(scale)
        conv_scale, conv_shift = batch_norm_affine(self.conv_norm)
        matrix, offset = weights(self.conv)
        matrix = matrix.flatten(1)
        merged_weight = matrix @ (conv_scale[:, None] * weight[self.width :])
        merged_bias = matrix @ (conv_scale * bias[self.width :] + conv_shift) + offset
        absorbing = with_weights(
            conv,
            torch.cat((scale[:, None] * weight[: self.width], merged_weight)),
            torch.cat((scale * bias[: self.width], merged_bias)),
        )
        return absorbing, GatedHalf(gate.to(self.gate.weight), shift.to(self.gate.weight), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        gated, convolved = torch.split(x, self.width, dim=1)
        gated = self.norm(gated * F.hardsigmoid(self.gate(gated)))
        return torch.cat((gated, self.conv(self.conv_norm(convolved))), dim=1)


class FullSpatialAttention(nn.Module):
    """Gate all channels by one map of theirs; then normalise the first half, normalise and convolve the last half.

    What the papers' ablation compares with :class:`PartialSpatialAttention`.

    Args:
        channels: Width of input and output; even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = half_width(channels)
        self.gate = nn.Conv2d(channels, 1, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(self.width)
        self.conv_norm = nn.BatchNorm2d(self.width)
        self.conv = nn.Conv2d(self.width, self.width, 1, bias=False)

    def foldings(self) -> list[Folding]:
        """What the inference form may fold here; the gate keeps the convolution from moving before it."""
        return [NormBefore("conv_norm", "conv")]

    def absorbed_by(self, conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Module]:
        """Hand the scale of the first half to the pointwise convolution before, if no channel is scaled to 0.

        Args:
            conv: What computes this module's input, and nothing else's.

        Returns:
            The convolution that scales too, and the attention that is left.
        """
        rest = copy.deepcopy(self)
        if isinstance(self.norm, Shift):
            return conv, rest
        scale, shift = batch_norm_affine(self.norm)
        if not bool((scale.abs() > LEAST_SCALE).all()):
            return conv, rest
        scale = torch.cat((scale, torch.ones_like(scale)))
        weight, bias = weights(conv)
        rest.gate.weight = nn.Parameter((self.gate.weight.detach() / scale.view(1, -1, 1, 1)).to(self.gate.weight))
        rest.norm = Shift(shift.to(self.gate.weight))
        return with_weights(conv, scale[:, None] * weight.flatten(1), scale * bias), rest

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        normed, convolved = torch.split(x * F.hardsigmoid(self.gate(x)), self.width, dim=1)
        return torch.cat((self.norm(normed), self.conv(self.conv_norm(convolved))), dim=1)


class Shift(nn.Module):
    """Add a number to every channel: what is left of a normalisation whose scale has gone elsewhere.

    Args:
        shift: [C].
    """

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift.detach().clone().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return x + self.shift


def half_width(channels: int) -> int:
    """Return half of ``channels``.

    Raises:
        ArchitectureError: If it is no integer.
    """
    if channels < 2 or channels % 2:
        raise ArchitectureError(f"spatial attention over {channels} channels: cannot be halved; must be even")
    return channels // 2


class Shortcut(nn.Module):
    """Add what goes around a branch to what comes out of it."""

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return the sum of two maps [B, C, H, W]."""
        return shortcut + x


class GatedHalf(nn.Module):
    """What is left of :class:`PartialSpatialAttention` in the inference form: gate the first half, pass the last.

    Where it ends a branch, it takes the place of :class:`Shortcut` and adds the shortcut too, so that the map is read
    and written once. Without gradients it works in place: its input is what the convolution before it has just made
    (see ``Absorb``).

    Args:
        gate: Weight of the map that gates: as many elements as the gated half has channels.
        shift: Added to the gated half: [C / 2].
        norm: Stands for scale and shift where the scale could not be folded.
    """

    def __init__(self, gate: Tensor, shift: Tensor, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.width = len(shift)
        # A matrix: as a convolution to one channel, runtimes pad it to a whole block of channels.
        self.gate = nn.Parameter(gate.detach().clone().view(1, self.width))
        self.norm = norm
        self.shift = nn.Parameter(shift.detach().clone().view(1, -1, 1, 1)) if norm is None else None

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Map [B, C, H, W] to the same shape; add ``shortcut`` if there is one."""
        if is_scripting():
            out = self._copied(x)
            return out if shortcut is None else shortcut + out
        else:  # noqa: RET505 (TorchScript leaves alone only what stands in a branch)
            if shortcut is not None and self.shift is not None and kernels.serves(x):
                return kernels.gated_shortcut(  # type: ignore[no-any-return]
                    x, shortcut, self.gate.view(-1), self.shift.view(-1)
                )
            # In a traced graph a write into a part of a map would copy the whole of it.
            if self.shift is None or torch.is_grad_enabled() or is_recorded():
                out = self._copied(x)
            else:
                out = self._in_place(x)
                if shortcut is not None and shortcut.dtype == out.dtype:
                    return out.add_(shortcut)
            return out if shortcut is None else shortcut + out

    def _copied(self, x: Tensor) -> Tensor:
        gated, passed = x.narrow(1, 0, self.width), x.narrow(1, self.width, self.width)
        shift = self.shift
        if shift is None:
            norm = self.norm
            assert norm is not None
            return torch.cat((norm(gated * self._gates(gated)), passed), dim=1)
        return torch.cat((torch.addcmul(shift, gated, self._gates(gated)), passed), dim=1)

    def _in_place(self, x: Tensor) -> Tensor:
        assert self.shift is not None
        gated = x.narrow(1, 0, self.width)
        torch.addcmul(self.shift, gated, self._gates(gated), out=gated)
        return x

    def _gates(self, gated: Tensor) -> Tensor:
        """Return what the gated half is scaled by: [B, 1, H, W]."""
        return F.hardsigmoid(torch.matmul(self.gate, gated.flatten(2))).view(-1, 1, gated.shape[2], gated.shape[3])
