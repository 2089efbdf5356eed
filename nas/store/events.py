"""Reads the events of studies; ``Repository._emit`` writes each with its change."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from nas.errors import NotFoundError
from nas.events import Event
from nas.store.base import Repository
from nas.store.mapping import event_from
from nas.store.tables import EventTable, StudyTable, TrialTable

_OF_TRIALS = ("trial", "place", "epoch", "evaluation", "pin", "training")


class Events(Repository):
    """Reads the events of studies."""

    def events_after(self, study_id: str, number: int, *, limit: int | None = None) -> list[Event]:
        """Return the events of a study after ``number``, in order; at most ``limit`` of them."""
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

    def last_events(self, study_ids: Collection[str]) -> dict[str, int]:
        """Return the number of the last event of each study, by id; studies that do not exist are left out."""
        query = select(StudyTable.id, StudyTable.last_event).where(StudyTable.id.in_(sorted(study_ids)))
        with self._read() as session:
            rows = session.execute(query).all()
            return {row[0]: row[1] for row in rows}

    def trial_events(self, study_id: str, number: int, *, limit: int) -> list[Event]:
        """Return the last ``limit`` events of a trial, in order.

        Raises:
            NotFoundError: If there is no such study or trial.
        """
        about = EventTable.payload["number"].as_integer() == number
        query = (
            select(EventTable)
            .where(EventTable.study_id == study_id, EventTable.kind.in_(_OF_TRIALS), about)
            .order_by(EventTable.number.desc())
            .limit(limit)
        )
        with self._read() as session:
            rows = session.scalars(query).all()
            if not rows and session.get(TrialTable, (study_id, number)) is None:
                raise NotFoundError(f"study {self._study_row(session, study_id).name} has no trial {number}")
            return [event_from(row) for row in reversed(rows)]
