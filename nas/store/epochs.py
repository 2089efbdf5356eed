"""Records the epochs of running trials: the most frequent write of a search.

An epoch needs three rows that are read under locks (job, study, trial with its epoch) and three that are written
(history, study, event): six statements. Each is built once and works on columns; mapped objects would take two to three
times as long, most of it for columns that nobody reads here, such as the study's definition.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from nas.errors import ConflictError, NotFoundError
from nas.store.base import Repository, insert_new
from nas.store.database import server_clock
from nas.store.mapping import epoch_values
from nas.store.tables import Base, HistoryTable, RungTable, StudyTable, TrialTable
from nas.trial import EpochRecord, Rung, TrialState

_STUDY = select(StudyTable.name, StudyTable.last_event).where(StudyTable.id == bindparam("study_id")).with_for_update()
_EPOCH = and_(
    HistoryTable.study_id == TrialTable.study_id,
    HistoryTable.number == TrialTable.number,
    HistoryTable.epoch == bindparam("epoch"),
)
_TRIAL = (
    select(TrialTable.state, HistoryTable.phase, HistoryTable.metrics, HistoryTable.active_channels)
    .outerjoin(HistoryTable, _EPOCH)
    .where(TrialTable.study_id == bindparam("study_id"), TrialTable.number == bindparam("number"))
)
_TIMED_TRIAL = _TRIAL.add_columns(server_clock())
_HISTORY, _EVENTS, _STUDIES = (Base.metadata.tables[name] for name in ("history", "events", "studies"))
_OF_TRIAL = and_(_HISTORY.c.study_id == bindparam("of_study"), _HISTORY.c.number == bindparam("of_trial"))
_ADD_EPOCH = insert(_HISTORY)
_REPLACE_EPOCH = update(_HISTORY).where(_OF_TRIAL, _HISTORY.c.epoch == bindparam("of_epoch"))
_FORGET_LATER = delete(_HISTORY).where(_OF_TRIAL, _HISTORY.c.epoch > bindparam("of_epoch"))
_ADD_EVENT = insert(_EVENTS)
_COUNT_EVENT = update(_STUDIES).where(_STUDIES.c.id == bindparam("of_study"))


class Epochs(Repository):
    """Records the epochs of running trials."""

    def record_epoch(self, study_id: str, number: int, record: EpochRecord, rung: Rung | None = None) -> None:
        """Record the report of a running trial; an equal record changes nothing.

        Another record replaces it and deletes the later epochs: the trial started anew, and will report them again.

        Args:
            study_id: Id of the study.
            number: Number of the trial.
            record: Report of the epoch.
            rung: Decision of early stopping at this epoch, written in the same transaction; the first one stays.

        Raises:
            NotFoundError: If there is no such study or trial.
            ConflictError: If the trial is not running.
        """
        values = epoch_values(record)
        with self._write() as session:
            name, last_event = self._locked_columns(session, study_id)
            known, now = self._epoch_as_it_is(session, name, study_id, number, record.epoch)
            if rung is not None:
                self._add_rung(session, study_id, number, rung)
            if known == values:
                return
            connection = session.connection()
            if known is None:
                key = {"study_id": study_id, "number": number, "epoch": record.epoch}
                connection.execute(_ADD_EPOCH, {**key, **values})
                self._progressed(session)
            else:
                place = {"of_study": study_id, "of_trial": number, "of_epoch": record.epoch}
                connection.execute(_REPLACE_EPOCH, {**place, **values})
                connection.execute(_FORGET_LATER, place)
            payload = {"number": number, "epoch": record.epoch, "phase": record.phase, "metrics": values["metrics"]}
            event = {"study_id": study_id, "number": last_event + 1, "kind": "epoch", "payload": payload}
            connection.execute(_COUNT_EVENT, {"of_study": study_id, "last_event": last_event + 1, "updated_at": now})
            connection.execute(_ADD_EVENT, {**event, "created_at": now})

    def _locked_columns(self, session: Session, study_id: str) -> tuple[str, int]:
        """Return the name of a study, locked until the transaction ends, and the number of its last event."""
        found = session.connection().execute(_STUDY, {"study_id": study_id}).one_or_none()
        if found is None:
            raise NotFoundError(f"there is no study with id {study_id!r}")
        return found[0], found[1]

    def _epoch_as_it_is(
        self, session: Session, name: str, study_id: str, number: int, epoch: int
    ) -> tuple[dict[str, Any] | None, datetime]:
        """Return the columns of a recorded epoch, None if there is none, and the time; check that the trial runs."""
        own_clock = self._database.path is not None
        place = {"study_id": study_id, "number": number, "epoch": epoch}
        found = session.connection().execute(_TRIAL if own_clock else _TIMED_TRIAL, place).one_or_none()
        if found is None:
            raise NotFoundError(f"study {name} has no trial {number}")
        state, phase, metrics, active_channels, *clock = found
        if state != TrialState.RUNNING.value:
            raise ConflictError(f"trial {number} of study {name} is {state}, so it cannot report epoch {epoch}")
        known = {"phase": phase, "metrics": metrics, "active_channels": active_channels}
        return None if phase is None else known, self._database.now(session) if own_clock else clock[0]

    def _add_rung(self, session: Session, study_id: str, number: int, rung: Rung) -> None:
        row = {"study_id": study_id, "number": number, "epoch": rung.epoch, "scores": list(rung.scores)}
        session.execute(insert_new(session, RungTable), [{**row, "kept": rung.kept}])
