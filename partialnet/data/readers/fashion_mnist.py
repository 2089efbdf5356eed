"""Fashion-MNIST: four IDX files, packed by gzip or not.

Source: https://github.com/zalandoresearch/fashion-mnist
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partialnet.data.readers.base import Pixels, RawDataset, Request, is_folder, not_found
from partialnet.errors import DataError

_FOLDERS = ("FashionMNIST/raw", "fashion-mnist", "fashion_mnist", "FashionMNIST")
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTE = 0x08


def read_fashion_mnist(request: Request) -> RawDataset:
    """Find and read Fashion-MNIST."""
    for folder in _candidates(request.roots):
        if is_folder(folder) and any(folder.glob("*-idx[13]-ubyte*")):  # any of the four: the others are then missing
            return RawDataset(_CLASSES, _read_split(folder, "train"), None, partial(_read_split, folder, "t10k"))
    raise not_found(
        request, "train-images-idx3-ubyte.gz and the three files beside it in one of " + ", ".join(_FOLDERS)
    )


def _candidates(roots: tuple[Path, ...]) -> Iterator[Path]:
    # MNIST has the same file names: only folders with the right name count, a root among them.
    for root in roots:
        if root.name in _FOLDERS or root.parts[-2:] == ("FashionMNIST", "raw"):
            yield root
        yield from (root / name for name in _FOLDERS)


def _read_split(folder: Path, prefix: str) -> Pixels:
    images_path, labels_path = (
        _find(folder, f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
    )
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(f"{labels_path}: holds {len(labels)} labels for the {len(images)} images of {images_path}")
    if images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: holds images of {images.shape[1:]} pixels, but must hold 28 x 28")
    if labels.max() >= len(_CLASSES):
        raise DataError(f"{labels_path}: holds label {labels.max()}, but labels are 0..{len(_CLASSES) - 1}")
    return Pixels(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: {name}.gz missing; looked for it packed and unpacked; put all four files there")


def read_idx(path: Path, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an IDX file of unsigned bytes.

    Args:
        path: Packed by gzip if it ends in ``.gz``.
        dimensions: Expected number of them.

    Raises:
        DataError: If it cannot be read, or is not such a file; names it.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, found = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: damaged, or no IDX file ({error}); fetch it again") from error
    header = 4 + 4 * dimensions
    if (zeros, kind, found) != (0, _UNSIGNED_BYTE, dimensions) or len(content) - header != int(np.prod(shape)):
        raise DataError(
            f"{path}: damaged, or no IDX file of bytes in {dimensions} dimensions: type {kind}, {found} dimensions, "
            f"{len(content) - header} bytes for shape {shape}; fetch it again"
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=header).reshape(shape)
