"""Kernels in Triton: each reads a map once and writes it at most once. Sums are formed in float32.

Maps are given as pixels by channels, by strides: a part of the channels is such a map as well, and so is either layout.
"""
# Parameters of kernels are pointers and numbers, for which Triton has no types that mypy knows.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_PIXELS = 64  # of a tile of the statistics
_CHANNELS = 64  # likewise
_NUMBERS = 4096  # in a tile of the gate: pixels times channels


@triton.jit
def _statistics_kernel(
    x, out, channels, pixels, image_stride, channel_stride, pixel_stride,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = part * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    base = x + image * image_stride + channel * channel_stride
    # Numbers are counted from the first pixel's: squares of what is far from 0 would cancel out.
    origin = tl.load(base, mask=known, other=0.0).to(tl.float32)
    total = tl.zeros((CHANNELS,), tl.float32)
    squares = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)
        inside = (pixel[:, None] < pixels) & known[None, :]
        value = tl.load(base[None, :] + pixel[:, None] * pixel_stride, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - origin[None, :], 0.0)
        total += tl.sum(value, axis=0)
        squares += tl.sum(value * value, axis=0)
    average = total / pixels
    variance = tl.maximum(squares - total * average, 0.0) / tl.maximum(pixels - 1, 1)
    out += image * 2 * channels + channel
    tl.store(out, (origin + average).to(out.dtype.element_ty), mask=known)
    tl.store(out + channels, tl.sqrt(variance).to(out.dtype.element_ty), mask=known)


def statistics(x: Tensor, out: Tensor) -> None:
    """Write mean and unbiased standard deviation (0 for one pixel) of every channel over space.

    Args:
        x: [B, C, H, W]; rows of pixels follow each other without gaps.
        out: [B, 2, C], contiguous.
    """
    images, channels, height, width = x.shape
    block = min(_CHANNELS, triton.next_power_of_2(channels))
    _statistics_kernel[(images, triton.cdiv(channels, block))](
        x, out, channels, height * width, x.stride(0), x.stride(1), x.stride(3),
        PIXELS=_PIXELS, CHANNELS=block,
    )  # fmt: skip


@triton.jit
def _gated_shortcut_kernel(
    x, shortcut, gate, shift, out, pixels, width,
    x_image, x_channel, x_pixel, shortcut_image, shortcut_channel, shortcut_pixel, out_image, out_channel, out_pixel,
    PIXELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, WIDTH)
    known = channel < width
    inside = (pixel < pixels)[:, None] & known[None, :]
    x += image * x_image + pixel[:, None] * x_pixel + channel[None, :] * x_channel
    shortcut += image * shortcut_image + pixel[:, None] * shortcut_pixel + channel[None, :] * shortcut_channel
    out += image * out_image + pixel[:, None] * out_pixel + channel[None, :] * out_channel
    gated = tl.load(x, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(gate + channel, mask=known, other=0.0).to(tl.float32)
    moved = tl.load(shift + channel, mask=known, other=0.0).to(tl.float32)
    score = tl.sum(gated * weight[None, :], axis=1)
    score = tl.minimum(tl.maximum(score + 3.0, 0.0), 6.0) * (1.0 / 6.0)
    gated = gated * score[:, None] + moved[None, :]
    gated += tl.load(shortcut, mask=inside, other=0.0).to(tl.float32)
    tl.store(out, gated.to(out.dtype.element_ty), mask=inside)
    passed = tl.load(x + width * x_channel, mask=inside, other=0.0).to(tl.float32)
    passed += tl.load(shortcut + width * shortcut_channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + width * out_channel, passed.to(out.dtype.element_ty), mask=inside)


def gated_shortcut(x: Tensor, shortcut: Tensor, gate: Tensor, shift: Tensor, out: Tensor) -> None:
    """Write ``shortcut + x``, the first half of the channels of ``x`` gated by a map of theirs and shifted before.

    Args:
        x: [B, C, H, W]; rows of pixels follow each other without gaps, as in ``shortcut`` and ``out``.
        shortcut: As ``x``.
        gate: [C / 2], contiguous.
        shift: [C / 2], contiguous.
        out: As ``x``.
    """
    images, channels, height, width = x.shape
    block = triton.next_power_of_2(channels // 2)
    tile = max(1, min(64, _NUMBERS // block, triton.next_power_of_2(height * width)))
    strides = [stride for t in (x, shortcut, out) for stride in (t.stride(0), t.stride(1), t.stride(3))]
    _gated_shortcut_kernel[(images, triton.cdiv(height * width, tile))](
        x, shortcut, gate, shift, out, height * width, channels // 2, *strides, PIXELS=tile, WIDTH=block,
    )  # fmt: skip
