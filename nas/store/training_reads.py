"""Reads trainings: one, its epochs, pages of them, and the versions of the answers about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, tuple_
from sqlalchemy.orm import Session

from nas.errors import NotFoundError
from nas.jobs import DesiredState, JobState
from nas.store.base import Repository, lease_expired
from nas.store.marks import decode_place, encode_mark
from nas.store.tables import JobTable, TrainingEpochTable, TrainingTable
from nas.store.training_rows import training_from
from nas.trainings import Training, TrainingQuery, TrainingState
from nas.trial import EpochRecord

_SHORTEST_ID = 6
_PAGE = 500
PHASE = "training"
"""Phase of all epochs of a training."""


class TrainingReads(Repository):
    """Reads trainings of one network outside of a search."""

    def training(self, ref: str) -> Training:
        """Find a training.

        Args:
            ref: Id, or its first 6 or more characters.

        Raises:
            NotFoundError: If no training or more than one matches.
        """
        with self._read() as session:
            return self._training_as_it_is(session, find_training(session, ref).id)

    def _training_as_it_is(self, session: Session, training_id: str) -> Training:
        query = select(TrainingTable, self._cut_off(), _stopping()).where(TrainingTable.id == training_id)
        row, cut_off, stopping = session.execute(query).one()
        return training_from(row, interrupted=bool(cut_off), stopping=bool(stopping))

    def _cut_off(self) -> ColumnElement[bool]:
        """Return the condition that a process held a running training, and has died."""
        mine = select(JobTable.id).where(JobTable.id == TrainingTable.job_id)
        died = mine.where(lease_expired(self._database.clock())).correlate(TrainingTable).exists()
        return and_(TrainingTable.state == TrainingState.RUNNING.value, died)

    def training_history(self, training_id: str) -> list[EpochRecord]:
        """Return the epochs of a training, in order."""
        query = (
            select(TrainingEpochTable.epoch, TrainingEpochTable.metrics)
            .where(TrainingEpochTable.training_id == training_id)
            .order_by(TrainingEpochTable.epoch)
        )
        with self._read() as session:
            return [EpochRecord(epoch, PHASE, metrics, {}) for epoch, metrics in session.execute(query)]

    def training_page(self, asked: TrainingQuery) -> tuple[list[Training], str | None]:
        """Return a page of trainings, newest first, and the mark of its end; None on the last page.

        Raises:
            InputError: If the mark ``after`` is damaged.
        """
        order = (TrainingTable.sequence, TrainingTable.id)
        query = select(TrainingTable, self._cut_off(), _stopping()).order_by(*(column.desc() for column in order))
        for column, value in (
            (TrainingTable.study_id, asked.study_id), (TrainingTable.number, asked.number),
            (TrainingTable.recipe, asked.recipe),
        ):  # fmt: skip
            if value is not None:
                query = query.where(column == value)
        if asked.architecture is not None:
            query = query.where(TrainingTable.architecture_id.startswith(asked.architecture, autoescape=True))
        if asked.states:
            query = query.where(_in_states(asked.states, self._cut_off()))
        if asked.after is not None:
            query = query.where(tuple_(*order) < tuple_(*decode_place(asked.after)))
        with self._read() as session:
            rows = session.execute(query.limit(asked.limit + 1)).all()
            kept = rows[: asked.limit]
            more = encode_mark([kept[-1][0].sequence, kept[-1][0].id]) if len(rows) > asked.limit else None
            found = [
                training_from(row, interrupted=bool(cut_off), stopping=bool(stopping))
                for row, cut_off, stopping in kept
            ]
            return found, more

    def all_trainings(self, study_id: str | None = None) -> Iterator[Training]:
        """Yield all trainings, or those of a study, newest first; each page is one query."""
        after: str | None = None
        while True:
            page, after = self.training_page(TrainingQuery(_PAGE, after, study_id=study_id))
            yield from page
            if after is None:
                return

    def training_version(self, ref: str) -> tuple[str, int, bool]:
        """Return id and version of a training, and whether it is interrupted.

        Raises:
            NotFoundError: If no training or more than one matches.
        """
        with self._read() as session:
            found = self._training_as_it_is(session, find_training(session, ref).id)
            return found.id, found.version, found.state is TrainingState.INTERRUPTED

    def trainings_version(self) -> tuple[Any, ...]:
        """Return the version of the answers about all trainings."""
        cut_off = func.count().filter(self._cut_off())
        columns = (func.count(), func.max(TrainingTable.sequence), func.sum(TrainingTable.version), cut_off)
        with self._read() as session:
            return tuple(session.execute(select(*columns, func.max(TrainingTable.created_at))).one())

    def training_tallies(self) -> dict[tuple[str], int]:
        """Return the number of trainings by state."""
        query = select(TrainingTable.state, func.count()).group_by(TrainingTable.state)
        with self._read() as session:
            return {(state,): count for state, count in session.execute(query)}


def _stopping() -> ColumnElement[bool]:
    """Return the condition that a training was requested to stop and has not done so yet."""
    asked = JobTable.desired != DesiredState.RUNNING.value
    mine = select(JobTable.id).where(JobTable.id == TrainingTable.job_id, JobTable.state == JobState.RUNNING.value)
    return mine.where(asked).correlate(TrainingTable).exists()


def _in_states(states: Iterable[TrainingState], cut_off: ColumnElement[bool]) -> ColumnElement[bool]:
    wanted = set(states)
    plain_ones = [state.value for state in wanted if state is not TrainingState.INTERRUPTED]
    found = TrainingTable.state.in_(plain_ones)
    if TrainingState.RUNNING in wanted and TrainingState.INTERRUPTED not in wanted:
        return found & ~cut_off
    return found | cut_off if TrainingState.INTERRUPTED in wanted else found


def find_training(session: Session, ref: str, *, lock: bool = False) -> TrainingTable:
    """Return the row of the training that ``ref`` names, locked until the transaction ends if requested.

    Raises:
        NotFoundError: If no training or more than one matches.
    """
    query = select(TrainingTable).where(TrainingTable.id == ref)
    if len(ref) < 36:
        if len(ref) < _SHORTEST_ID:
            raise NotFoundError(f"{ref!r}: name a training by the first {_SHORTEST_ID} or more characters of its id")
        query = select(TrainingTable).where(TrainingTable.id.startswith(ref, autoescape=True)).limit(2)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    rows = session.scalars(query).all()
    if len(rows) > 1:
        raise NotFoundError(f"{ref!r} is the beginning of several trainings' ids; give more of it")
    if not rows:
        raise NotFoundError(f"there is no training {ref!r}")
    return rows[0]
