"""The words of the commands that pack and unpack studies; the commands load them without the rest."""

from __future__ import annotations

from enum import StrEnum


class Weights(StrEnum):
    """Which weights travel."""

    KEPT = "kept"
    """Weights of the front, the baselines, the final comparison, and of pinned networks."""
    ALL = "all"
    NONE = "none"
