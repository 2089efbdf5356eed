"""Partial convolution with a fixed split: the first channels are convolved, a cheap operation serves the rest.

Sources: PConv, FasterNet (arXiv 2303.03667); partial attention convolution, PartialNet (arXiv 2502.01303).
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers import kernels
from partialnet.layers.channel_attention import ChannelAttentionRest
from partialnet.layers.recording import is_recorded, is_scripting
from partialnet.layers.self_attention import SelfAttentionRest

RestKind = Literal["identity", "channel_attention", "self_attention", "se_attention", "srm_attention"]
REST_KINDS: tuple[str, ...] = get_args(RestKind)


def check_partial_conv(channels: int, kernel_size: int, rest: str, num_heads: int) -> None:
    """Check the arguments that a partial convolution and its learned form share.

    Raises:
        ArchitectureError: If an argument is out of its range; the message gives its name, its value and what would be
            right.
    """
    if channels < 1:
        raise ArchitectureError(f"channels is {channels}, but must be at least 1")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ArchitectureError(f"kernel_size is {kernel_size}, but must be odd and at least 1")
    if rest not in REST_KINDS:
        raise ArchitectureError(f"rest is {rest!r}, but must be one of {', '.join(REST_KINDS)}")
    if num_heads < 1:
        raise ArchitectureError(f"num_heads is {num_heads}, but must be at least 1")


def legal_active_channels(channels: int, rest: str = "identity", num_heads: int = 4) -> range:
    """Return all numbers of active channels that a fixed layer of this width can have, ascending.

    They are 1 to ``channels``; with self-attention only those whose remainder the heads divide.
    """
    step = num_heads if rest == "self_attention" else 1
    return range(channels % step or step, channels + 1, step)


def make_rest(rest: str, channels: int, *, num_heads: int = 4, attn_drop: float = 0.1) -> nn.Module:
    """Return the module for ``channels`` channels that are not convolved."""
    if rest == "identity":
        return nn.Identity()
    if rest == "self_attention":
        return SelfAttentionRest(channels, num_heads, attn_drop=attn_drop)
    return ChannelAttentionRest(channels, rest)


class PartialConv2d(nn.Module):
    """Convolve the first ``active_channels`` channels, serve the rest otherwise, concatenate in that order.

    Args:
        channels: Width C of input and output.
        active_channels: Number n of convolved channels; n = C leaves no rest.
        kernel_size: Odd size of the kernel; the convolution pads with zeros to keep the map's size and has no bias.
        rest: Operation on channels n to C - 1: ``"identity"`` (PConv), ``"channel_attention"`` (PAT_ch),
            ``"se_attention"`` or ``"srm_attention"`` (SE or SRM in place of its Gaussian attention), or
            ``"self_attention"`` (PAT_sf).
        num_heads: Number of heads of the self-attention, which divides C - n.
        attn_drop: Dropout of the self-attention in training.

    Attributes:
        conv: Convolution of the first channels.
        rest: Module for the rest; None without a rest.

    Raises:
        ArchitectureError: If the width cannot be split so; the message lists the legal numbers of active channels.
    """

    def __init__(
        self,
        channels: int,
        active_channels: int,
        kernel_size: int = 3,
        *,
        rest: RestKind = "identity",
        num_heads: int = 4,
        attn_drop: float = 0.1,
    ) -> None:
        super().__init__()
        check_partial_conv(channels, kernel_size, rest, num_heads)
        legal = legal_active_channels(channels, rest, num_heads)
        if active_channels not in legal:
            raise ArchitectureError(
                f"active_channels is {active_channels}, but must be one of {describe(legal)} for {channels} channels"
                + (f" with {num_heads} attention heads, which must divide the rest" if legal.step > 1 else "")
            )
        self.channels = channels
        self.active_channels = active_channels
        self.kernel_size = kernel_size
        self.rest_kind = rest
        self.num_heads = num_heads
        self.conv = nn.Conv2d(active_channels, active_channels, kernel_size, padding=kernel_size // 2, bias=False)
        left = channels - active_channels
        self.rest = make_rest(rest, left, num_heads=num_heads, attn_drop=attn_drop) if left else None

    @property
    def attended_channels(self) -> int:
        """Number of channels with the rest's operation: all that are not convolved."""
        return self.channels - self.active_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        if self.rest is None:
            out: Tensor = self.conv(x)
            return out
        active, rest = torch.split(x, [self.active_channels, self.channels - self.active_channels], dim=1)
        convolved = self.conv(active)
        if is_scripting():
            return torch.cat((convolved, self.rest(rest)), dim=1)
        else:  # noqa: RET505 (TorchScript leaves alone only what stands in a branch)
            if is_recorded(x) or torch.is_grad_enabled() or not kernels.on_gpu(x) or convolved.dtype != x.dtype:
                return torch.cat((convolved, self.rest(rest)), dim=1)
            if not isinstance(self.rest, ChannelAttentionRest):
                return torch.cat((convolved, self.rest(rest)), dim=1)
            # Written to its place at once, without a copy of the scaled map: no gain on a CPU.
            out = torch.empty_like(x)
            out.narrow(1, 0, self.active_channels).copy_(convolved)
            self.rest(rest, out.narrow(1, self.active_channels, self.channels - self.active_channels))
            return out

    def extra_repr(self) -> str:
        """Return the text for ``repr``."""
        return f"{self.channels}, active_channels={self.active_channels}, rest={self.rest_kind!r}"


def describe(legal: range | tuple[int, ...]) -> str:
    """Return a short list of ``legal`` numbers for a message."""
    if isinstance(legal, range) and legal.step == 1 and len(legal) > 1:
        return f"{legal[0]} to {legal[-1]}"
    if len(legal) > 8:
        return f"{', '.join(map(str, legal[:4]))}, ..., {legal[-1]}"
    return ", ".join(map(str, legal))
