"""Versions of the programs that compute the figures. Loads neither torch nor ray."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_OWN = "partialnet-nas"


def own_version() -> str:
    """Return the version of this program; ``(not installed)`` for a source tree without an installation."""
    found = _version(_OWN)
    return "(not installed)" if found is None else found


def versions() -> dict[str, str]:
    """Return the versions of the programs that compute the figures, by name."""
    found = {"python": platform.python_version()}
    for name in (_OWN, "torch", "timm"):
        found[name] = _version(name) or "unknown"
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
