"""``nas datasets``: which data sets there are, and which of them are here."""

from __future__ import annotations

from nas.commands.options import DataRoots, console, plain_table, say, settings_from
from partialnet.data.catalog import DATASETS
from partialnet.errors import DataError


def datasets(data_root: DataRoots = None) -> None:
    """List the data sets and whether they are found under the data roots.

    A definition names a data set, never a path; roots come from --data-root or NAS_DATA_ROOTS. Class folders of your
    own (image_folder) are listed by their folder's name.

    \b
    Examples:
      nas datasets
      nas datasets --data-root /data --data-root ~/images
    """
    from partialnet.data.datasets import load

    roots = settings_from(data_roots=data_root).data_roots
    table = plain_table("data set", "what", "images", "found")
    for name, facts in DATASETS.items():
        size = "any size" if facts.size is None else f"{facts.channels}x{facts.size}x{facts.size}"
        if name == "image_folder":
            table.add_row(name, facts.title, size, "name its folder: data.folder in a definition")
            continue
        try:
            splits = load(name, roots)
            found = f"yes: {len(splits.train) + len(splits.validation):,} for training"
        except DataError as error:
            found = "no" if "was not found" in str(error) else f"damaged: {error}"
        table.add_row(name, facts.title, size, found)
    out = console()
    out.print(table)
    shown = ", ".join(str(root) for root in roots) if roots else "none (give --data-root, or set NAS_DATA_ROOTS)"
    say(out, f"data roots: {shown}")
