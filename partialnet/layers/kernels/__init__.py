"""Where a map is read once on a GPU: the one place that decides between kernels in Triton and torch's operations.

Kernels are for what a compiler does not fuse: a sum over channels or pixels, and what is then done to the same numbers.
They serve inference alone (no gradients), on a GPU, where Triton is installed; ``torch.compile`` takes them as they
are. A traced, scripted or exported network does not contain them. Before its first use on a device a kernel is compared
with torch's operations there; if it fails, these are used, and a warning says so.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from partialnet.layers.kernels import plain
from partialnet.layers.recording import is_exporting, is_tracing

_INSTALLED = find_spec("triton") is not None
_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_TOLERANCE = 1e-4  # of the comparison, relative to the largest number; a wrong kernel is off by far more


def on_gpu(x: Tensor) -> bool:
    """Return whether ``x`` lies on a GPU."""
    return x.is_cuda


def serves(x: Tensor) -> bool:
    """Return whether kernels may compute with ``x`` here and now."""
    return _INSTALLED and on_gpu(x) and x.dtype in _TYPES and runs_free()


def runs_free() -> bool:
    """Return whether nobody wants gradients, and nobody records what must run elsewhere."""
    return not (torch.is_grad_enabled() or is_exporting() or is_tracing())  # type: ignore[no-untyped-call]


@torch.library.custom_op("partialnet::channel_statistics", mutates_args=())
def channel_statistics(x: Tensor) -> Tensor:
    """Return mean and standard deviation of every channel, [B, C, 1, 2] (see :func:`plain.statistics`)."""
    if _works(x.device):
        return _statistics(x)
    return plain.statistics(x).contiguous(memory_format=torch.channels_last)


@channel_statistics.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], 2, x.shape[1]).mT.unsqueeze(2)


@torch.library.custom_op("partialnet::gated_shortcut", mutates_args=())
def gated_shortcut(x: Tensor, shortcut: Tensor, gate: Tensor, shift: Tensor) -> Tensor:
    """Return ``shortcut`` and the gated ``x`` together (see :func:`plain.gated_shortcut`)."""
    return _gated(x, shortcut, gate, shift) if _works(x.device) else plain.gated_shortcut(x, shortcut, gate, shift)


@gated_shortcut.register_fake
def _(_x: Tensor, shortcut: Tensor, _gate: Tensor, _shift: Tensor) -> Tensor:
    return torch.empty_like(shortcut)


def _statistics(x: Tensor) -> Tensor:
    # Here and below: Triton is loaded where a kernel runs, and nowhere else.
    from partialnet.layers.kernels import triton_kernels

    out = x.new_empty(x.shape[0], 2, x.shape[1])
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        triton_kernels.statistics(_rows(x), out)
    return out.mT.unsqueeze(2)


def _gated(x: Tensor, shortcut: Tensor, gate: Tensor, shift: Tensor) -> Tensor:
    from partialnet.layers.kernels import triton_kernels

    out = torch.empty_like(shortcut)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        triton_kernels.gated_shortcut(_rows(x), _rows(shortcut), gate.contiguous(), shift.contiguous(), out)
    return out


def _rows(x: Tensor) -> Tensor:
    """Return ``x``, copied if its rows of pixels do not follow each other."""
    height, width = x.shape[2:]
    if height == 1 or width == 1:  # the stride of a dimension of one is any number
        return x.contiguous(memory_format=torch.channels_last) if x.stride(2) != width * x.stride(3) else x
    return x if x.stride(2) == width * x.stride(3) else x.contiguous(memory_format=torch.channels_last)


@cache
def _works(device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, shortcut = (torch.randn(2, 24, 5, 7, generator=generator).to(device) for _ in range(2))
    gate, shift = (torch.randn(12, generator=generator).to(device) for _ in range(2))
    expected = plain.gated_shortcut(x.double(), shortcut.double(), gate.double(), shift.double())
    try:
        pairs = ((_statistics(x), plain.statistics(x.double())), (_gated(x, shortcut, gate, shift), expected))
        wrong = any(not float((a - b).abs().max()) <= _TOLERANCE * float(b.abs().max()) for a, b in pairs)
        reason = "their results differ from those of torch's operations" if wrong else ""
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason:
        warnings.warn(f"Triton kernels are not used on {device}, so that inference is slower: {reason}", stacklevel=2)
    return not reason
