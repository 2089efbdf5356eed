"""Where the data sets are on this machine. Loads torch only to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from partialnet.errors import DataError, DataMissing


def locate(name: str, roots: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """Return the place of a data set in words, or why it is missing, and a line for each kind of unused file."""
    from partialnet.data.datasets import load

    damage = "no"
    for places in [(), *((root,) for root in roots)]:  # the empty one finds data sets inside a package
        try:
            splits = load(name, places)
        except DataMissing:
            continue
        except DataError as error:
            damage = f"damaged: {error}"
            continue
        images = len(splits.train) + len(splits.validation)
        return f"{places[0] if places else 'built in'} ({images:,} training images)", splits.left_out
    return damage, ()


def class_folders(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders under the roots whose ``train`` holds at least two folders, as image_folder needs them."""
    from partialnet.data.readers.base import subfolders

    for root in roots:
        # What cannot be listed, or is a file (CIFAR-100's own `train` is one), holds no classes.
        yield from (folder for folder in subfolders(root) if len(subfolders(folder / "train")) >= 2)
