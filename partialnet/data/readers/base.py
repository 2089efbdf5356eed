"""What every reader takes and gives, and the search through the data roots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from partialnet.errors import DataError, DataMissing


@dataclass(frozen=True)
class Request:
    """What is to be read.

    Args:
        name: Of the data set.
        roots: Folders to look in.
        channels: Colour channels.
        size: Height and width that the network takes, in pixels; None is the data set's own.
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
        images: uint8 [N, C, H, W].
        targets: int64 [N].
        left_out: One line for each kind of file that was found beside them and is not used.
    """

    images: Tensor
    targets: Tensor
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """Images still in their files.

    Args:
        paths: N files.
        targets: int64 [N].
        left_out: One line for each kind of file that was found beside them and is not used.
    """

    paths: tuple[Path, ...]
    targets: Tensor
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawDataset:
    """A data set as it was found.

    Args:
        class_names: In the order of the targets.
        train: Training images, from which a validation split may have to be taken.
        validation: Where the data set brings its own.
        test: Reads the test images; raises DataMissing where there are none, DataError where they are damaged.
    """

    class_names: tuple[str, ...]
    train: Pixels | Files
    validation: Pixels | Files | None
    test: Callable[[], Pixels | Files]


def candidates(roots: Sequence[Path], names: Sequence[str]) -> Iterator[Path]:
    """Yield folders in which a data set may lie: a root, its folders called ``names``, and the folders in those."""
    for root in roots:
        named = [root / name for name in names]
        yield from (folder for folder in [root, *named] if is_folder(folder))
        yield from subfolders(root)
        for folder in named:
            yield from subfolders(folder)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` by name, without hidden ones; none if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_folder(path))
    except OSError:
        return []


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder; what cannot even be asked about, such as a mount that is gone, is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def part_folder(base: Path, name: str) -> Path | None:
    """Return the folder ``name`` in ``base``, None if there is nothing of this name.

    Raises:
        DataError: If something else is in its place, or a link that leads nowhere; names it.
    """
    path = base / name
    if path.is_dir():
        return path
    if os.path.lexists(path):
        what = "a file" if path.exists() else "a link that leads nowhere"
        raise DataError(f"{path}: is {what}, but must be a folder; looked for {path / '<class>' / '<image>'}")
    return None


def not_found(request: Request, wanted: str) -> DataMissing:
    """Return the error of a data set that is nowhere: where was looked, for what, and what to do."""
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
