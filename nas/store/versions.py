"""Versions of answers: numbers that change whenever a read of a study could answer something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from nas.store.base import Repository
from nas.store.tables import MeasurementTable, StudyTable


@dataclass(frozen=True)
class StudyVersion:
    """Version of the answers about a study.

    Args:
        study_id: Id of the study.
        event: Number of its last event.
        result: Number of its last event that is not the report of an epoch.
        measured: Number that grows with each measurement of any network: studies share networks.
        interrupted: Whether the lease of its search has expired.
    """

    study_id: str
    event: int
    result: int
    measured: int
    interrupted: bool


class Versions(Repository):
    """Reads versions, at the cost of one look at the row of a study."""

    def study_version(self, ref: str) -> StudyVersion | None:
        """Return the version of the answers about a study named by its id or name; None if there is none."""
        newest = select(func.max(MeasurementTable.id)).scalar_subquery()
        columns = (StudyTable.id, StudyTable.last_event, StudyTable.last_result, newest, self._interrupted())
        with self._read() as session:
            by_id = select(*columns).where(StudyTable.id == ref)
            found = session.execute(by_id).first() or session.execute(
                select(*columns).where(StudyTable.name == ref)
            ).first()
            return None if found is None else StudyVersion(*found[:3], found[3] or 0, bool(found[4]))

    def list_version(self) -> tuple[Any, ...]:
        """Return the version of the answers about all studies."""
        interrupted = func.count().filter(self._interrupted())
        columns = (func.count(), func.max(StudyTable.sequence), func.sum(StudyTable.last_result), interrupted)
        query = select(*columns, func.max(StudyTable.updated_at))
        with self._read() as session:
            return tuple(session.execute(query).one())
