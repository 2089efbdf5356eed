"""Augmentation of whole batches of pixels. A generator on the CPU draws all random numbers: equal on each device.

Drawing and applying are apart: a resumed training draws the numbers of the skipped batches, without their images, and
each of several processes draws those of the whole batch and applies its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional

from partialnet.transfer import to_device

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Draw:
    """Random numbers of the standard augmentation for B images; None where it does not apply.

    Args:
        boxes: Numbers that :func:`place_box` needs, float64 [B, 4] in [0, 1).
        shifts: Shifts down and right in pixels, int64 [2, B].
        mirrored: Whether an image is mirrored, bool [B].
    """

    boxes: Tensor | None = None
    shifts: Tensor | None = None
    mirrored: Tensor | None = None

    def rows(self, places: Tensor) -> Draw:
        """Return the numbers of some of the images."""
        return Draw(
            None if self.boxes is None else self.boxes[places],
            None if self.shifts is None else self.shifts[:, places],
            None if self.mirrored is None else self.mirrored[places],
        )


@dataclass(frozen=True)
class Standard:
    """The standard augmentation of a source: which numbers it draws.

    Args:
        cut: Whether a random part of each image is cut out.
        padding: Largest shift in pixels; 0 for none.
        mirror: Whether images are mirrored.
    """

    cut: bool
    padding: int
    mirror: bool

    def draws(self, counts: Iterable[int], generator: torch.Generator) -> Iterator[Draw]:
        """Yield the numbers of each batch of ``counts`` images."""
        ahead: tuple[int, Tensor | None] | None = None
        # Boxes are drawn one batch ahead, because images are decoded one batch ahead of their use.
        for count in chain(counts, [None]):
            coming = None
            if count is not None:
                coming = (count, random_boxes(count, generator) if self.cut else None)
            if ahead is not None:
                size, boxes = ahead
                shifts = random_shifts(size, self.padding, generator) if self.padding else None
                yield Draw(boxes, shifts, random_mirrors(size, generator) if self.mirror else None)
            ahead = coming


def random_shifts(count: int, padding: int, generator: torch.Generator) -> Tensor:
    """Draw the shifts of ``count`` images: int64 [2, count] in 0 to 2 * ``padding``."""
    return torch.randint(0, 2 * padding + 1, (2, count), generator=generator)


def random_mirrors(count: int, generator: torch.Generator) -> Tensor:
    """Draw which of ``count`` images are mirrored, each with probability 1/2: bool [count]."""
    return torch.rand(count, generator=generator) < 0.5


def shift_batch(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Pad each image with black and cut out its own size at the place that ``shifts`` names.

    Args:
        images: Images, uint8 [B, C, H, W].
        padding: Number of pixels on each side, which is the largest shift.
        shifts: Result of :func:`random_shifts`.
    """
    _, _, height, width = images.shape
    offsets = to_device(shifts, images.device)
    padded = functional.pad(images, (padding, padding, padding, padding))
    rows = offsets[0, :, None] + torch.arange(height, device=images.device)
    columns = offsets[1, :, None] + torch.arange(width, device=images.device)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices around a slice put its axis (channels) last.
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip_batch(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images [B, C, H, W] left to right for which ``mirrored`` [B] is true."""
    if images.device.type == "cpu":
        flipped = images.clone()
        flipped[mirrored] = images[mirrored].flip(3)
        return flipped
    # On a GPU, the number of mirrored images must not be waited for.
    return torch.where(to_device(mirrored, images.device)[:, None, None, None], images.flip(3), images)


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Draw the numbers that :func:`place_box` needs for ``count`` images: float64 [count, 4] in [0, 1)."""
    return torch.rand(count, 4, generator=generator, dtype=torch.float64)


def place_box(draw: Tensor, width: int, height: int, smallest: float = 0.25) -> Box:
    """Return a random part of an image: an area of ``smallest`` to 1, an aspect of 3/4 to 4/3, anywhere.

    Args:
        draw: Row of :func:`random_boxes`.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
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
