"""Decoded images, kept outside the data roots so that tens of thousands of small files are decoded only once."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import PIL
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from partialnet.data.images import open_image, square, to_pixels
from partialnet.data.stored import StoredImage
from partialnet.data.workers import default_workers
from partialnet.errors import DataChanged, DataError
from partialnet.files import save_safetensors, whole_file

VARIABLE = "PARTIALNET_CACHE"
_SCHEMA = 2  # of the pixels: raised when a file is decoded to others than before
_CHUNK = 500
_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Return the folder of decoded images: ``PARTIALNET_CACHE``, or the platform's folder for a user's caches."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "partialnet"


def decode_cached(name: str, files: Sequence[StoredImage], channels: int, size: int | None) -> Tensor:
    """Return the pixels of ``files``, decoded now or earlier.

    Only the first of several processes decodes; the others wait for it. If the folder is not writable, the images are
    decoded each time, with a warning.

    Args:
        name: Name of the data set and split, for the file's name and messages.
        files: Encoded images.
        channels: Number of colour channels, 1 or 3.
        size: Height and width to scale to, in pixels; None keeps the images' own size, which must then be equal.

    Returns:
        Images, uint8 [N, C, H, W].

    Raises:
        DataError: If an image cannot be read or has another size; the message names the file.
    """
    fingerprint = _fingerprint(files, channels, size)
    file = cache_directory() / f"{name}-{fingerprint[:16]}.safetensors"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            images = _read(file, fingerprint)
            if images is None:
                images = decode(name, files, channels, size)
                _write(file, fingerprint, images)
            return images
    except OSError as error:
        _log.warning(
            "%s: decoded images cannot be kept in %s (%s); set %s to a folder that can be written",
            name, file.parent, error.strerror or error, VARIABLE,
        )
        return decode(name, files, channels, size)


def decode(name: str, files: Sequence[StoredImage], channels: int, size: int | None) -> Tensor:
    """Decode all of ``files`` with several threads; arguments and errors are those of :func:`decode_cached`."""
    first = _decode_one(files[0], channels, size)
    images = torch.empty((len(files), *first.shape), dtype=torch.uint8)

    def fill(start: int) -> int:
        part = files[start : start + _CHUNK]
        for index, file in enumerate(part, start):
            pixels = _decode_one(file, channels, size)
            if pixels.shape != first.shape:
                raise DataError(
                    f"{file}: is {pixels.shape[2]}x{pixels.shape[1]} pixels, but {files[0]} is "
                    f"{first.shape[2]}x{first.shape[1]}; all images of {name} must be of one size"
                )
            images[index] = pixels
        return len(part)

    _log.info("%s: decoding %d images", name, len(files))
    done, told = 0, time.monotonic()
    with ThreadPoolExecutor(default_workers()) as pool:
        futures = [pool.submit(fill, start) for start in range(0, len(files), _CHUNK)]
        try:
            for future in as_completed(futures):
                done += future.result()
                if time.monotonic() - told > 2:
                    told = time.monotonic()
                    _log.info("%s: decoded %d of %d images", name, done, len(files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


def readable(files: Sequence[StoredImage], channels: int) -> tuple[Tensor, list[str]]:
    """Return the places of the files that can be read, int64 [N], and a line about the others, if there are any.

    Raises:
        DataError: If none can be read, or one has changed.
    """

    def fault(file: StoredImage) -> str | None:
        try:
            open_image(file, channels)
        except DataChanged:
            raise
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(default_workers()) as pool:
        faults = list(pool.map(fault, files))
    broken = [text for text in faults if text is not None]
    if len(broken) == len(files):
        raise DataError(f"all {len(files)} images are broken, such as {broken[0]}")
    lines = [f"{len(broken)} of {len(files)} images are skipped: {broken[0]}"] if broken else []
    return torch.tensor([place for place, text in enumerate(faults) if text is None]), lines


def _decode_one(file: StoredImage, channels: int, size: int | None) -> Tensor:
    image = open_image(file, channels)
    return to_pixels(image if size is None else square(image, size))


def _fingerprint(files: Sequence[StoredImage], channels: int, size: int | None) -> str:
    """Hash the files' contents, and everything else that decides the pixels.

    Names, sizes and times do not tell images apart: archives are packed with equal times, and BMP files of equal
    dimensions have equal sizes. Reading 50 000 small JPEG files takes a second, decoding them ten.
    """
    digest = hashlib.sha256(f"{_SCHEMA}:{PIL.__version__}:{channels}:{size}".encode())

    def digests(start: int) -> bytes:
        return b"".join(_content_digest(file) for file in files[start : start + _CHUNK])

    with ThreadPoolExecutor(default_workers()) as pool:
        for part in pool.map(digests, range(0, len(files), _CHUNK)):
            digest.update(part)
    return digest.hexdigest()


def _content_digest(file: StoredImage) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _read(file: Path, fingerprint: str) -> Tensor | None:
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            if (content.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            images = content.get_tensor("images")
    except (SafetensorError, OSError) as error:
        _log.warning("%s: damaged (%s), decoding again", file, error)
        return None
    return images if images.dtype == torch.uint8 and images.ndim == 4 else None


def _write(file: Path, fingerprint: str, images: Tensor) -> None:
    try:
        with whole_file(file) as fresh:
            save_safetensors({"images": images}, fresh, {"fingerprint": fingerprint})
    except (OSError, SafetensorError) as error:  # a full disk must not cost the decoded images
        _log.warning("%s: decoded images cannot be kept (%s)", file, error)
