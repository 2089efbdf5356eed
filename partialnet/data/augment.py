"""Augmentation of whole batches of pixels. All randomness comes from a generator on the CPU: equal on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from partialnet.transfer import to_device

Box = tuple[float, float, float, float]


def shift_batch(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad each image with black and cut its own size out again at a random place.

    Args:
        images: uint8 [B, C, H, W].
        padding: Pixels on each side: the largest shift.
        generator: On the CPU.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    offsets = to_device(offsets, images.device)
    padded = functional.pad(images, (padding, padding, padding, padding))
    rows = offsets[0, :, None] + torch.arange(height, device=images.device)
    columns = offsets[1, :, None] + torch.arange(width, device=images.device)
    batch = torch.arange(count, device=images.device)[:, None, None]
    # Indices around a slice put its axis (channels) last.
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip_batch(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    mirrored = to_device(torch.rand(len(images), generator=generator) < 0.5, images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Draw what :func:`place_box` needs for ``count`` images: float64 [count, 4] in [0, 1)."""
    return torch.rand(count, 4, generator=generator, dtype=torch.float64)


def place_box(draw: Tensor, width: int, height: int, smallest: float = 0.25) -> Box:
    """Return a random part of an image: an area of ``smallest`` to 1, an aspect of 3/4 to 4/3, anywhere.

    Args:
        draw: One row of :func:`random_boxes`.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        smallest: Smallest share of the area.

    Returns:
        Left, top, right, bottom in pixels, inside the image.
    """
    area, aspect, across, down = draw.tolist()
    pixels = width * height * (smallest + (1 - smallest) * area)
    ratio = math.exp((2 * aspect - 1) * math.log(4 / 3))
    box_width, box_height = min(width, math.sqrt(pixels * ratio)), min(height, math.sqrt(pixels / ratio))
    left, top = across * (width - box_width), down * (height - box_height)
    return left, top, min(float(width), left + box_width), min(float(height), top + box_height)
