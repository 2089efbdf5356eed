"""Class folders: one folder for each class, as in ImageNet."""

from __future__ import annotations

from pathlib import Path

import torch

from partialnet.data.cache import decode_cached
from partialnet.data.images import SUFFIXES
from partialnet.data.readers.base import (
    Files,
    Pixels,
    RawDataset,
    Request,
    found_folder,
    lazily_read,
    no_test_images,
    part_folder,
    subfolders,
)
from partialnet.data.readers.listing import LeftOut, hidden, images_below, outside_classes
from partialnet.errors import DataError, is_text


def class_folders(folder: Path) -> list[Path]:
    """Return the class folders in ``folder``, by name.

    Raises:
        DataError: If there are none, they cannot be listed, or a name is not text; the message names the folder.
    """
    try:
        classes = sorted(path for path in folder.iterdir() if not hidden(path.name) and path.is_dir())
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
    if not classes:
        raise DataError(f"{folder}: there are no class folders in it; looked for {folder / '<class>' / '<image>'}")
    for path in classes:
        if not is_text(path.name):
            raise DataError(f"{path}: the folder's name is not UTF-8, so no class can be called so; rename the folder")
    return classes


def list_images(folder: Path, class_names: tuple[str, ...]) -> Files:
    """List the images of each class in ``folder``, in the order of the names, also those in folders within a class.

    Raises:
        DataError: If a class is unknown or has no images; the message names the folder.
    """
    present = {path.name: path for path in class_folders(folder)}
    unknown = sorted(set(present) - set(class_names))
    if unknown:
        raise DataError(f"{folder / unknown[0]}: {unknown[0]!r} is not a class of the training images")
    left_out = LeftOut(folder)
    outside_classes(folder, left_out)
    paths: list[Path] = []
    targets: list[int] = []
    for label, name in enumerate(class_names):
        found = images_below(folder / name, left_out) if name in present else []
        if not found:
            suffixes = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{folder / name}: holds no images; looked for files that end in {suffixes}")
        paths += found
        targets += [label] * len(found)
    return Files(tuple(paths), torch.tensor(targets, dtype=torch.int64), left_out.sentences())


def read_folders(request: Request, base: Path, size: int | None) -> RawDataset:
    """Read ``base``/train, and val and test if they exist, decoded into memory.

    Args:
        request: Request with the name and the channels.
        base: Folder that holds ``train``.
        size: Height and width to scale to; None keeps the images' own size.
    """
    names = tuple(path.name for path in class_folders(base / "train"))

    def part(split: str) -> Pixels:
        files = list_images(base / split, names)
        images = decode_cached(f"{request.name}-{split}", files.images, request.channels, size)
        return Pixels(images, files.targets, files.left_out)

    validation = part("val") if part_folder(base, "val") else None
    return RawDataset(names, part("train"), validation, lambda: part(_test_folder(request, base).name))


def read_image_folder(request: Request) -> RawDataset:
    """Find and read ``<root>/<folder>``: small images into memory, large ones when needed."""
    base = found_folder(request, f"{request.folder}/train/<class>/<image>")
    if part_folder(base, "train") is None:
        raise DataError(f"{base}: there is no folder 'train' in it; looked for {base / 'train' / '<class>/<image>'}")
    names = tuple(path.name for path in class_folders(base / "train"))
    train = list_images(base / "train", names)
    validation = list_images(base / "val", names) if part_folder(base, "val") else None
    return lazily_read(request, names, train, validation, lambda: list_images(_test_folder(request, base), names))


def has_class_folders(folder: Path) -> bool:
    """Return whether ``folder`` is such a data set: its ``train`` holds at least two folders."""
    # What cannot be listed, or is a file (CIFAR-100's own `train` is one), holds no classes.
    return len(subfolders(folder / "train")) >= 2


def _test_folder(request: Request, base: Path) -> Path:
    folder = part_folder(base, "test")
    if folder is None:
        raise no_test_images(request, f"folder {base / 'test'}; looked for {base / 'test' / '<class>/<image>'}")
    return folder
