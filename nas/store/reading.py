"""Trials as they are read: a constant number of queries, however many trials there are."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nas.errors import NotFoundError
from nas.store.base import Repository
from nas.store.mapping import (
    artifact_from,
    candidate_from,
    epoch_from,
    evaluation_from,
    measurement_from,
    split_from,
    trial_from,
)
from nas.store.records import SplitRow
from nas.store.tables import (
    ArchitectureTable,
    ArtifactTable,
    CandidateTable,
    EvaluationTable,
    HistoryTable,
    MeasurementTable,
    SplitTable,
    StudyTable,
    TrialTable,
)
from nas.trial import Artifact, Candidate, EpochRecord, Trial, TrialKind, TrialState
from partialnet.architecture import Architecture


class TrialReads(Repository):
    """What shows trials and what was observed of them."""

    def trials(self, study_id: str, *, history: bool = False) -> list[Trial]:
        """Return a study's trials by number, with candidates; with what they reported only if ``history``.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            study = self._study_row(session, study_id)
            return _trials(session, study, None, history=history)

    def trial(self, study_id: str, number: int) -> Trial:
        """Return one trial with its history.

        Raises:
            NotFoundError: If there is no such study or trial.
        """
        with self._read() as session:
            study = self._study_row(session, study_id)
            found = _trials(session, study, number, history=True)
            if not found:
                raise NotFoundError(f"study {study.name} has no trial {number}")
            return found[0]

    def last_epochs(self, study_id: str) -> dict[int, int]:
        """Return trial number to newest epoch, of the running trials that have reported one."""
        query = (
            select(HistoryTable.number, func.max(HistoryTable.epoch).label("epoch"))
            .join(TrialTable, (TrialTable.study_id == study_id) & (TrialTable.number == HistoryTable.number))
            .where(HistoryTable.study_id == study_id, TrialTable.state == TrialState.RUNNING.value)
            .group_by(HistoryTable.number)
        )
        with self._read() as session:
            return {row.number: row.epoch for row in session.execute(query)}

    def split_rows(self, study_id: str) -> list[SplitRow]:
        """Return the per-layer splits of all complete trials' candidates, by trial and layer."""
        with self._read() as session:
            study = self._study_row(session, study_id)
            query = (
                select(TrialTable.kind, CandidateTable.number, SplitTable)
                .join(TrialTable, (TrialTable.study_id == study_id) & (TrialTable.number == CandidateTable.number))
                .join(SplitTable, SplitTable.architecture_id == CandidateTable.architecture_id)
                .where(CandidateTable.study_id == study_id, SplitTable.input_shape == study.input_shape)
                .where(TrialTable.state == TrialState.COMPLETE.value)
                .order_by(CandidateTable.number, CandidateTable.position, SplitTable.index)
            )
            return [_split_row(kind, number, row) for kind, number, row in session.execute(query)]

    def artifact(self, uri: str) -> Artifact:
        """Return the record of a stored file.

        Raises:
            NotFoundError: If none is recorded under ``uri``.
        """
        with self._read() as session:
            row = session.scalars(select(ArtifactTable).where(ArtifactTable.uri == uri)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no artifact {uri!r}")
            return artifact_from(row)


def _split_row(kind: str, number: int, row: SplitTable) -> SplitRow:
    return SplitRow(
        number=number,
        kind=TrialKind(kind),
        architecture_id=row.architecture_id,
        layer=row.layer,
        index=row.index,
        stage=row.stage,
        block=row.block,
        channels=row.channels,
        active_channels=row.active_channels,
        ratio=row.ratio,
        macs=row.macs,
    )


def _trials(session: Session, study: StudyTable, number: int | None, *, history: bool) -> list[Trial]:
    rows = session.scalars(_of(select(TrialTable), TrialTable, study.id, number).order_by(TrialTable.number)).all()
    candidates = _candidates(session, study, number)
    epochs: dict[int, list[EpochRecord]] = defaultdict(list)
    if history:
        query = _of(select(HistoryTable), HistoryTable, study.id, number)
        for row in session.scalars(query.order_by(HistoryTable.number, HistoryTable.epoch)):
            epochs[row.number].append(epoch_from(row))
    return [trial_from(row, candidates[row.number], epochs[row.number]) for row in rows]


def _of(query: Any, table: Any, study_id: str, number: int | None) -> Any:
    query = query.where(table.study_id == study_id)
    return query if number is None else query.where(table.number == number)


def _candidates(session: Session, study: StudyTable, number: int | None) -> dict[int, list[Candidate]]:
    query = (
        _of(select(CandidateTable, ArchitectureTable, ArtifactTable), CandidateTable, study.id, number)
        .join(ArchitectureTable, ArchitectureTable.id == CandidateTable.architecture_id)
        .outerjoin(ArtifactTable, ArtifactTable.id == CandidateTable.weights_id)
        .order_by(CandidateTable.number, CandidateTable.position)
    )
    rows = session.execute(query).all()
    evaluations = _grouped(
        session.scalars(_of(select(EvaluationTable), EvaluationTable, study.id, number).order_by(EvaluationTable.id)),
        lambda row: (row.number, row.position),
        evaluation_from,
    )
    splits = _of_architectures(session, study, number, SplitTable, SplitTable.index, split_from)
    measurements = _of_architectures(
        session, study, number, MeasurementTable, MeasurementTable.id, measurement_from
    )
    architectures: dict[str, Architecture] = {}
    result: dict[int, list[Candidate]] = defaultdict(list)
    for row, known, artifact in rows:
        if known.id not in architectures:
            architectures[known.id] = Architecture.from_dict(known.definition)
        candidate = candidate_from(
            row,
            architectures[known.id],
            artifact,
            splits[known.id],
            evaluations[row.number, row.position],
            measurements[known.id],
        )
        result[row.number].append(candidate)
    return result


def _of_architectures(
    session: Session, study: StudyTable, number: int | None, table: Any, order: Any, build: Any
) -> dict[Any, list[Any]]:
    settled_on = _of(select(CandidateTable.architecture_id), CandidateTable, study.id, number)
    query = (
        select(table)
        .where(table.architecture_id.in_(settled_on), table.input_shape == study.input_shape)
        .order_by(table.architecture_id, order)
    )
    return _grouped(session.scalars(query), lambda row: row.architecture_id, build)


def _grouped(rows: Any, key: Any, build: Any) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(build(row))
    return groups
