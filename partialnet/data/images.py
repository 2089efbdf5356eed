"""Single images: from a file to pixels, and from pixels to the input of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor
from torch.nn import functional

from partialnet.errors import DataError
from partialnet.transfer import to_device

# The picture formats of Pillow. Its other formats are containers, or need other programs (PostScript).
SUFFIXES = frozenset({
    ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".pbm", ".pcx", ".pgm",
    ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
BACKGROUND = 255
"""Default grey level behind transparent pixels: white."""
_MODES = MappingProxyType({1: "L", 3: "RGB"})
FILTERS: Mapping[str, Image.Resampling] = MappingProxyType(
    {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
)
"""Filters that scale images, by name."""


class Preprocessing(Protocol):
    """Values that turn an image into an input; :class:`partialnet.data.DatasetInfo` has them."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the input."""

    @property
    def mean(self) -> Sequence[float]:
        """Mean of the pixels in [0, 1] for each channel."""

    @property
    def std(self) -> Sequence[float]:
        """Standard deviation of the pixels in [0, 1] for each channel."""

    @property
    def crop(self) -> float:
        """Share of the shorter side that the central square of an image has."""

    @property
    def interpolation(self) -> str:
        """Filter that scales it, a key of :data:`FILTERS`."""


def open_image(path: Path, channels: int, *, background: int = BACKGROUND) -> Image.Image:
    """Read an image, turned upright, as grey (1 channel) or RGB (3) of 8 bits.

    Grey levels of 16 bits are scaled to 8. Of several frames, the first one is read.

    Args:
        path: Image file in a format that Pillow reads.
        channels: 1 or 3.
        background: Grey level, 0 to 255, on which transparent pixels are laid.

    Raises:
        DataError: If the file cannot be read as an image, or its values have no known range (32-bit integers, floating
            point); the message names it.
    """
    if not 0 <= background <= 255:
        raise DataError(f"background is {background}, but must be a grey level from 0 to 255")
    if channels not in _MODES:
        raise DataError(f"images have 1 channel (grey) or 3 (RGB), but {channels} were requested")
    try:
        with Image.open(path) as image:
            return _opaque(_eight_bits(image), background).convert(_MODES[channels])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (FileNotFoundError, IsADirectoryError):
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {what}; name an image file") from None
    except Exception as error:  # decoders of damaged files raise exceptions of many types
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or remove it") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return ``image`` upright, in a mode of at most 8 bits a channel; Pillow's own conversion would clip at 255."""
    deepest = _largest_value(image)
    image = ImageOps.exif_transpose(image)
    if deepest is None:
        return image
    values = np.asarray(image)
    grey = Image.fromarray((values * (255 / deepest)).round().clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:  # the one grey level that is transparent
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _opaque(image: Image.Image, background: int) -> Image.Image:
    """Return ``image`` over a uniform background: dropping alpha would show colours that nobody ever sees."""
    if not image.has_transparency_data:
        return image
    behind = Image.new("RGBA", image.size, (background, background, background, 255))
    return Image.alpha_composite(behind, image.convert("RGBA"))


def _largest_value(image: Image.Image) -> int | None:
    """Return the value of white of an image of more than 8 bits, None for the others.

    Raises:
        DataError: If the file does not say which value is white.
    """
    if image.mode.startswith("I;16"):
        # Pillow hands out TIFF's grey levels of 12 bits as they are.
        bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
        return int(2**bits - 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 2**16 - 1
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise DataError(
            f"its pixels are {kind}, whose black and white are not known; save it with 8 or 16 bits a channel"
        )
    return None


def square(image: Image.Image, size: int, crop: float = 1.0, interpolation: str = "bilinear") -> Image.Image:
    """Cut out the central square, ``crop`` of the shorter side, and scale it to ``size`` pixels."""
    width, height = image.size
    if (width, height) == (size, size) and crop == 1:
        return image
    side = min(width, height) * crop
    left, top = (width - side) / 2, (height - side) / 2
    return cut_out(image, (left, top, left + side, top + side), size, interpolation)


def cut_out(
    image: Image.Image, box: tuple[float, float, float, float], size: int, interpolation: str = "bilinear"
) -> Image.Image:
    """Scale ``box`` (left, top, right, bottom, in pixels) to a square of ``size`` pixels, with antialiasing."""
    return image.resize((size, size), FILTERS[interpolation], box=box)


def to_pixels(image: Image.Image) -> Tensor:
    """Return the pixels as uint8 [C, H, W]."""
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


def preprocess_image(path: Path, preprocessing: Preprocessing, *, background: int = BACKGROUND) -> Tensor:
    """Read one image as the input of a network that was trained on a data set.

    Args:
        path: Path of an image of any size and any format that Pillow reads.
        preprocessing: Input shape and normalisation.
        background: Grey level, 0 to 255, on which transparent pixels are laid; training images lie on white.

    Returns:
        Input, float32 [1, C, H, W].

    Raises:
        DataError: If the file cannot be read as an image, or the input is not square.
    """
    channels, height, width = preprocessing.input_shape
    if height != width:
        raise DataError(f"inputs must be square, but input_shape is {tuple(preprocessing.input_shape)}")
    image = open_image(Path(path), channels, background=background)
    pixels = to_pixels(square(image, height, preprocessing.crop, preprocessing.interpolation))
    return normalize(pixels[None], preprocessing.mean, preprocessing.std)
