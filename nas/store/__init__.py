"""The store: all SQL is here. :class:`Store` is the entry point; its methods return domain types."""

from __future__ import annotations

from nas.events import Event
from nas.store.holdings import Holdings
from nas.store.pages import PageQuery
from nas.store.records import Front, LayerRatio, NetworkRow, StudyRow, TrialPage, TrialRow
from nas.store.store import Store
from nas.store.upgrade import Upgrade

__all__ = [
    "Event",
    "Front",
    "Holdings",
    "LayerRatio",
    "NetworkRow",
    "PageQuery",
    "Store",
    "StudyRow",
    "TrialPage",
    "TrialRow",
    "Upgrade",
]
