"""Writes the rows of ``scores`` and ``hypervolumes``, in the transactions that change what they derive from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from nas.definition.study import StudyDefinition
from nas.findings.growth import Growth, Growths
from nas.findings.scores import most_frequent, told_kind
from nas.metrics import METRICS, EvaluationKind, Measurement
from nas.store.mapping import definition_from
from nas.store.tables import CandidateTable, HypervolumeTable, MeasurementTable, ScoreTable, StudyTable, TrialTable
from nas.trial import TrialKind, TrialState

Values = Mapping[tuple[str, str], float]
"""Values by metric and basis."""
OBSERVED = (TrialState.COMPLETE.value, TrialState.PRUNED.value)


def evaluation_scores(evaluations: Iterable[Any]) -> Values:
    """Return the newest values of evaluations on validation data; the newest come last."""
    return {(e.metric, e.kind.value): float(e.value) for e in evaluations if e.data_split == "validation"}


def measured_scores(session: Session, architecture_id: str, shape: str) -> Values:
    """Return the newest values of an architecture's measurements."""
    query = (
        select(MeasurementTable.metric, MeasurementTable.fingerprint, MeasurementTable.value)
        .where(MeasurementTable.architecture_id == architecture_id, MeasurementTable.input_shape == shape)
        .order_by(MeasurementTable.id)
    )
    return {(metric, fingerprint): value for metric, fingerprint, value in session.execute(query)}


def write_scores(session: Session, place: tuple[str, int, int], kind: str, values: Values) -> None:
    """Write the newest values of a candidate.

    Args:
        session: Session of the transaction.
        place: Study, trial and position of the candidate.
        kind: Kind of the trial.
        values: New values.
    """
    _upsert(session, [_row(place, kind, key, value) for key, value in values.items()])


def write_measured(session: Session, study: StudyTable, architecture_id: str, added: Iterable[Measurement]) -> bool:
    """Write new measurements of an architecture for a study's candidates; return whether one is of an objective."""
    values = {(m.metric, m.fingerprint): float(m.value) for m in added}
    query = (
        select(CandidateTable.number, CandidateTable.position, TrialTable.kind)
        .join(TrialTable, (TrialTable.study_id == study.id) & (TrialTable.number == CandidateTable.number))
        .where(CandidateTable.architecture_id == architecture_id, CandidateTable.study_id == study.id)
    )
    rows = [
        _row((study.id, number, position), kind, key, value)
        for number, position, kind in session.execute(query)
        for key, value in values.items()
    ]
    _upsert(session, rows)
    return any(metric in definition_from(study).objectives for metric, _ in values)


def _row(place: tuple[str, int, int], kind: str, key: tuple[str, str], value: float) -> dict[str, Any]:
    study_id, number, position = place
    named = {"study_id": study_id, "number": number, "position": position, "kind": kind}
    return {**named, "metric": key[0], "basis": key[1], "value": value}


