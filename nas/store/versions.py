"""Versions of answers: numbers that change whenever a read of a study could answer something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import bindparam, func, select

from nas.errors import NotFoundError
from nas.store.base import Repository
from nas.store.studies import find_study
from nas.store.tables import JobTable, MeasurementTable, StudyTable
from nas.study import StudyState

_MOMENT = "moment"


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
class ListVersion:
    """Version of the answers about all studies.

    Args:
        event: Number that grows with each event of any study.
        result: Values that change with each event that is not the report of an epoch.
    """

    event: int
    result: tuple[Any, ...]


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
        rows = self._database.look(self._of_study, {"ref": ref, **self._moment()})
        if not rows:
            with self._read() as session:
                ref = find_study(session, ref).id
            rows = self._database.look(self._of_study, {"ref": ref, **self._moment()})
        if not rows:
            raise NotFoundError(f"there is no study with id {ref!r}")
        study_id, event, result, measured, interrupted = rows[0]
        return StudyVersion(study_id, event, result, measured or 0, bool(interrupted))

    @cached_property
    def _of_study(self) -> Any:
        newest = select(func.max(MeasurementTable.id)).scalar_subquery()
        columns = (StudyTable.id, StudyTable.last_event, StudyTable.last_result, newest, self._interrupted(_MOMENT))
        return select(*columns).where(StudyTable.id == bindparam("ref"))

    @cached_property
    def _of_list(self) -> Any:
        interrupted = func.count().filter(self._interrupted(_MOMENT))
        sums = (func.sum(StudyTable.last_event), func.sum(StudyTable.last_result))
        # A study may take the number of a deleted one, but not its time.
        return select(*sums, func.count(), func.max(StudyTable.sequence), func.max(StudyTable.created_at), interrupted)

    def _moment(self) -> dict[str, datetime]:
        """Return the parameter of the present time; PostgreSQL reads its own clock."""
        return {} if self._database.path is None else {_MOMENT: datetime.now(UTC)}

    def list_version(self) -> ListVersion:
        """Return the version of the answers about all studies."""
        events, *results = self._database.look(self._of_list, self._moment())[0]
        return ListVersion(events or 0, tuple(results))

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
