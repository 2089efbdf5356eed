"""What batches ask of a source of images: pieces of it, read in one way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from partialnet.data.augment import Draw, Standard
from partialnet.data.augmentation import Interpolation
from partialnet.data.catalog import LARGEST_IN_MEMORY

if TYPE_CHECKING:
    from partialnet.data.strong import RandAugment

Augment = Literal["none", "standard"]


@dataclass(frozen=True)
class Transform:
    """Conversion of pixels to inputs.

    Args:
        mean: Mean of the pixels in [0, 1] for each channel.
        std: Standard deviation of the pixels in [0, 1] for each channel.
        flip: Whether the standard augmentation mirrors images.
        size: Height and width of the inputs, in pixels.
        crop: Share of the shorter side that the central square of an image file has, without augmentation.
        interpolation: Filter that scales image files.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    size: int
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"

    @property
    def padding(self) -> int:
        """Largest shift of the standard augmentation: 4 pixels of 32, 1 of 8."""
        return max(1, self.size // 8)

    @property
    def cuts(self) -> bool:
        """Whether the standard augmentation cuts out random parts instead of shifting."""
        return self.size > LARGEST_IN_MEMORY


@dataclass(frozen=True)
class Piece:
    """Images to read at once.

    Args:
        indices: Indices of the images, int64 [B].
        draw: Random numbers of their augmentation.
        size: Height and width in pixels; None for that of the source.
        seeds: Seed of each image's RandAugment; unused without one.
    """

    indices: Tensor
    draw: Draw = field(default_factory=Draw)
    size: int | None = None
    seeds: tuple[int, ...] = ()

    def rows(self, places: Sequence[int]) -> Piece:
        """Return the piece with only some of its images."""
        chosen = torch.tensor(list(places), dtype=torch.int64)
        seeds = tuple(self.seeds[place] for place in places) if self.seeds else ()
        return Piece(self.indices[chosen], self.draw.rows(chosen), self.size, seeds)


@dataclass(frozen=True)
class Reading:
    """The way in which a source reads images.

    Args:
        device: Device of the images.
        smallest_crop: Smallest share of the area in random crops.
        rand_augment: RandAugment of each image, if there is one.
    """

    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    smallest_crop: float = 0.25
    rand_augment: RandAugment | None = None


class Readable(Protocol):
    """Images of one split with their classes, in a fixed order.

    Attributes:
        targets: Class of each image, int64 [N].
    """

    targets: Tensor

    def __len__(self) -> int:
        """Return the number of images."""

    @property
    def transform(self) -> Transform:
        """Conversion of pixels to inputs."""

    @property
    def skips(self) -> bool:
        """Whether images that cannot be read are left out of batches."""

    def standard(self, augment: Augment) -> Standard:
        """Return the random numbers that ``augment`` draws for these images."""

    def inputs(self, pieces: Sequence[Piece], reading: Reading) -> Iterator[tuple[Piece, Tensor]]:
        """Yield each piece with its images, normalised float32 [B, C, H, W] on the device.

        A piece is without its broken images if the source skips them.
        """
