"""Partial convolution in three parts: the first channels are convolved, the last attended to, those between pass.

Source: the frame of PartialNet (arXiv 2502.01303), of which two parts are a case.
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which accepts no strings.
import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers.partial_conv import PartialConv2d, RestKind, check_partial_conv, make_rest


class ThreePartConv2d(PartialConv2d):
    """Convolve the first channels, attend to the last ones, and pass those between as they are.

    Args:
        channels: Width C of input and output.
        active_channels: Number n of convolved channels.
        attended_channels: Number of channels with the rest's operation, less than C - n; 0 for none.
        kernel_size: Odd size of the kernel.
        rest: Operation on the attended channels, not ``"identity"``; see
            :class:`~partialnet.layers.partial_conv.PartialConv2d`.
        num_heads: Number of heads of the self-attention, which divides ``attended_channels``.
        attn_drop: Dropout of the self-attention in training.

    Raises:
        ArchitectureError: If the width cannot be divided so; the message says what would be right.
    """

    def __init__(
        self,
        channels: int,
        active_channels: int,
        attended_channels: int,
        kernel_size: int = 3,
        *,
        rest: RestKind = "channel_attention",
        num_heads: int = 4,
        attn_drop: float = 0.1,
    ) -> None:
        super().__init__(channels, active_channels, kernel_size, rest="identity")
        check_partial_conv(channels, kernel_size, rest, num_heads)
        left = channels - active_channels
        if rest == "identity":
            raise ArchitectureError(f"attended_channels is {attended_channels}, but rest 'identity' attends to none")
        if not 0 <= attended_channels < left:
            raise ArchitectureError(
                f"attended_channels is {attended_channels}, but must be at least 0 and less than {left}, the channels "
                "that are not convolved"
            )
        if rest == "self_attention" and attended_channels % num_heads:
            raise ArchitectureError(
                f"attended_channels is {attended_channels}, but must be a multiple of {num_heads}, the attention heads"
            )
        self.rest_kind = rest
        self.num_heads = num_heads
        self._attended = attended_channels
        self.rest = nn.Identity()
        if attended_channels:
            self.rest = make_rest(rest, attended_channels, num_heads=num_heads, attn_drop=attn_drop)

    @property
    def attended_channels(self) -> int:
        """Number of channels with the rest's operation."""
        return self._attended

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        passed = self.channels - self.active_channels - self._attended
        if self._attended == 0:
            active, left = torch.split(x, [self.active_channels, passed], dim=1)
            return torch.cat((self.conv(active), left), dim=1)
        active, left, rest = torch.split(x, [self.active_channels, passed, self._attended], dim=1)
        return torch.cat((self.conv(active), left, self.rest(rest)), dim=1)  # type: ignore[misc]  # it has one here

    def extra_repr(self) -> str:
        """Return the text for ``repr``."""
        return f"{super().extra_repr()}, attended_channels={self._attended}"
