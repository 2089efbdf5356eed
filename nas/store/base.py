"""What all parts of the store share: transactions, the lock of the study row, the fence, numbered events."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, JSON, ColumnElement, Insert, Integer, and_, any_, bindparam, func, literal, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from nas.errors import NotFoundError, StaleLease
from nas.jobs import JobKind, JobState
from nas.metrics import EvaluationKind
from nas.store.database import Database, insert_into
from nas.store.leases import Sightings
from nas.store.mapping import plain
from nas.store.tables import Base, EventTable, JobTable, StudyTable, TrialTable
from nas.study import StudyState

_LEASE = (
    select(JobTable.state, JobTable.epoch, JobTable.attempt).where(JobTable.id == bindparam("job_id")).with_for_update()
)
_ATTEMPT = "attempt"
EPOCHS = ("epoch", "training_epoch")
"""Kinds of events that come often and change little."""


def lease_expired(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the condition that a job's lease has expired because its holder died."""
    return and_(JobTable.state == JobState.RUNNING.value, JobTable.expires_at < now)


@dataclass(frozen=True)
class Fence:
    """A lease that guards each write of a store."""

    job_id: str
    epoch: int


def insert_new(session: Session, table: type[Base]) -> Insert:
    """Return an insert that skips rows with an existing key: another transaction may have written them."""
    statement: Insert = insert_into(session, table).on_conflict_do_nothing()
    return statement


def among(session: Session, column: Any, numbers: Collection[int] | None) -> Any:
    """Return the condition that ``column`` is one of ``numbers``; None stands for all.

    They are one parameter: to build a query with a parameter for each of a thousand takes longer than to run it.

    Args:
        session: Session of the query.
        column: Column of whole numbers, none of which is negative.
        numbers: Numbers of trials.
    """
    if numbers is None:
        return column >= 0
    wanted = sorted(numbers)
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(literal(wanted, ARRAY(Integer)))
    return column.in_(select(func.json_each(literal(wanted, JSON)).table_valued("value", name="given").c.value))


def _check_lease(fence: Fence, state: str, epoch: int) -> None:
    if state != JobState.RUNNING.value or epoch != fence.epoch:
        raise StaleLease(
            f"job {fence.job_id}: the lease with epoch {fence.epoch} is over: the job is {state} with epoch {epoch}"
        )


@dataclass(frozen=True)
class Actor:
    """The holder of a token for whom a store acts.

    Args:
        name: Name of the token.
        searches: Largest number of its studies whose search waits or runs, and of its trainings; None for no limit.
        admin: Whether it may change everything, whoever created it.
    """

    name: str
    searches: int | None = None
    admin: bool = False


