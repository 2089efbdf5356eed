"""``nas datasets``: the known data sets, and where they are on this machine."""

from __future__ import annotations

from nas.commands.options import DataRoots, console, plain_table, say, settings_from
from nas.errors import as_name
from nas.housekeeping.places import locate, own_folders
from partialnet.data.catalog import DATASETS


def datasets(data_root: DataRoots = None) -> None:
    """List the data sets, and the data root that holds each.

    A definition names a data set, never a path; roots come from --data-root or NAS_DATA_ROOTS. Folders of your own are
    data sets as well: name their layout (image_folder, image_shards, image_csv) and the folder.

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
        if facts.in_folder:
            found = ", ".join(map(as_name, own_folders(name, roots))) or "no"
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
