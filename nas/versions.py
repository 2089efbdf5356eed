"""The versions of what computes the figures. No torch, no ray."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Return the versions of what computed the figures."""
    found = {"python": platform.python_version()}
    for name in ("partialnet-nas", "torch", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "unknown"
    return found
