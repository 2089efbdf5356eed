"""Many trials: the search on Ray Tune, its searchers, its records, and the final comparison.

Names are loaded on first use (PEP 562), so that the events of a sweep can be imported without Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialnet.lazy import lazy_names

_LOCATIONS = {"run_search": "nas.sweep.search"}

__all__ = ["run_search"]

if TYPE_CHECKING:
    from nas.sweep.search import run_search

__getattr__, __dir__ = lazy_names(__name__, _LOCATIONS)
