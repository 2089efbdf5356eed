"""Writes the rows of ``scores`` and ``hypervolumes``, in the transactions that change what they derive from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from nas.definition.study import StudyDefinition
from nas.findings.growth import Growth, Growths
from nas.findings.scores import told_kind
from nas.metrics import METRICS, Measurement
from nas.store.database import insert_into
from nas.store.mapping import definition_from
from nas.store.score_reads import Columns, bases, breaking, columns, have_several
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


def write_scores(
    session: Session, place: tuple[str, int, int], kind: str, values: Values, others: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write the newest values of a candidate.

    Args:
        session: Session of the transaction.
        place: Study, trial and position of the candidate.
        kind: Kind of the trial.
        values: New values.
        others: Further rows, as :func:`measured_rows` returns them.
    """
    study_id, number, position = place
    named = {"study_id": study_id, "number": number, "position": position, "kind": kind}
    own = [{**named, "metric": metric, "basis": basis, "value": value} for (metric, basis), value in values.items()]
    upsert(session, [*others, *own])


def measured_rows(
    session: Session, architecture_id: str, shape: str, added: Iterable[Measurement]
) -> list[dict[str, Any]]:
    """Return the new rows of all candidates with an architecture whose measurements were ``added``, in any study."""
    values = {(m.metric, m.fingerprint): float(m.value) for m in added}
    query = (
        select(CandidateTable.study_id, CandidateTable.number, CandidateTable.position, TrialTable.kind)
        .join(StudyTable, StudyTable.id == CandidateTable.study_id)
        .join(
            TrialTable,
            (TrialTable.study_id == CandidateTable.study_id) & (TrialTable.number == CandidateTable.number),
        )
        .where(CandidateTable.architecture_id == architecture_id, StudyTable.input_shape == shape)
    )
    places = list(session.execute(query)) if values else []
    return [
        {**row._mapping, "metric": metric, "basis": basis, "value": value}
        for row in places
        for (metric, basis), value in values.items()
    ]


def moves_objective(study: StudyTable, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether ``rows`` may change a value of an objective of ``study``, or of a constrained metric."""
    metrics = {row["metric"] for row in rows if row["study_id"] == study.id}
    if not metrics:
        return False
    definition = definition_from(study)
    return not metrics.isdisjoint((*definition.objectives, *(limit.metric for limit in definition.constraints)))


def forget_growths(session: Session, study: StudyTable, rows: Sequence[Mapping[str, Any]]) -> None:
    """Delete the hypervolumes of other studies whose objectives ``rows`` may move; they are computed anew when read.

    These studies are not locked, because two trials that end could then wait for each other.
    """
    others = {row["study_id"] for row in rows} - {study.id}
    for other in session.scalars(select(StudyTable).where(StudyTable.id.in_(sorted(others)))) if others else ():
        if moves_objective(other, rows):
            session.execute(delete(HypervolumeTable).where(HypervolumeTable.study_id == other.id))


def upsert(session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows or replace their values; of rows with an equal key the last one counts."""
    key = [column.name for column in ScoreTable.__table__.primary_key]
    newest = {tuple(row[name] for name in key): row for row in rows}
    if not newest:
        return
    # One order for all, so that two writers cannot wait for each other.
    statement = insert_into(session, ScoreTable)
    session.execute(
        statement.on_conflict_do_update(index_elements=key, set_={"value": statement.excluded.value}),
        [newest[place] for place in sorted(newest)],
    )


def _feasible(session: Session, study: StudyTable, definition: StudyDefinition, found: Columns) -> Columns:
    """Return the networks that keep the constraints of a study, in the evaluation kind that its trials end with."""
    limits = definition.constraints
    on = bases(session, study.id, [limit.metric for limit in limits], told_kind(definition)) if limits else {}
    broken = breaking(session, study.id, limits, on, found)
    kept = ~np.logical_or.reduce([*broken.values(), np.zeros(len(found.numbers), dtype=bool)])
    return Columns(found.numbers[kept], found.positions[kept], found.values[kept])


def grow(session: Session, study: StudyTable, number: int, now: datetime) -> None:
    """Add the growth of the hypervolume by a trial that has just ended, if there is one."""
    definition = definition_from(study)
    if not _has_point(study, definition):
        return
    last = session.scalars(_growths(study.id).order_by(HypervolumeTable.place.desc()).limit(1)).first()
    whole = session.scalar(select(func.min(HypervolumeTable.place)).where(HypervolumeTable.study_id == study.id)) == 1
    objectives = definition.objectives
    measured = [name for name in objectives if not METRICS[name].evaluated]
    # The first trial, or a study of an older version; or the trial may change which circumstances are the usual ones.
    if last is None or not whole or (measured and have_several(session, study.id, measured)):
        regrow(session, study)
        return
    on = bases(session, study.id, objectives, told_kind(definition))
    grown_by = select(HypervolumeTable.number).where(HypervolumeTable.study_id == study.id)
    before = _feasible(session, study, definition, columns(session, study.id, objectives, on, grown_by))
    known = Growths(objectives, study.reference_point, before.values.tolist(), last.value)
    added = _feasible(session, study, definition, columns(session, study.id, objectives, on, [number]))
    if known.add(added.values.tolist()):
        trials = results_of(session, study.id)
        session.add(
            HypervolumeTable(
                study_id=study.id, place=last.place + 1, number=number, trials=trials, value=known.value,
                created_at=now,
            )
        )  # fmt: skip


def results_of(session: Session, study_id: str) -> int:
    """Return the number of a study's trials with a result, without those of the final comparison."""
    ended = select(func.count()).where(TrialTable.study_id == study_id, TrialTable.state.in_(OBSERVED))
    return session.scalar(ended.where(TrialTable.kind != TrialKind.RETRAIN.value)) or 0


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
    scored = _feasible(session, study, definition, columns(session, study.id, objectives, on))
    for number, scores in zip(scored.numbers.tolist(), scored.values.tolist(), strict=True):
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
    """Return the recorded growths of a study's hypervolume; none if the first ones are missing."""
    rows = session.scalars(_growths(study_id).order_by(HypervolumeTable.place)).all()
    if rows and rows[0].place != 1:
        return []
    return [Growth(row.number, row.trials, row.value, row.created_at) for row in rows]


def hypervolume(session: Session, study_id: str) -> float | None:
    """Return the recorded hypervolume of a study; None before the first result, or without a reference point."""
    last = _growths(study_id).order_by(HypervolumeTable.place.desc()).limit(1)
    row: HypervolumeTable | None = session.scalars(last).first()
    return None if row is None else row.value


def _growths(study_id: str) -> Any:
    return select(HypervolumeTable).where(HypervolumeTable.study_id == study_id)


def _has_point(study: StudyTable, definition: StudyDefinition) -> bool:
    return all(name in study.reference_point for name in definition.objectives)
