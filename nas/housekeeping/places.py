"""Where the data sets are on this machine. Loads torch only to look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name

from partialnet.data.catalog import DATASETS
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


def own_folders(name: str, roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders under the roots that hold images of your own, as the data set ``name`` needs them."""
    from partialnet.data.readers.base import subfolders

    recognized: Callable[[Path], bool] = resolve_name(DATASETS[name].recognizer)
    for root in roots:
        yield from filter(recognized, subfolders(root))
