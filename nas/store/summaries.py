"""What pages and lists ask often: small answers, a constant number of queries however many trials there are."""

from __future__ import annotations

from sqlalchemy import Select, func, literal, select
from sqlalchemy.orm import Session

from nas.store.mapping import study_from
from nas.store.records import StudySummary
from nas.store.studies import Studies
from nas.store.tables import EvaluationTable, HistoryTable, StudyTable, TrialTable
from nas.trial import EvaluationKind, TrialState


class Summaries(Studies):
    """Studies in a line, and how far running trials have come."""

    def ping(self) -> None:
        """Return if the database answers.

        Raises:
            StoreError: If it does not.
        """
        with self._read() as session:
            session.execute(select(literal(1)))

    def summaries(self) -> list[StudySummary]:
        """Return all studies, newest first."""
        with self._read() as session:
            rows = session.scalars(select(StudyTable).order_by(StudyTable.created_at.desc(), StudyTable.id)).all()
            return _summaries(session, list(rows), None)

    def summary(self, ref: str) -> StudySummary:
        """Find one study, as :meth:`study` does.

        Raises:
            NotFoundError: If there is none or more than one; lists near names.
        """
        study_id = self.study(ref).id
        with self._read() as session:
            return _summaries(session, [self._study_row(session, study_id)], study_id)[0]

    def last_epochs(self, study_id: str) -> dict[int, int]:
        """Return trial number to newest epoch of the running trials that reported one."""
        query = (
            select(HistoryTable.number, func.max(HistoryTable.epoch))
            .join(TrialTable, (TrialTable.study_id == study_id) & (TrialTable.number == HistoryTable.number))
            .where(HistoryTable.study_id == study_id, TrialTable.state == TrialState.RUNNING.value)
            .group_by(HistoryTable.number)
        )
        with self._read() as session:
            return {number: epoch for number, epoch in session.execute(query)}


def _summaries(session: Session, rows: list[StudyTable], study_id: str | None) -> list[StudySummary]:
    counts = select(TrialTable.study_id, TrialTable.state, func.count()).group_by(TrialTable.study_id, TrialTable.state)
    best = (
        select(EvaluationTable.study_id, func.max(EvaluationTable.value))
        .where(
            EvaluationTable.metric == "top1",
            EvaluationTable.kind == EvaluationKind.FINETUNED.value,
            EvaluationTable.data_split == "validation",
        )
        .group_by(EvaluationTable.study_id)
    )
    by_state = {row.id: dict.fromkeys(TrialState, 0) for row in rows}
    for owner, state, number in session.execute(_only(counts, TrialTable, study_id)):
        if owner in by_state:
            by_state[owner][TrialState(state)] = number
    top1 = {owner: value for owner, value in session.execute(_only(best, EvaluationTable, study_id))}
    return [StudySummary(study_from(row), by_state[row.id], top1.get(row.id), row.last_event) for row in rows]


def _only(
    query: Select[tuple[str, float]] | Select[tuple[str, str, int]],
    table: type[TrialTable | EvaluationTable],
    study_id: str | None,
) -> Select[tuple[str, float]] | Select[tuple[str, str, int]]:
    return query if study_id is None else query.where(table.study_id == study_id)
