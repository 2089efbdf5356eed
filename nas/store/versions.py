"""Versions of answers: numbers that change whenever a read of a study could answer something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from nas.store.base import Repository
from nas.store.studies import find_study
from nas.store.tables import JobTable, MeasurementTable, StudyTable
from nas.study import StudyState


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


@dataclass(frozen=True)
class Tallies:
    """Numbers of studies, trials and jobs in the whole store.

    Args:
        studies: Number of studies by state.
        trials: Number of trials by state.
        jobs: Number of jobs by kind and state.
    """

    studies: Mapping[tuple[str], int]
    trials: Mapping[tuple[str], int]
    jobs: Mapping[tuple[str, str], int]


class Versions(Repository):
    """Reads versions, at the cost of one look at the row of a study."""

    def study_version(self, ref: str) -> StudyVersion:
        """Return the version of the answers about a study.

        Args:
            ref: Id, name, the first 6 or more characters of the id, or ``latest``.

        Raises:
            NotFoundError: If no study or more than one matches.
        """
        newest = select(func.max(MeasurementTable.id)).scalar_subquery()
        columns = (StudyTable.id, StudyTable.last_event, StudyTable.last_result, newest, self._interrupted())
        with self._read() as session:
            found = session.execute(select(*columns).where(StudyTable.id == ref)).first()
            if found is None:
                found = session.execute(select(*columns).where(StudyTable.id == find_study(session, ref).id)).one()
            study_id, event, result, measured, interrupted = found
            return StudyVersion(study_id, event, result, measured or 0, bool(interrupted))

    def list_version(self) -> tuple[Any, ...]:
        """Return the version of the answers about all studies."""
        interrupted = func.count().filter(self._interrupted())
        columns = (func.count(), func.max(StudyTable.sequence), func.sum(StudyTable.last_result), interrupted)
        query = select(*columns, func.max(StudyTable.updated_at))
        with self._read() as session:
            return tuple(session.execute(query).one())

    def tallies(self) -> Tallies:
        """Return the numbers of studies, trials and jobs by state."""
        jobs = select(JobTable.kind, JobTable.state, func.count()).group_by(JobTable.kind, JobTable.state)
        studies: Counter[tuple[str]] = Counter()
        trials: Counter[tuple[str]] = Counter()
        with self._read() as session:
            for state, interrupted, counts in session.execute(
                select(StudyTable.state, self._interrupted(), StudyTable.counts)
            ):
                studies[(StudyState.INTERRUPTED.value if interrupted else state,)] += 1
                for name, count in counts.items():
                    trials[(name,)] += count
            found = {(kind, state): count for kind, state, count in session.execute(jobs)}
        return Tallies(studies, trials, found)
