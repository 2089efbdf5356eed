"""The versions of what computes the figures. No torch, no ray."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_OWN = "partialnet-nas"


def own_version() -> str:
    """Return the version of this program, ``(not installed)`` for a source tree that is run as it is."""
    found = _version(_OWN)
    return "(not installed)" if found is None else found


def versions() -> dict[str, str]:
    """Return the versions of what computed the figures."""
    found = {"python": platform.python_version()}
    for name in (_OWN, "torch", "timm"):
        found[name] = _version(name) or "unknown"
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
