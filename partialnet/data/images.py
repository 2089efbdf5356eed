"""Single images: from a file to pixels, and from pixels to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from partialnet.errors import DataError
from partialnet.transfer import to_device

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MODES = MappingProxyType({1: "L", 3: "RGB"})


class Preprocessing(Protocol):
    """What turns an image into an input; :class:`partialnet.data.DatasetInfo` is one."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    @property
    def mean(self) -> Sequence[float]:
        """Per channel, of pixels in [0, 1]."""

    @property
    def std(self) -> Sequence[float]:
        """Per channel, of pixels in [0, 1]."""


def open_image(path: Path, channels: int) -> Image.Image:
    """Read an image, turned upright, as grey (1 channel) or RGB (3).

    Raises:
        DataError: If the file cannot be read as an image; names it.
    """
    if channels not in _MODES:
        raise DataError(f"images have 1 channel (grey) or 3 (RGB), but {channels} were asked for")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(_MODES[channels])
    except (FileNotFoundError, IsADirectoryError):
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {what}; name an image file") from None
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or remove it") from error


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to ``size`` pixels and cut the square in the middle."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return cut_out(image, (left, top, left + side, top + side), size)


def cut_out(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """Scale ``box`` (left, top, right, bottom, in pixels) to a square of ``size`` pixels, with antialiasing."""
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def to_pixels(image: Image.Image) -> Tensor:
    """Return uint8 [C, H, W]."""
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def resize_pixels(images: Tensor, size: int, chunk: int = 4096) -> Tensor:
    """Scale uint8 [N, C, H, W] to ``size`` x ``size`` pixels, with antialiasing."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    parts = [
        functional.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for part in torch.split(images, chunk)
    ]
    return torch.cat(parts)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return float32 (pixels / 255 - mean) / std of uint8 [B, C, H, W]."""
    scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32))
    shift = torch.tensor(mean, dtype=torch.float32) * 255.0 * scale
    both = to_device(torch.stack((scale, shift)), images.device)[:, :, None, None]
    return images.float() * both[0] - both[1]


def preprocess_image(path: Path, preprocessing: Preprocessing) -> Tensor:
    """Read one image as a network that was trained on a data set expects it.

    Args:
        path: Any size and any format that Pillow reads.
        preprocessing: Input shape and normalisation.

    Returns:
        float32 [1, C, H, W].

    Raises:
        DataError: If the file cannot be read as an image, or the input is not square.
    """
    channels, height, width = preprocessing.input_shape
    if height != width:
        raise DataError(f"inputs must be square, but input_shape is {tuple(preprocessing.input_shape)}")
    pixels = to_pixels(square(open_image(Path(path), channels), height))
    return normalize(pixels[None], preprocessing.mean, preprocessing.std)
