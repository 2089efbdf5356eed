"""Single images: from a file to pixels, and from pixels to the input of a network."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor
from torch.nn import functional

from partialnet.data.augment import Box
from partialnet.data.stored import StoredImage
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
_CACHED = 1 << 17  # pixels that fit into the cache in float32
_JPEG_SCALES = (2, 4, 8)
_LYING = (5, 6, 7, 8)  # EXIF orientations whose width is the height of the upright image


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


def open_image(file: StoredImage, channels: int, *, background: int = BACKGROUND) -> Image.Image:
    """Read an image, turned upright, as grey (1 channel) or RGB (3) of 8 bits.

    Grey levels of 16 bits are scaled to 8. Of several frames, the first one is read.

    Args:
        file: Image in a format that Pillow reads, such as the path of a file.
        channels: 1 or 3.
        background: Grey level, 0 to 255, on which transparent pixels are laid.

    Raises:
        DataError: If the file cannot be read as an image, or its values have no known range (32-bit integers, floating
            point); the message names it.
    """
    if not 0 <= background <= 255:
        raise DataError(f"background is {background}, but must be a grey level from 0 to 255")
    with _opened(file) as image:
        return _plain(image, channels, background)


def open_part(
    file: StoredImage, channels: int, place: Callable[[int, int], Box], size: int, interpolation: str
) -> NDArray[np.uint8]:
    """Read a part of an image as a square of ``size`` pixels, otherwise as :func:`open_image` does.

    A JPEG is decoded at the smallest scale (1/2, 1/4, 1/8) that leaves the part at least ``size`` pixels wide and high.
    The part has whole pixels, and torch scales it: in a third of Pillow's time, with its rounding.

    Args:
        file: Image in a format that Pillow reads.
        channels: 1 or 3.
        place: Function that returns the part (left, top, right, bottom) of an upright image of a width and height.
        size: Height and width of the result in pixels.
        interpolation: Filter that scales it, a key of :data:`FILTERS`.

    Returns:
        Pixels [size, size, C].

    Raises:
        DataError: If the file cannot be read as an image; the message names it.
    """
    with _opened(file) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
        box = place(*(image.size[::-1] if turned else image.size))
        scale = 1
        if isinstance(image, JpegImageFile):
            spare = min(box[2] - box[0], box[3] - box[1]) / size
            scale = max((known for known in _JPEG_SCALES if known <= spare), default=1)
            if scale > 1:
                image.draft(None, (image.width // scale, image.height // scale))
        whole = _plain(image, channels, BACKGROUND)
        left, right = _whole_pixels(box[0] / scale, box[2] / scale, whole.width)
        top, bottom = _whole_pixels(box[1] / scale, box[3] / scale, whole.height)
        part = np.array(whole.crop((left, top, right, bottom))).reshape(bottom - top, right - left, channels)
    # Seen as [1, C, H, W], the array is in channels-last layout, for which torch has a fast path of its own.
    scaled = functional.interpolate(
        torch.from_numpy(part).permute(2, 0, 1)[None], (size, size), mode=interpolation, antialias=True
    )
    pixels: NDArray[np.uint8] = scaled[0].permute(1, 2, 0).numpy()
    return pixels


def _whole_pixels(first: float, last: float, length: int) -> tuple[int, int]:
    """Return the whole pixels nearest to a range within ``length`` pixels; at least one."""
    start = min(round(first), length - 1)
    return start, max(start + 1, min(round(last), length))


@contextmanager
def _opened(file: StoredImage) -> Iterator[Image.Image]:
    """Yield an encoded image inside the block, whose errors name it.

    Raises:
        DataError: If it cannot be read; the message names it.
    """
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            yield image
    except DataError as error:
        raise type(error)(f"{file}: {error}") from None
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "does not exist"
        raise DataError(f"{file}: {what}; name an image file") from None
    except Exception as error:  # decoders of damaged files raise exceptions of many types
        raise DataError(f"{file}: cannot be read as an image ({error}); replace or remove it") from error


def _plain(image: Image.Image, channels: int, background: int) -> Image.Image:
    if channels not in _MODES:
        raise DataError(f"images have 1 channel (grey) or 3 (RGB), but {channels} were requested")
    plain, mode = _opaque(_eight_bits(image), background), _MODES[channels]
    return plain if plain.mode == mode else plain.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return ``image`` upright, in a mode of at most 8 bits a channel; Pillow's own conversion would clip at 255."""
    deepest = _largest_value(image)
    ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies upright images as well
    image.load()
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


def cut_out(image: Image.Image, box: Box, size: int, interpolation: str = "bilinear") -> Image.Image:
    """Scale ``box`` (left, top, right, bottom, in pixels) to a square of ``size`` pixels, with antialiasing."""
    return image.resize((size, size), FILTERS[interpolation], box=box)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels [H, W, C]."""
    array = np.array(image, dtype=np.uint8)
    return array if array.ndim == 3 else array[:, :, None]


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels [H, W, C] as an image, grey with one channel."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))


def to_pixels(image: Image.Image) -> Tensor:
    """Return the pixels as uint8 [C, H, W]."""
    return torch.from_numpy(to_array(image)).permute(2, 0, 1)


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
    inputs = torch.empty_like(images, dtype=torch.float32)
    # Whole batches of photographs leave the processor's cache between the two steps.
    count = max(1, _CACHED // images[0].numel()) if images.device.type == "cpu" and len(images) else max(1, len(images))
    for part, out in zip(torch.split(images, count), torch.split(inputs, count), strict=True):
        torch.mul(part, both[0], out=out)
        out.sub_(both[1])
    return inputs


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
