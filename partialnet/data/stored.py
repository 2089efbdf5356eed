"""Images as they are stored: in files of their own, in rows of a list, or in tar shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

from torch import Tensor

from partialnet.errors import DataChanged

HEADER = 512
"""Bytes of a tar header, which is right before its file."""
_SIZE = slice(124, 136)  # of the file, within its header


class StoredImage(Protocol):
    """An encoded image; its text names it in messages. A :class:`~pathlib.Path` is one."""

    def read_bytes(self) -> bytes:
        """Return the encoded image.

        Raises:
            OSError: If it cannot be read.
            DataChanged: If something else is in its place now.
        """


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image file that a list names.

    Args:
        path: Path of the file.
        name: Path as the list writes it.
        place: List and line, for messages.
    """

    path: Path
    name: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path}"

    def read_bytes(self) -> bytes:
        """See :meth:`StoredImage.read_bytes`."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Member:
    """An image inside a tar shard, which is read in place.

    Args:
        shard: Path of the shard.
        name: Name of the member, which never becomes a path.
        offset: Place of its first byte in the shard.
        size: Number of its bytes.
    """

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"

    def read_bytes(self) -> bytes:
        """See :meth:`StoredImage.read_bytes`."""
        with self.shard.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), HEADER + self.size, self.offset - HEADER)
        # The header tells whether the shard is still the one that was indexed.
        if len(content) != HEADER + self.size or _octal(content[_SIZE]) != self.size:
            raise DataChanged("the shard has changed since it was indexed; start again")
        return content[HEADER:]


def _octal(field: bytes) -> int:
    try:
        return int(field.strip(b"\0 "), 8)
    except ValueError:
        return -1


class Chosen(Sequence[StoredImage]):
    """Some of a sequence of images; each access makes an item.

    Args:
        images: All images.
        indices: Places of the chosen ones, int64 [N].
    """

    def __init__(self, images: Sequence[StoredImage], indices: Tensor) -> None:
        self._images = images
        self._indices = indices.numpy()

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> StoredImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredImage]: ...
    def __getitem__(self, index: int | slice) -> StoredImage | Sequence[StoredImage]:
        if isinstance(index, slice):
            return [self._images[place] for place in self._indices[index].tolist()]
        return self._images[int(self._indices[index])]


def names_and_sizes(images: Sequence[StoredImage]) -> Iterator[tuple[str, int]]:
    """Yield for each image its name, which is the same in any folder, and its number of bytes.

    Raises:
        OSError: If a file is gone.
    """
    paths = [image for image in images if isinstance(image, Path)]
    base = None
    if paths:
        base = os.path.commonpath(paths) if len(paths) > 1 else paths[0].parent
    for image in images:
        if isinstance(image, Member):
            yield f"{image.shard.name}/{image.name}", image.size
        elif isinstance(image, ListedImage):
            yield image.name, image.path.stat().st_size
        else:
            assert isinstance(image, Path)
            assert base is not None
            yield image.relative_to(base).as_posix(), image.stat().st_size
