"""``nas datasets``: which data sets there are, and which of them are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.commands.options import DataRoots, as_name, console, plain_table, say, settings_from
from partialnet.data.catalog import DATASETS
from partialnet.errors import DataError, DataMissing

_FOLDERS = "image_folder"


def datasets(data_root: DataRoots = None) -> None:
    """List the data sets, and under which data root each is found.

    A definition names a data set, never a path; roots come from --data-root or NAS_DATA_ROOTS. Folders of your own
    with a folder per class are data sets as well: name image_folder, and the folder's name.

    \b
    Examples:
      nas datasets
      nas datasets --data-root /data --data-root ~/images
    """
    roots = settings_from(data_roots=data_root).data_roots
    notes: list[str] = []
    table = plain_table("data set", "what", "images", "found")
    for name, facts in DATASETS.items():
        size = "any size" if facts.size is None else f"{facts.channels}x{facts.size}x{facts.size}"
        if name == _FOLDERS:
            found = ", ".join(map(as_name, class_folders(roots))) or "no"
        else:
            found, left_out = locate(name, roots)
            notes += left_out
        table.add_row(name, facts.title, size, found)
    out = console()
    out.print(table)
    for line in notes:
        say(out, line)
    shown = ", ".join(str(root) for root in roots) if roots else "none (give --data-root, or set NAS_DATA_ROOTS)"
    say(out, f"data roots: {shown}")


def locate(name: str, roots: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """Return in words where a data set is found, or why not, and a line for each kind of file that is left out."""
    from partialnet.data.datasets import load

    damage = "no"
    for places in [(), *((root,) for root in roots)]:  # the empty one finds what is inside a package
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
    """Yield the folders under the roots whose ``train`` holds at least two folders, as image_folder wants them."""
    from partialnet.data.readers.base import subfolders

    for root in roots:
        # What cannot be listed, or is a file (CIFAR-100's own `train` is one), holds no classes.
        yield from (folder for folder in subfolders(root) if len(subfolders(folder / "train")) >= 2)