def _upsert(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement: Any = dialect.insert(ScoreTable)
    key = [column.name for column in ScoreTable.__table__.primary_key]
    session.execute(
        statement.on_conflict_do_update(index_elements=key, set_={"value": statement.excluded.value}), rows
    )


def bases(session: Session, study_id: str, metrics: Iterable[str], kind: EvaluationKind) -> dict[str, str]:
    """Return the basis on which a front compares each metric: ``kind``, or the usual fingerprint.

    A measured metric without any measurement is left out.
    """
    wanted = list(metrics)
    measured = [name for name in wanted if not METRICS[name].evaluated]
    query = (
        select(ScoreTable.metric, ScoreTable.basis, func.count())
        .where(ScoreTable.study_id == study_id, ScoreTable.metric.in_(measured))
        .group_by(ScoreTable.metric, ScoreTable.basis)
    )
    counts = {(metric, basis): n for metric, basis, n in session.execute(query)} if measured else {}
    usual = most_frequent(counts)
    found = {name: kind.value if METRICS[name].evaluated else usual.get(name) for name in wanted}
    return {name: basis for name, basis in found.items() if basis is not None}


def columns(
    session: Session,
    study_id: str,
    metrics: Sequence[str],
    on: Mapping[str, str],
    numbers: Any = None,
) -> list[Any]:
    """Return (trial, position, kind of trial, values ...) of the networks with a score in each metric.

    The final comparison's trials are left out: their networks are those of other trials.

    Args:
        session: Session of one snapshot.
        study_id: Id of the study.
        metrics: Metrics in the order of the values.
        on: Basis of each metric.
        numbers: Trials as a list or a query; None for all.
    """
    if any(name not in on for name in metrics):
        return []
    first, *others = [aliased(ScoreTable) for _ in metrics]
    query: Any = select(first.number, first.position, first.kind, first.value, *(other.value for other in others))
    for name, table in zip(metrics[1:], others, strict=True):
        same = (table.study_id == study_id) & (table.number == first.number) & (table.position == first.position)
        query = query.join(table, same & (table.metric == name) & (table.basis == on[name]))
    query = query.where(first.study_id == study_id, first.metric == metrics[0], first.basis == on[metrics[0]])
    query = query.where(first.kind != TrialKind.RETRAIN.value)
    if numbers is not None:
        query = query.where(first.number.in_(numbers))
    return list(session.execute(query).all())


def grow(session: Session, study: StudyTable, number: int, now: datetime) -> None:
    """Add the growth of the hypervolume by a trial that has just ended, if there is one."""
    definition = definition_from(study)
    if not _has_point(study, definition):
        return
    last = session.scalars(_growths(study.id).order_by(HypervolumeTable.place.desc()).limit(1)).first()
    if last is None:  # the first trial, or a study of an older version
        regrow(session, study)
        return
    objectives = definition.objectives
    on = bases(session, study.id, objectives, told_kind(definition))
    grown_by = select(HypervolumeTable.number).where(HypervolumeTable.study_id == study.id)
    known = Growths(objectives, study.reference_point, [row[3:] for row in columns(
        session, study.id, objectives, on, grown_by)], last.value)
    new = [row[3:] for row in columns(session, study.id, objectives, on, [number])]
    if known.add(new):
        ended = select(func.count()).where(TrialTable.study_id == study.id, TrialTable.state.in_(OBSERVED))
        trials = session.scalar(ended.where(TrialTable.kind != TrialKind.RETRAIN.value)) or 0
        session.add(
            HypervolumeTable(
                study_id=study.id, place=last.place + 1, number=number, trials=trials, value=known.value,
                created_at=now,
            )
        )  # fmt: skip


def regrow(session: Session, study: StudyTable) -> None:
    """Compute the hypervolumes of a study anew."""
    session.execute(delete(HypervolumeTable).where(HypervolumeTable.study_id == study.id))
    session.flush()
    rows = [
        {"study_id": study.id, "place": place, "number": growth.number, "trials": growth.trials,
         "value": growth.value, "created_at": growth.at}
        for place, growth in enumerate(replayed(session, study, definition_from(study)), start=1)
    ]  # fmt: skip
    if rows:
        session.execute(insert(HypervolumeTable), rows)


def replayed(session: Session, study: StudyTable, definition: StudyDefinition) -> list[Growth]:
    """Return the growths of a study's hypervolume, computed from the scores of its ended trials."""
    if not _has_point(study, definition):
        return []
    objectives = definition.objectives
    on = bases(session, study.id, objectives, told_kind(definition))
    values: dict[int, list[Sequence[float]]] = {}
    for number, _, _, *scores in columns(session, study.id, objectives, on):
        values.setdefault(number, []).append(scores)
    query = (
        select(TrialTable.number, TrialTable.ended_at)
        .where(TrialTable.study_id == study.id, TrialTable.state.in_(OBSERVED))
        .where(TrialTable.kind != TrialKind.RETRAIN.value)
        .order_by(TrialTable.ended_at, TrialTable.number)
    )
    known, found = Growths(objectives, study.reference_point), []
    for trials, (number, ended_at) in enumerate(session.execute(query), start=1):
        if known.add(values.get(number, [])):
            assert ended_at is not None  # its state is that of an ended trial
            found.append(Growth(number, trials, known.value, ended_at))
    return found


def stored_growths(session: Session, study_id: str) -> list[Growth]:
    """Return the recorded growths of a study's hypervolume."""
    rows = session.scalars(_growths(study_id).order_by(HypervolumeTable.place))
    return [Growth(row.number, row.trials, row.value, row.created_at) for row in rows]


def _growths(study_id: str) -> Any:
    return select(HypervolumeTable).where(HypervolumeTable.study_id == study_id)


def _has_point(study: StudyTable, definition: StudyDefinition) -> bool:
    return all(name in study.reference_point for name in definition.objectives)
