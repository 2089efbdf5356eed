"""CIFAR-10 and CIFAR-100: the published pickles, or class folders.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partialnet.data.readers.base import Pixels, RawDataset, Request, candidates, not_found, subfolders
from partialnet.data.readers.folders import read_folders
from partialnet.data.readers.unpickle import read_batch
from partialnet.errors import DataError

_SIZE = 32
_ROW = 3 * _SIZE * _SIZE


@dataclass(frozen=True)
class _Layout:
    """Names in the published archives."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    labels: str
    meta: str
    names: str
    classes: int
    folders: tuple[str, ...]


_CIFAR10 = _Layout(
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    "labels",
    "batches.meta",
    "label_names",
    10,
    ("cifar10", "cifar-10"),
)
_CIFAR100 = _Layout(
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    ("train",),
    "test",
    "fine_labels",
    "meta",
    "fine_label_names",
    100,
    ("cifar100", "cifar-100"),
)
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_cifar10(request: Request) -> RawDataset:
    """Find and read CIFAR-10."""
    return _read(request, _CIFAR10)


def read_cifar100(request: Request) -> RawDataset:
    """Find and read CIFAR-100 with its 100 fine classes."""
    return _read(request, _CIFAR100)


def _read(request: Request, layout: _Layout) -> RawDataset:
    archive = None
    for folder in candidates(request.roots, layout.folders):
        if folder.name == layout.folder:
            return _read_pickles(folder, layout)
        if _holds_classes(folder, layout):
            return _read_class_folders(request, folder)
        archive = archive or next((path for path in [folder / layout.archive] if path.is_file()), None)
    wanted = f"{layout.folder}/{layout.train[0]}, or class folders {layout.folders[0]}/train/<class>/<image>"
    if archive is not None:
        raise DataError(f"{request.name}: {archive} is packed; unpack it there (tar -xzf {archive.name})")
    raise not_found(request, wanted)


def _read_class_folders(request: Request, folder: Path) -> RawDataset:
    raw = read_folders(request, folder, None)
    assert isinstance(raw.train, Pixels)
    height, width = raw.train.images.shape[2:]
    if (height, width) != (_SIZE, _SIZE):
        raise DataError(
            f"{folder / 'train'}: the images are {width}x{height} pixels, but those of {request.name} are "
            f"{_SIZE}x{_SIZE}; a data set of another size is opened as image_folder"
        )
    return raw


def _holds_classes(folder: Path, layout: _Layout) -> bool:
    classes = [path.name for path in subfolders(folder / "train")]
    if layout.classes == len(_CIFAR10_CLASSES):
        return tuple(classes) == _CIFAR10_CLASSES
    # A hundred class names are too many to check: the folder or its parent must be called cifar100.
    return len(classes) == layout.classes and bool({folder.name, folder.parent.name} & set(layout.folders))


def _read_pickles(folder: Path, layout: _Layout) -> RawDataset:
    missing = [name for name in (*layout.train, layout.test, layout.meta) if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing; unpack {layout.archive} again")
    names = read_batch(folder / layout.meta).get(layout.names)
    if not isinstance(names, list) or len(names) != layout.classes:
        raise DataError(f"{folder / layout.meta}: lacks a list {layout.names!r} of {layout.classes} class names")
    class_names = tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)
    train = _read_batches([folder / name for name in layout.train], layout)
    return RawDataset(class_names, train, None, lambda: _read_batches([folder / layout.test], layout))


def _read_batches(paths: Sequence[Path], layout: _Layout) -> Pixels:
    parts = [_check(path, read_batch(path), layout) for path in paths]
    images = np.concatenate([rows for rows, _ in parts]).reshape(-1, 3, _SIZE, _SIZE)
    labels = [label for _, part in parts for label in part]
    return Pixels(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64))


def _check(path: Path, batch: dict[str, Any], layout: _Layout) -> tuple[np.ndarray[Any, Any], list[int]]:
    rows, labels = batch.get("data"), batch.get(layout.labels)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != _ROW:
        shape = rows.shape if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(f"{path}: 'data' is {shape}, but must be an array of N x {_ROW} bytes; fetch it again")
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise DataError(f"{path}: {layout.labels!r} must be a list of {len(rows)} numbers; fetch it again")
    if not all(isinstance(label, int) and 0 <= label < layout.classes for label in labels):
        raise DataError(f"{path}: {layout.labels!r} must hold numbers in 0..{layout.classes - 1}; fetch it again")
    return rows, labels
