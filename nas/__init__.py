"""Neural architecture search over learned split ratios: studies, sweeps, scores, the store and the command line.

Names are loaded on first use (PEP 562). No file at the root of this package loads torch or ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialnet.lazy import lazy_names

_LOCATIONS = {
    "Store": "nas.store",
    "StudyDefinition": "nas.definition.study",
    "Trial": "nas.trial",
    "load_study": "nas.definition.study",
    "run_search": "nas.sweep.search",
}

__all__ = sorted(_LOCATIONS)

if TYPE_CHECKING:
    from nas.definition.study import StudyDefinition, load_study
    from nas.store import Store
    from nas.sweep.search import run_search
    from nas.trial import Trial

__getattr__, __dir__ = lazy_names(__name__, _LOCATIONS)
