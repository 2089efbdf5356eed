"""Arguments and results of all readers, and the search through the data roots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from partialnet.data.cache import decode_cached, readable
from partialnet.data.catalog import LARGEST_IN_MEMORY
from partialnet.data.stored import Chosen, StoredImage
from partialnet.errors import DataError, DataMissing

_MEMORY = 1 << 30  # bytes


@dataclass(frozen=True)
class Request:
    """The data set to read.

    Args:
        name: Name of the data set.
        roots: Folders to search.
        channels: Number of colour channels.
        size: Height and width of the network's inputs in pixels; None for those of the data set.
        folder: Name of the folder under a root, for data sets of your own.
        skip_broken: Whether images that cannot be read are left out.
    """

    name: str
    roots: tuple[Path, ...]
    channels: int
    size: int | None
    folder: str | None = None
    skip_broken: bool = False


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
    """Images that are read from where they are stored when needed.

    Args:
        images: N encoded images.
        targets: Classes, int64 [N].
        left_out: Lines for the kinds of unused files beside them.
    """

    images: Sequence[StoredImage]
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


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file; False if its status cannot be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def found_folder(request: Request, wanted: str) -> Path:
    """Return the folder of the request under the first root that has it.

    Args:
        request: Request with the name of the folder.
        wanted: Content of the folder, for messages.

    Raises:
        DataError: If the request names no folder or no size of images.
        DataMissing: If no root has the folder.
    """
    if request.folder is None or request.size is None:
        raise DataError(f"{request.name} needs the name of a folder under a data root, and an image size")
    base = next((root / request.folder for root in request.roots if is_folder(root / request.folder)), None)
    if base is None:
        raise not_found(request, f"a folder {request.folder} with {wanted}")
    return base


def no_test_images(request: Request, wanted: str) -> DataMissing:
    """Return the error of a data set without test images; ``wanted`` names what would hold them."""
    return DataMissing(f"{request.name} has no test images: there is no {wanted}")


def lazily_read(
    request: Request,
    class_names: tuple[str, ...],
    train: Files,
    validation: Files | None,
    test: Callable[[], Files],
) -> RawDataset:
    """Return a data set whose images are read when needed; sets of few and small images are held in memory.

    Args:
        request: Request with name, channels and size.
        class_names: Names of the classes.
        train: Training images.
        validation: Validation images, if the data set has its own.
        test: Function that lists the test images.
    """
    assert request.size is not None
    held = len(train.images) * request.channels * request.size**2 <= _MEMORY and request.size <= LARGEST_IN_MEMORY

    def part(name: str, files: Files) -> Pixels | Files:
        if not held:
            return files
        left_out = files.left_out
        if request.skip_broken:
            kept, reasons = readable(files.images, request.channels)
            files, left_out = Files(Chosen(files.images, kept), files.targets[kept]), (*left_out, *reasons)
        pixels = decode_cached(f"{request.name}-{name}", files.images, request.channels, request.size)
        return Pixels(pixels, files.targets, left_out)

    own = None if validation is None else part("val", validation)
    return RawDataset(class_names, part("train", train), own, lambda: part("test", test()))


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
