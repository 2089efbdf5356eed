"""Channel attention: what the convolution leaves over in the first stages of PartialNet (PAT_ch).

Sources: Gaussian attention, PartialNet (arXiv 2502.01303); squeeze and excitation, SE (arXiv 1709.01507); style-based
recalibration, SRM (arXiv 1903.10829). All gates are hard sigmoids here, so that the kinds differ in what they see.
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which takes no strings.
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers import kernels
from partialnet.layers.folding import Folding, NormAfter
from partialnet.layers.kernels import plain
from partialnet.layers.recording import is_exporting, is_scripting


def gaussian_statistics(x: Tensor) -> Tensor:
    """Return mean and unbiased standard deviation of every channel over space, stacked in that order.

    The standard deviation of a 1x1 map is not defined; it is 0 here.

    Args:
        x: [B, C, H, W].

    Returns:
        [B, C, 1, 2].
    """
    if is_scripting():
        return _statistics_in_two_passes(x)
    else:  # noqa: RET505 (TorchScript leaves alone only what stands in a branch)
        if not kernels.on_gpu(x) or not kernels.runs_free():
            return _statistics_in_two_passes(x)
        compiled = torch.compiler.is_compiling()  # a compiler makes one pass of the plain form as well
        return kernels.channel_statistics(x) if kernels.serves(x) and not compiled else plain.statistics(x)


def _statistics_in_two_passes(x: Tensor) -> Tensor:
    # Both vectorised: torch.std_mean works through one number after the other, 17 times as long on a CPU. And unlike a
    # root, a norm has a gradient where all is equal.
    mean = x.mean((2, 3), keepdim=True)
    centred = x - mean
    if is_exporting():  # norm and power are slow in ONNX Runtime; gradients do not matter here
        norm = (centred * centred).sum((2, 3), keepdim=True).sqrt()
    else:
        norm = torch.linalg.vector_norm(centred, dim=(2, 3), keepdim=True)
    return torch.cat((mean, norm / max(1, x.shape[2] * x.shape[3] - 1) ** 0.5), dim=3)


class GaussianChannelAttention(nn.Module):
    """Scale every channel by a gate that sees the mean and the standard deviation of all of them.

    Args:
        channels: Width of input and output.
        depthwise: Whether a gate sees those of its own channel alone (SRM).
    """

    def __init__(self, channels: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 2), groups=channels if depthwise else 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def foldings(self) -> list[Folding]:
        """What :func:`partialnet.fuse.fuse` may fold here."""
        return [NormAfter("conv", "norm")]

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Map [B, C, H, W] to the same shape, into ``out`` if it is given."""
        return _product(x, F.hardsigmoid(self.norm(self.conv(gaussian_statistics(x)))), out)


class SqueezeExcitation(nn.Module):
    """Scale every channel by a gate that sees the means of all of them through a bottleneck of a quarter (SE).

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = squeezed_channels(channels)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Map [B, C, H, W] to the same shape, into ``out`` if it is given."""
        return _product(x, F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))), out)


def _product(x: Tensor, gates: Tensor, out: Tensor | None) -> Tensor:
    return x * gates if out is None else torch.mul(x, gates, out=out)


def squeezed_channels(channels: int) -> int:
    """Return the width of the bottleneck of SE: a quarter, 1 at least."""
    return max(1, channels // 4)


class ChannelAttentionRest(nn.Module):
    """Channel attention, then batch normalisation.

    Args:
        channels: Width of input and output: those that the convolution leaves.
        kind: ``"channel_attention"`` (Gaussian), ``"se_attention"`` or ``"srm_attention"``.
    """

    def __init__(self, channels: int, kind: str = "channel_attention") -> None:
        super().__init__()
        self.attention = (
            SqueezeExcitation(channels)
            if kind == "se_attention"
            else GaussianChannelAttention(channels, depthwise=kind == "srm_attention")
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Map [B, C, H, W] to the same shape, into ``out`` if it is given; nothing but this writes there."""
        normed: Tensor = self.norm(self.attention(x, out))
        return normed if out is None or normed is out else out.copy_(normed)
