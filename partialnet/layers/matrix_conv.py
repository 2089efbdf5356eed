"""Convolutions that are matrix products, computed as such on a GPU."""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which takes no strings.
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers import kernels
from partialnet.layers.recording import is_recorded, is_scripting


class MatrixConv2d(nn.Conv2d):
    """A convolution of single pixels, or of all pixels of a map at once; without gradients, on a GPU, a matrix product.

    The product adds the bias where it is formed; of a convolution, torch adds it in another pass over the map.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to what the convolution makes of it."""
        if is_scripting():
            return self._convolution(input)
        else:  # noqa: RET505 (TorchScript leaves alone only what stands in a branch)
            # A compiler has the bias for nothing, but a convolution of a whole map is slow there as well.
            recorded = is_recorded(input) and not (torch.compiler.is_compiling() and self.kernel_size != (1, 1))
            if recorded or not kernels.on_gpu(input) or not kernels.runs_free():
                return self._convolution(input)
            return self._product(input)

    def _convolution(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, self.weight, self.bias)
        return out

    def _product(self, x: Tensor) -> Tensor:
        whole = self.kernel_size != (1, 1) and x.shape[2:] == self.kernel_size
        if not (whole or (self.kernel_size == (1, 1) and x.is_contiguous(memory_format=torch.channels_last))):
            return self._convolution(x)
        images, _, height, width = x.shape
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        rows = x.permute(0, 2, 3, 1).reshape(-1, weight.shape[1])
        size = (1, 1) if whole else (height, width)
        return F.linear(rows, weight, self.bias).view(images, *size, self.out_channels).permute(0, 3, 1, 2)


def as_matrix_conv(conv: nn.Module) -> None:
    """Make ``conv`` a :class:`MatrixConv2d` if it can be one: in place, so that all that hangs on it stays."""
    if type(conv) is nn.Conv2d and conv.groups == 1 and conv.padding == (0, 0) and conv.dilation == (1, 1):
        pointwise = conv.kernel_size == (1, 1) and conv.stride == (1, 1)
        if pointwise or conv.kernel_size == (1, 2):  # the latter of mean and deviation
            conv.__class__ = MatrixConv2d
