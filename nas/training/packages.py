"""Packages under the data roots: exported networks that users have put there. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.errors import NotFoundError

_FILE = "architecture.json"


def find_package(name: str, data_roots: Sequence[Path]) -> Path:
    """Return the folder of a package.

    Args:
        name: Name of the folder directly under a data root; never a path.
        data_roots: Folders to search, in this order.

    Raises:
        NotFoundError: If no root holds such a package.
    """
    if "/" not in name and name not in ("", ".", ".."):
        for root in data_roots:
            if (root / name / _FILE).is_file():
                return root / name
    where = ", ".join(map(str, data_roots)) or "none is configured"
    raise NotFoundError(f"there is no package {name!r} under the data roots ({where})")
