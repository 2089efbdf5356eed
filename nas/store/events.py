"""Events of studies: read here, written with what they tell of (``Repository._emit``)."""

from __future__ import annotations

from sqlalchemy import select

from nas.events import Event
from nas.store.base import Repository
from nas.store.mapping import event_from
from nas.store.tables import EventTable


class Events(Repository):
    """Reads what happened to studies."""

    def events_after(self, study_id: str, number: int, *, limit: int | None = None) -> list[Event]:
        """Return the events of a study after ``number``, in order; at most ``limit``."""
        query = (
            select(EventTable)
            .where(EventTable.study_id == study_id, EventTable.number > number)
            .order_by(EventTable.number)
            .limit(limit)
        )
        with self._read() as session:
            rows = session.scalars(query).all()
            if not rows:
                self._study_row(session, study_id)
            return [event_from(row) for row in rows]
