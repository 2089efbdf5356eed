"""Package names that are loaded on first use (PEP 562), so that light modules of a package do not load torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, locations: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: Value of the package's ``__name__``.
        locations: Names with the modules that define them.
    """

    def getattr_(name: str) -> Any:
        if name not in locations:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(locations[name]), name)

    return getattr_, lambda: sorted(locations)
