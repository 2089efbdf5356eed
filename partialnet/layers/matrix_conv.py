"""Convolutions that are matrix products, computed as such on a GPU."""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which takes no strings.
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.layers import kernels
from partialnet.layers.recording import is_scripting


class MatrixConv2d(nn.Conv2d):
    """A convolution of single pixels, or of all pixels of a map at once; without gradients, on a GPU, a matrix product.

    The product adds the bias and rectifies where it is formed; after a convolution, torch does so in more passes over
    the map, and a compiler does where a kernel of our own follows. Made of a convolution by :func:`as_matrix_conv`.

    Attributes:
        relu: Whether a rectifier follows.
    """

    relu: bool

    def forward(self, input: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to what the convolution makes of it."""
        if is_scripting():
            return self._convolution(input)
        else:  # noqa: RET505 (TorchScript leaves alone only what stands in a branch)
            free = kernels.on_gpu(input) and kernels.runs_free() and not isinstance(input, torch.fx.Proxy)
            return self._product(input) if free else self._convolution(input)

    def _convolution(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, self.weight, self.bias)
        return F.relu(out, inplace=True) if self.relu else out

    def _product(self, x: Tensor) -> Tensor:
        pointwise = self.kernel_size == (1, 1)
        whole = not pointwise and x.shape[2:] == self.kernel_size
        if not whole and not (pointwise and x.is_contiguous(memory_format=torch.channels_last)):
            return self._convolution(x)
        images, _, height, width = x.shape
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        rows = x.permute(0, 2, 3, 1).reshape(-1, weight.shape[1])
        size = (1, 1) if whole else (height, width)
        if not self.relu:
            out = F.linear(rows, weight, self.bias)
        elif self.bias is None or weight.dtype != rows.dtype:  # under autocast, which does not know the other one
            out = F.linear(rows, weight, self.bias).relu_()
        else:
            out = torch._addmm_activation(self.bias, rows, weight.T)  # a rectifier by default
        return out.view(images, *size, self.out_channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return shown + ", relu" if self.relu else shown


def as_matrix_conv(conv: nn.Module, *, relu: bool = False) -> bool:
    """Make ``conv`` a :class:`MatrixConv2d`, in place so that all that hangs on it stays; return whether it can be one.

    Args:
        conv: What is no plain convolution is left alone.
        relu: Whether a rectifier follows, which it is to take in.
    """
    if type(conv) is not nn.Conv2d or conv.groups != 1 or conv.padding != (0, 0) or conv.dilation != (1, 1):
        return False
    if (conv.kernel_size, conv.stride) != ((1, 1), (1, 1)) and conv.kernel_size != (1, 2):  # mean and deviation
        return False
    conv.__class__ = MatrixConv2d
    cast(MatrixConv2d, conv).relu = relu
    return True
