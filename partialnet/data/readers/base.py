"""Arguments and results of all readers, and the search through the data roots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from partialnet.errors import DataError, DataMissing


@dataclass(frozen=True)
class Request:
    """The data set to read.

    Args:
        name: Name of the data set.
        roots: Folders to search.
        channels: Number of colour channels.
        size: Height and width of the network's inputs in pixels; None for those of the data set.
        folder: Name of the folder under a root, for ``image_folder``.
    """

    name: str
    roots: tuple[Path, ...]
    channels: int
    size: int | None
    folder: str | None = None


@dataclass(frozen=True)
class Pixels:
    """Images in memory.

    Args:
        images: Images, uint8 [N, C, H, W].
        targets: Classes, int64 [N].
        left_out: Lines for the kinds of unused files beside them.
    """

    images: Tensor
    targets: Tensor
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """Images that are read from their files when needed.

    Args:
        paths: Paths of N files.
        targets: Classes, int64 [N].
        left_out: Lines for the kinds of unused files beside them.
    """

    paths: tuple[Path, ...]
    targets: Tensor
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawDataset:
    """A data set in the form of its files.

    Args:
        class_names: Names of the classes in the order of the targets.
        train: Training images, which may have to provide a validation split.
        validation: Validation images; None if the data set has none of its own.
        test: Function that reads the test images; it raises DataMissing without any, DataError if they are damaged.
    """

    class_names: tuple[str, ...]
    train: Pixels | Files
    validation: Pixels | Files | None
    test: Callable[[], Pixels | Files]


def candidates(roots: Sequence[Path], names: Sequence[str]) -> Iterator[Path]:
    """Yield folders that may hold a data set: each root, its folders called ``names``, and the folders in those."""
    for root in roots:
        named = [root / name for name in names]
        yield from (folder for folder in [root, *named] if is_folder(folder))
        yield from subfolders(root)
        for folder in named:
            yield from subfolders(folder)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` by name, without hidden ones; an empty list if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_folder(path))
    except OSError:
        return []


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder; False if its status cannot be read, as on a lost mount."""
    try:
        return path.is_dir()
    except OSError:
        return False


def part_folder(base: Path, name: str) -> Path | None:
    """Return the folder ``name`` in ``base``; None if nothing has this name.

    Raises:
        DataError: If it is something else, or a broken link; the message names it.
    """
    path = base / name
    if path.is_dir():
        return path
    if os.path.lexists(path):
        what = "a file" if path.exists() else "a link that leads nowhere"
        raise DataError(f"{path}: is {what}, but must be a folder; looked for {path / '<class>' / '<image>'}")
    return None


def not_found(request: Request, wanted: str) -> DataMissing:
    """Return the error of a missing data set: the searched folders, the wanted files, and a remedy."""
    remedy = "put it there, or name the folder that holds it with --data-root or NAS_DATA_ROOTS"
    if not request.roots:
        return DataMissing(f"{request.name} was not found: there is no data root to look in for {wanted}; {remedy}")
    looked = ", ".join(map(_looked, request.roots))
    return DataMissing(f"{request.name} was not found in {looked}; looked for {wanted}; {remedy}")


def _looked(root: Path) -> str:
    try:
        next(root.iterdir(), None)
    except (FileNotFoundError, NotADirectoryError):
        return f"{root} (no such folder)"
    except OSError as error:
        return f"{root} (cannot be listed: {error.strerror})"
    return str(root)
