"""Settings of the augmentation beyond shifts, crops and mirrors, and of the sizes of images. Loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from partialnet.errors import DataError

Interpolation = Literal["bilinear", "bicubic"]
_SECTION = r"(m\d+|n\d+|p[01](\.\d+)?|mstd\d+(\.\d+)?|mmax\d+|inc[01])"
_RAND_AUGMENT = re.compile(rf"(rand-)?{_SECTION}(-{_SECTION})*")


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images beyond the standard one; all of it is off by default.

    Args:
        rand_augment: RandAugment of each image in timm's words, such as ``"m7-mstd0.5-inc1"``; empty for none.
        erasing: Probability that a random part of an image becomes noise.
        mixup: Parameter of the Beta distribution of mixup; 0 turns it off.
        cutmix: Parameter of the Beta distribution of cutmix; 0 turns it off. With both, a batch gets one of them.
        mix_probability: Probability that a batch is mixed.
        smallest_crop: Smallest share of the area in random crops, for images above 64 pixels.

    Raises:
        DataError: If a value is out of its range; the message says what would be right.
    """

    rand_augment: str = ""
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    smallest_crop: float = 0.25

    def __post_init__(self) -> None:
        if self.rand_augment and not _RAND_AUGMENT.fullmatch(self.rand_augment):
            raise DataError(
                f"rand_augment is {self.rand_augment!r}, but must be in timm's words, such as m7-mstd0.5-inc1 "
                "(m: magnitude, n: operations, p: probability, mstd: deviation, mmax: largest magnitude, inc: 0 or 1)"
            )
        for name in ("erasing", "mix_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} is {getattr(self, name)}, but must be a probability from 0 to 1")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} is {getattr(self, name)}, but must be at least 0")
        if not 0 < self.smallest_crop <= 1:
            raise DataError(f"smallest_crop is {self.smallest_crop}, but must be above 0 and at most 1")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed; targets are then probabilities, float32 [B, classes]."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True)
class SizeSchedule:
    """Sizes of training images: drawn for each batch, or one after the other.

    Args:
        sizes: Heights and widths in pixels.
        batch_sizes: Number of images in a batch of each size; empty for the same number at all sizes.
        epochs: First epoch (zero-based) of each size, ascending from 0; empty to draw a size for each batch.

    Raises:
        DataError: If the lengths or values do not fit; the message says what would be right.
    """

    sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...] = ()
    epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise DataError(f"sizes is {list(self.sizes)}, but must be one or more sizes in pixels")
        for name in ("batch_sizes", "epochs"):
            values = getattr(self, name)
            if values and len(values) != len(self.sizes):
                key = "size_" + name.removeprefix("batch_").replace("sizes", "batches")
                raise DataError(f"{key} has {len(values)} numbers, but there are {len(self.sizes)} sizes")
        if any(size < 1 for size in self.batch_sizes):
            raise DataError(f"size_batches is {list(self.batch_sizes)}, but each must be at least 1")
        if self.epochs and (self.epochs[0] != 0 or sorted(set(self.epochs)) != list(self.epochs)):
            raise DataError(f"size_epochs is {list(self.epochs)}, but must start at 0 and ascend")

    def batch_size(self, choice: int, default: int) -> int:
        """Return the number of images in a batch of the size at place ``choice``."""
        return self.batch_sizes[choice] if self.batch_sizes else default

    def choice_at(self, epoch: int) -> int:
        """Return the place of the size of ``epoch``, where sizes follow each other."""
        return max(place for place, first in enumerate(self.epochs) if first <= epoch)
