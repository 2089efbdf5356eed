"""Neural architecture search over learned split ratios: studies, sweeps, scores, the store and the command line.

Names are loaded on first use (PEP 562): importing ``nas.study``, ``nas.trial``, ``nas.pareto`` or ``nas.wire`` loads
neither torch nor ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialnet.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _LOCATIONS)
