"""Image files with their labels in CSV files: ``train.csv``, ``val.csv`` and ``test.csv``."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from partialnet.data.images import SUFFIXES
from partialnet.data.readers.base import Files, RawDataset, Request, found_folder, is_file, lazily_read, no_test_images
from partialnet.data.readers.labels import Labelled, classes_of, distinct
from partialnet.data.stored import ListedImage
from partialnet.errors import DataError

_COLUMNS = ("path", "label")


def read_image_csv(request: Request) -> RawDataset:
    """Find and read ``<root>/<folder>/train.csv``, and val.csv and test.csv if they exist."""
    base = found_folder(request, "train.csv with the columns path and label")
    if not is_file(base / "train.csv"):
        raise DataError(f"{base}: there is no file 'train.csv' in it, which lists images in the columns path,label")
    train = read_list(base / "train.csv")
    names, source = classes_of(base, train[1])

    def part(read: tuple[list[ListedImage], Labelled]) -> Files:
        return Files(read[0], read[1].targets(names, source))

    def test() -> Files:
        if not os.path.lexists(base / "test.csv"):
            raise no_test_images(request, f"file {base / 'test.csv'}")
        return part(read_list(base / "test.csv"))

    validation = part(read_list(base / "val.csv")) if os.path.lexists(base / "val.csv") else None
    return lazily_read(request, names, part(train), validation, test)


def has_list(folder: Path) -> bool:
    """Return whether ``folder`` is such a data set."""
    return is_file(folder / "train.csv")


def read_list(path: Path) -> tuple[list[ListedImage], Labelled]:
    """Read a list of image files, whose paths are relative to its folder.

    Raises:
        DataError: If the list or a line is not as it must be, or a file is missing; the message names the line.
    """
    images: list[ListedImage] = []
    labels: list[str] = []
    seen: dict[str, int] = {}
    inside = _Inside(path.parent)
    for number, name, label in _rows(path):
        where = f"{path} line {number}"
        if not name or not label:
            raise DataError(f"{where}: the {'path' if not name else 'label'} is empty")
        file = inside.file(name, where)
        if file.suffix.lower() not in SUFFIXES:
            raise DataError(f"{where}: {name!r} does not end as an image does, such as .jpg or .png")
        before = seen.setdefault(os.path.normpath(file), number)
        if before != number:
            raise DataError(f"{where}: {name!r} is already in line {before}; each image has one line")
        images.append(ListedImage(file, name, where))
        labels.append(label)
    if not images:
        raise DataError(f"{path}: lists no images")
    return images, Labelled(*distinct(labels), lambda place: images[place].place)


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, path and label of each row.

    Raises:
        DataError: If it is no such CSV file; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            head = [name.strip() for name in next(rows, [])]
            if any(head.count(name) != 1 for name in _COLUMNS):
                raise DataError(f"{path} line 1: is {','.join(head)!r}, but must name the columns path,label once each")
            places = [head.index(name) for name in _COLUMNS]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(head):
                    raise DataError(f"{path} line {rows.line_num}: has {len(row)} columns, but line 1 has {len(head)}")
                name, label = (row[place].strip() for place in places)
                yield rows.line_num, name, label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error


class _Inside:
    """Paths below a folder, which neither their text nor a link leads out of.

    Args:
        base: Folder, which may itself be a link.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._real = os.path.realpath(base)
        self._folders: dict[Path, bool] = {}

    def file(self, name: str, where: str) -> Path:
        """Return the file ``name``.

        Raises:
            DataError: If it is outside, or there is no such file; the message begins with ``where``.
        """
        relative = PurePosixPath(name)
        if "\0" in name or relative.is_absolute() or ".." in relative.parts:
            raise DataError(f"{where}: {name!r} must be a path below {self._base}, without '..'")
        path = self._base / relative
        if not is_file(path):
            raise DataError(f"{where}: {path}: there is no such file")
        # A folder holds thousands of images, so its own links are followed once.
        if path.parent not in self._folders:
            self._folders[path.parent] = self._holds(path.parent)
        if not self._folders[path.parent] or (path.is_symlink() and not self._holds(path)):
            raise DataError(f"{where}: {path}: a link leads out of {self._base}")
        return path

    def _holds(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)
