"""Partial spatial attention (PAT_sp): a map gates half of the channels, a 1x1 convolution serves the other half.

Source: PartialNet (arXiv 2502.01303).
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers import kernels
from partialnet.layers.copying import copied
from partialnet.layers.folding import Folding, NormBefore
from partialnet.layers.linear_algebra import batch_norm_affine, weights, with_weights
from partialnet.layers.recording import is_recorded, is_scripting

LEAST_SCALE = 1e-12  # least scale of a normalisation that can move before a gate without changing the gate's input


class PartialSpatialAttention(nn.Module):
    """Gate the first half of the channels by one map of theirs; normalise and convolve the last half.

    Args:
        channels: Even width of input and output.

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
        """Foldings for :func:`partialnet.fuse.fuse`, whatever the layer before."""
        return [NormBefore("conv_norm", "conv")]

    def absorbed_by(self, conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Module]:
        """Move the convolved half, and the scale of the gated half, into the pointwise convolution before it.

        Args:
            conv: Convolution that computes only this module's input.

        Returns:
            Convolution that does both, and the remaining gating.
        """
        weight, bias = weights(conv)
        weight = weight.flatten(1)
        scale, shift = batch_norm_affine(self.norm)
        gate = self.gate.weight.detach().double()
        norm: nn.BatchNorm2d | None = None
        if bool((scale.abs() > LEAST_SCALE).all()):
            gate = gate / scale.view(1, -1, 1, 1)
        else:  # a channel scaled to 0 still feeds the gate, so the scale cannot move before the gate
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

    The papers' ablation compares it with :class:`PartialSpatialAttention`.

    Args:
        channels: Even width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = half_width(channels)
        self.gate = nn.Conv2d(channels, 1, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(self.width)
        self.conv_norm = nn.BatchNorm2d(self.width)
        self.conv = nn.Conv2d(self.width, self.width, 1, bias=False)

    def foldings(self) -> list[Folding]:
        """Foldings of the inference form; the gate keeps the convolution from moving before it."""
        return [NormBefore("conv_norm", "conv")]

    def absorbed_by(self, conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Module]:
        """Move the scale of the first half into the pointwise convolution before it, if no channel is scaled to 0.

        Args:
            conv: Convolution that computes only this module's input.

        Returns:
            Convolution that also scales, and the remaining attention.
        """
        rest = copied(self)
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
    """Add a number to each channel: the remainder of a normalisation whose scale was folded elsewhere.

    Args:
        shift: Shift [C].
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
        ArchitectureError: If it is not an integer.
    """
    if channels < 2 or channels % 2:
        raise ArchitectureError(f"spatial attention over {channels} channels: cannot be halved; must be even")
    return channels // 2


class Shortcut(nn.Module):
    """Add the input of a branch to its output."""

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return the sum of two maps [B, C, H, W]."""
        return shortcut + x


class GatedHalf(nn.Module):
    """The remainder of :class:`PartialSpatialAttention` in the inference form: gate the first half, pass the last.

    At the end of a branch, it replaces :class:`Shortcut` and adds the shortcut too, so that the map is read and written
    once. Without gradients it works in place, because its input is the fresh output of the convolution before it (see
    ``Absorb``).

    Args:
        gate: Weight of the gating map: one element for each channel of the gated half.
        shift: Shift [C / 2] of the gated half.
        norm: Normalisation that replaces scale and shift if the scale could not be folded.
    """

    def __init__(self, gate: Tensor, shift: Tensor, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.width = len(shift)
        # A matrix: runtimes would pad a convolution to one channel to a whole block of channels.
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
            # In a traced graph a write into a part of a map would copy the whole map.
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
        """Return the factors of the gated half: [B, 1, H, W]."""
        return F.hardsigmoid(torch.matmul(self.gate, gated.flatten(2))).view(-1, 1, gated.shape[2], gated.shape[3])
