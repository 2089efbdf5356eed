"""A processor that computes as a GPU with TF32 does: for tests of what must not depend on it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten._scaled_dot_product_flash_attention_for_cpu)
_CONVOLUTIONS = (_aten.convolution, _aten.convolution_backward)


def rounded(tensor: Tensor, *, up: bool) -> Tensor:
    """Return float32 numbers with 10 bits of mantissa, rounded to the nearest, or towards 0 unless ``up``."""
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0x1000 if up else bits) & ~0x1FFF).view(torch.float32).view_as(tensor)


class Tf32(TorchDispatchMode):
    """Round the float32 inputs of convolutions and matrix products to TF32 while torch's switches allow it.

    Each call takes one of two ways of rounding, by chance: the same numbers may be served by several kernels.

    Attributes:
        reduced: How many calls were rounded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reduced = 0
        self._random = random.Random(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._allowed(func.overloadpacket):
            self.reduced += 1
            up = self._random.random() < 0.5
            args = tuple(
                rounded(arg, up=up)
                if isinstance(arg, Tensor) and arg.dtype == torch.float32
                else arg
                for arg in args
            )
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _allowed(operation: Any) -> bool:
        if operation in _CONVOLUTIONS:
            return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")
        return operation in _PRODUCTS and bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
