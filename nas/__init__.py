"""Neural architecture search over learned split ratios: studies, sweeps, scores, the store and the command line.

Names are loaded on first use (PEP 562): importing ``nas.study``, ``nas.trial``, ``nas.pareto`` or ``nas.wire`` loads
neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LOCATIONS = {
    "Store": "nas.store",
    "StudyDefinition": "nas.study",
    "Trial": "nas.trial",
    "load_study": "nas.study",
    "run_search": "nas.sweep",
}

__all__ = sorted(_LOCATIONS)

if TYPE_CHECKING:
    from nas.store import Store
    from nas.study import StudyDefinition, load_study
    from nas.sweep import run_search
    from nas.trial import Trial


def __getattr__(name: str) -> Any:
    try:
        location = _LOCATIONS[name]
    except KeyError:
        raise AttributeError(f"module 'nas' has no attribute {name!r}") from None
    return getattr(importlib.import_module(location), name)


def __dir__() -> list[str]:
    return __all__
