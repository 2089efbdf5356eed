"""What every reader takes and gives, and the search through the data roots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from partialnet.errors import DataError


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
    """

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Files:
    """Images still in their files.

    Args:
        paths: N files.
        targets: int64 [N].
    """

    paths: tuple[Path, ...]
    targets: Tensor


@dataclass(frozen=True)
class RawDataset:
    """A data set as it was found.

    Args:
        class_names: In the order of the targets.
        train: Training images, from which a validation split may have to be taken.
        validation: Where the data set brings its own.
        test: Reads the test images; raises DataError where there are none.
    """

    class_names: tuple[str, ...]
    train: Pixels | Files
    validation: Pixels | Files | None
    test: Callable[[], Pixels | Files]


def candidates(roots: Sequence[Path], names: Sequence[str]) -> Iterator[Path]:
    """Yield folders in which a data set may lie: a root, its folders called ``names``, and the folders in those."""
    for root in roots:
        named = [root / name for name in names]
        yield from (folder for folder in [root, *named] if folder.is_dir())
        yield from subfolders(root)
        for folder in named:
            yield from subfolders(folder)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` by name, without hidden ones; none if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []


def not_found(request: Request, wanted: str) -> DataError:
    """Return the error of a data set that is nowhere: where was looked, for what, and what to do."""
    remedy = "put it there, or name the folder that holds it with --data-root or NAS_DATA_ROOTS"
    if not request.roots:
        return DataError(f"{request.name} was not found: there is no data root to look in for {wanted}; {remedy}")
    looked = ", ".join(str(root) if root.is_dir() else f"{root} (no such folder)" for root in request.roots)
    return DataError(f"{request.name} was not found in {looked}; looked for {wanted}; {remedy}")