class Repository:
    """Base of the store's parts.

    Locks are taken in one order, job before study; otherwise two transactions of PostgreSQL could wait for each other.

    Args:
        database: Database of the store.
        fence: Lease that guards each write.
        patience: Time in seconds for which a transaction waits for a database that does not answer.
        actor: Holder of a token that it acts for; None for a command.
    """

    def __init__(
        self, database: Database, fence: Fence | None = None, patience: float = 0.0, actor: Actor | None = None
    ) -> None:
        self._database = database
        self._fence = fence
        self._patience = patience
        self._actor = actor
        self._sightings = Sightings()
        self._usual: dict[str, tuple[int, EvaluationKind]] = {}

    def _read(self) -> Any:
        return self._database.read(self._patience)

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with self._database.write(self._patience) as session:
            if self._fence is not None:
                self._check_fence(session, self._fence)
            yield session

    def _check_fence(self, session: Session, fence: Fence) -> None:
        """Lock the fence's job, whose lease must still be the fence's; note its deaths for :meth:`_progressed`."""
        # Columns, because a mapped object costs more than all else that a frequent write does with its job.
        found = session.connection().execute(_LEASE, {"job_id": fence.job_id}).one_or_none()
        if found is None:
            raise NotFoundError(f"there is no job {fence.job_id!r}")
        _check_lease(fence, found.state, found.epoch)
        session.info[_ATTEMPT] = found.attempt

    def _leased_job(self, session: Session, job_id: str, epoch: int) -> JobTable:
        row = self._locked_job(session, job_id)
        _check_lease(Fence(job_id, epoch), row.state, row.epoch)
        return row

    def _progressed(self, session: Session) -> None:
        """Reset the deaths of the job that this store writes for: only deaths without progress between them count."""
        if self._fence is not None and session.info.get(_ATTEMPT) != 1:
            session.execute(update(JobTable).where(JobTable.id == self._fence.job_id).values(attempt=1))

    def _locked_job(self, session: Session, job_id: str) -> JobTable:
        row = session.get(JobTable, job_id, with_for_update=True)
        if row is None:
            raise NotFoundError(f"there is no job {job_id!r}")
        return row

    def _study_row(self, session: Session, study_id: str) -> StudyTable:
        row = session.get(StudyTable, study_id)
        if row is None:
            raise NotFoundError(f"there is no study with id {study_id!r}")
        return row

    def _interrupted(self, moment: str | None = None) -> ColumnElement[bool]:
        """Return the condition that a process held the search of a running study, and has died.

        Args:
            moment: Name of a parameter with the present time, for a query that is built once; None for the clock.
        """
        search = select(JobTable.id).where(JobTable.study_id == StudyTable.id, JobTable.kind == JobKind.SEARCH.value)
        died = search.where(lease_expired(self._database.clock(moment))).correlate(StudyTable).exists()
        return and_(StudyTable.state == StudyState.RUNNING.value, died)

    def _study_as_it_is(self, session: Session, study_id: str) -> tuple[StudyTable, bool]:
        """Return the row of a study, and whether the study is interrupted."""
        study, interrupted, _ = self._study_and(session, study_id, ())
        return study, interrupted

    def _study_and(
        self, session: Session, study_id: str, columns: Sequence[Any]
    ) -> tuple[StudyTable, bool, Sequence[Any]]:
        """Return the row of a study, whether the study is interrupted, and ``columns`` of the same query."""
        query = select(StudyTable, self._interrupted(), *columns).where(StudyTable.id == study_id)
        found = session.execute(query).one_or_none()
        if found is None:
            raise NotFoundError(f"there is no study with id {study_id!r}")
        return found[0], bool(found[1]), found[2:]

    def _locked_study(self, session: Session, study_id: str) -> StudyTable:
        """Return the row of the study, locked until the transaction ends."""
        query = select(StudyTable).where(StudyTable.id == study_id).with_for_update()
        row = session.scalars(query).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no study with id {study_id!r}")
        return row

    def _locked_trial(self, session: Session, study_id: str, number: int) -> tuple[StudyTable, TrialTable]:
        """Return the rows of a trial and of its study, which is locked until the transaction ends."""
        study = self._locked_study(session, study_id)
        row = session.get(TrialTable, (study_id, number))
        if row is None:
            raise NotFoundError(f"study {study.name} has no trial {number}")
        return study, row

    def _next(self, session: Session, column: InstrumentedAttribute[int]) -> int:
        """Return the next number of an order that does not depend on clocks.

        Two simultaneous transactions of PostgreSQL may get the same number: they are equally new.
        """
        return 1 + (session.scalar(select(func.max(column))) or 0)

    def _emit(self, session: Session, study: StudyTable, kind: str, payload: Mapping[str, Any]) -> None:
        """Add an event; ``study`` must be locked, or two events could get one number."""
        now = self._database.now(session)
        study.last_event += 1
        if kind not in EPOCHS:  # what lists, fronts and figures of a study show changes with other events alone
            study.last_result = study.last_event
        study.updated_at = now
        session.add(
            EventTable(
                study_id=study.id, number=study.last_event, kind=kind, payload=plain(payload), created_at=now
            )
        )
        session.flush()
