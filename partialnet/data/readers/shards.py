"""Tar shards as WebDataset lays them out, read in place: nothing is unpacked, and no member's name becomes a path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import overload

from partialnet.data.readers.base import (
    Files,
    RawDataset,
    Request,
    found_folder,
    is_folder,
    lazily_read,
    no_test_images,
)
from partialnet.data.readers.labels import Labelled, classes_of
from partialnet.data.readers.shard_index import ShardIndex, indexed
from partialnet.data.stored import Member
from partialnet.errors import DataError

_WORDS = MappingProxyType({"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)})


class ShardImages(Sequence[Member]):
    """The images of some shards, in the order of the shards and of their members.

    Args:
        shards: Paths of the shards.
        index: Places of the images in them.
    """

    def __init__(self, shards: Sequence[Path], index: ShardIndex) -> None:
        self._shards = shards
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | Sequence[Member]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        shard, offset, size = (int(value) for value in self._index.places[index])
        return Member(self._shards[shard], self._index.name(index), offset, size)


def find_shards(base: Path, part: str) -> list[Path]:
    """Return the shards of a part of a data set, by name.

    They are the files ``<part>/*.tar``, or else those in ``base`` whose names hold the part as a word, such as
    ``train-000.tar`` or ``imagenet1k-validation-00.tar``.

    Raises:
        OSError: If a folder cannot be listed.
    """
    for word in _WORDS[part]:
        if is_folder(base / word) and (found := _tars(base / word, "")):
            return found
    return _tars(base, rf"(^|[-_.])({'|'.join(_WORDS[part])})([-_.]|$)")


def _tars(folder: Path, pattern: str) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix == ".tar" and not path.name.startswith("."))
    return sorted(path for path in found if re.search(pattern, path.stem.lower()))


def has_shards(folder: Path) -> bool:
    """Return whether ``folder`` is such a data set."""
    try:
        return bool(find_shards(folder, "train"))
    except OSError:
        return False


def read_image_shards(request: Request) -> RawDataset:
    """Find and read the shards in ``<root>/<folder>``: for training, and for validation and test if they exist."""
    base = found_folder(request, "the shards train/*.tar or train-*.tar")
    shards = find_shards(base, "train")
    if not shards:
        raise DataError(f"{base}: there are no training shards in it; looked for train/*.tar and train-*.tar")
    images, labelled, left_out = _read(request, base, "train", shards)
    names, source = classes_of(base, labelled)

    def part(name: str) -> Files | None:
        found = find_shards(base, name)
        if not found:
            return None
        images, labelled, left_out = _read(request, base, name, found)
        return Files(images, labelled.targets(names, source), left_out)

    def test() -> Files:
        found = part("test")
        if found is None:
            raise no_test_images(request, f"shard {base / 'test'}/*.tar or {base}/test-*.tar")
        return found

    train = Files(images, labelled.targets(names, source), left_out)
    return lazily_read(request, names, train, part("val"), test)


def _read(
    request: Request, base: Path, part: str, shards: Sequence[Path]
) -> tuple[ShardImages, Labelled, tuple[str, ...]]:
    index = indexed(f"{request.name}-{part}", shards)
    images = ShardImages(shards, index)
    lines = [f"{base}: {reason}: {count} left out of the {part} shards" for reason, count in index.left_out.items()]
    return images, Labelled(index.labels, index.codes, lambda place: str(images[place])), tuple(lines)
