"""Counts of trials and best scores in the row of a study, kept by the transactions that change them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from nas.metrics import BY_TRAINING, EvaluationKind
from nas.store.tables import ScoreTable, StudyTable, TrialTable
from nas.trial import TrialState


def count_new(study: StudyTable, number: int) -> None:
    """Count ``number`` new trials, which are queued."""
    _change(study, {TrialState.QUEUED: number})


def move_trial(study: StudyTable, row: TrialTable, state: TrialState) -> None:
    """Set the state of a trial, and count it there; ``study`` must be locked."""
    before = TrialState(row.state)
    row.state = state.value
    if before is not state:
        _change(study, {before: -1, state: 1})


def note_best(session: Session, study: StudyTable) -> None:
    """Note the best scores of a study, each the end of a range of an index; ``study`` must be locked."""
    found = session.execute(select(*(_best(study.id, kind) for kind in BY_TRAINING))).one()
    best = {kind.value: value for kind, value in zip(BY_TRAINING, found, strict=True) if value is not None}
    if best != study.best:
        study.best = best


def recount(session: Session, study: StudyTable) -> None:
    """Compute counts and best scores from the tables, after rows were inserted in bulk."""
    query = select(TrialTable.state, func.count()).where(TrialTable.study_id == study.id).group_by(TrialTable.state)
    study.counts = dict(session.execute(query).all())
    note_best(session, study)


def counts_of(study: StudyTable, *, interrupted: bool) -> dict[TrialState, int]:
    """Return the number of trials in each state; in an ``interrupted`` study no trial runs."""
    counts = {state: study.counts.get(state.value, 0) for state in TrialState}
    if interrupted:
        counts[TrialState.INTERRUPTED], counts[TrialState.RUNNING] = counts[TrialState.RUNNING], 0
    return counts


def best_top1(study: StudyTable) -> float | None:
    """Return the best validation top-1, of the best trained weights with a score."""
    return next((study.best[kind.value] for kind in BY_TRAINING if kind.value in study.best), None)


def best_top1_column(*, absent: float) -> ColumnElement[Any]:
    """Return :func:`best_top1` for a query, with a value for studies without a score."""
    return func.coalesce(*(StudyTable.best[kind.value].as_float() for kind in BY_TRAINING), absent)


def _change(study: StudyTable, by: dict[TrialState, int]) -> None:
    counts = dict(study.counts)  # a new value: the mapper does not see changes inside
    for state, number in by.items():
        counts[state.value] = counts.get(state.value, 0) + number
    study.counts = {state: count for state, count in counts.items() if count}


def _best(study_id: str, kind: EvaluationKind) -> Any:
    return (
        select(func.max(ScoreTable.value))
        .where(ScoreTable.study_id == study_id, ScoreTable.metric == "top1", ScoreTable.basis == kind.value)
        .scalar_subquery()
    )
