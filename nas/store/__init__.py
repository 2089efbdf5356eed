"""The store: all SQL is here. :class:`Store` is the door; what it returns are domain types."""

from __future__ import annotations

from nas.events import Event
from nas.store.records import LayerRatio, StudyRow
from nas.store.store import Store
from nas.store.upgrade import Upgrade

__all__ = ["Event", "LayerRatio", "Store", "StudyRow", "Upgrade"]
