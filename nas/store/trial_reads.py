"""Reads trials with a constant number of queries, however many trials there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from nas.candidate import Artifact, Candidate
from nas.errors import NotFoundError
from nas.store.base import Repository, among
from nas.store.mapping import (
    EPOCH_COLUMNS,
    EVALUATION_COLUMNS,
    MEASUREMENT_COLUMNS,
    SPLIT_COLUMNS,
    artifact_from,
    candidate_from,
    epoch_from,
    evaluation_from,
    measurement_from,
    rung_from,
    split_from,
    trial_from,
)
from nas.store.records import LayerRatio
from nas.store.tables import (
    ArchitectureTable,
    ArtifactTable,
    CandidateTable,
    EvaluationTable,
    HistoryTable,
    MeasurementTable,
    RungTable,
    SplitTable,
    StudyTable,
    TrialTable,
)
from nas.trial import EpochRecord, Rung, Trial, TrialKind, TrialState
from partialnet.architecture import Architecture


class TrialReads(Repository):
    """Reads trials with their scores and measurements."""

    def trials(
        self, study_id: str, *, history: bool = False, numbers: Sequence[int] | None = None
    ) -> list[Trial]:
        """Return a study's trials by number, with candidates.

        Args:
            study_id: Id of the study.
            history: Whether their epochs are read, too.
            numbers: Numbers of the trials; None for all.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._read() as session:
            study, interrupted = self._study_as_it_is(session, study_id)
            return trials_of(session, study, numbers, history=history, interrupted=interrupted)

    def sampled(self, study_id: str, name: str) -> dict[int, float]:
        """Return the sampled values of the number ``name`` of the complete search trials, by number.

        Trials without the parameter are left out.
        """
        value = TrialTable.parameters[name].as_float()
        query = select(TrialTable.number, value).where(
            TrialTable.study_id == study_id,
            TrialTable.state == TrialState.COMPLETE.value,
            TrialTable.kind == TrialKind.SEARCH.value,
        )
        with self._read() as session:
            found = session.execute(query.order_by(TrialTable.number)).all()
        return {number: float(value) for number, value in found if value is not None}

    def first_complete(self, study_id: str) -> int | None:
        """Return the number of the first complete trial of a study; None without one."""
        query = select(func.min(TrialTable.number)).where(
            TrialTable.study_id == study_id, TrialTable.state == TrialState.COMPLETE.value
        )
        with self._read() as session:
            number: int | None = session.scalar(query)
            return number

    def trial(self, study_id: str, number: int) -> Trial:
        """Return one trial with its history.

        Raises:
            NotFoundError: If there is no such study or trial.
        """
        with self._read() as session:
            study, interrupted = self._study_as_it_is(session, study_id)
            found = trials_of(session, study, [number], history=True, interrupted=interrupted)
            if not found:
                raise NotFoundError(f"study {study.name} has no trial {number}")
            return found[0]

    def rungs(self, study_id: str) -> list[Rung]:
        """Return the decisions of early stopping so far, by trial and epoch."""
        query = select(RungTable).where(RungTable.study_id == study_id).order_by(RungTable.number, RungTable.epoch)
        with self._read() as session:
            return [rung_from(row) for row in session.scalars(query)]

    def split_rows(self, study_id: str) -> list[LayerRatio]:
        """Return the splits of all complete trials' candidates, by trial and layer."""
        with self._read() as session:
            study = self._study_row(session, study_id)
            query = (
                select(*_SPLIT_ROW)
                .select_from(CandidateTable)
                .join(TrialTable, (TrialTable.study_id == study_id) & (TrialTable.number == CandidateTable.number))
                .join(SplitTable, SplitTable.architecture_id == CandidateTable.architecture_id)
                .where(CandidateTable.study_id == study_id, SplitTable.input_shape == study.input_shape)
                .where(TrialTable.state == TrialState.COMPLETE.value)
                .order_by(CandidateTable.number, CandidateTable.position, SplitTable.index)
            )
            return [_split_row(row) for row in session.execute(query)]

    def layer_ratios(self, study_id: str, layer: int) -> dict[tuple[int, int], float]:
        """Return the ratio of one layer of all networks that have it, by trial and position.

        Args:
            study_id: Id of the study.
            layer: Zero-based index of the layer in forward order.
        """
        with self._read() as session:
            study = self._study_row(session, study_id)
            query = (
                select(CandidateTable.number, CandidateTable.position, SplitTable.ratio)
                .join(SplitTable, SplitTable.architecture_id == CandidateTable.architecture_id)
                .where(CandidateTable.study_id == study.id, SplitTable.input_shape == study.input_shape)
                .where(SplitTable.index == layer)
            )
            return {(number, position): ratio for number, position, ratio in session.execute(query)}

    def artifact(self, uri: str) -> Artifact:
        """Return the record of a stored file.

        Raises:
            NotFoundError: If no file is recorded under ``uri``.
        """
        with self._read() as session:
            row = session.scalars(select(ArtifactTable).where(ArtifactTable.uri == uri)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no artifact {uri!r}")
            return artifact_from(row)


_SPLIT_ROW = (
    CandidateTable.number,
    TrialTable.kind,
    SplitTable.architecture_id,
    SplitTable.layer,
    SplitTable.index,
    SplitTable.stage,
    SplitTable.block,
    SplitTable.channels,
    SplitTable.active_channels,
    SplitTable.ratio,
    SplitTable.macs,
)


def _split_row(values: Sequence[Any]) -> LayerRatio:
    number, kind, *others = values
    return LayerRatio(number, TrialKind(kind), *others)


def trials_of(
    session: Session, study: StudyTable, numbers: Sequence[int] | None, *, history: bool, interrupted: bool
) -> list[Trial]:
    """Return trials with everything that belongs to them, by number; ``numbers`` None stands for all."""
    query = _of(session, select(TrialTable), TrialTable, study.id, numbers)
    rows = session.scalars(query.order_by(TrialTable.number)).all()
    candidates = _candidates(session, study, numbers)
    epochs: dict[Any, list[EpochRecord]] = defaultdict(list)
    if history:
        query = _of(session, select(HistoryTable.number, *EPOCH_COLUMNS), HistoryTable, study.id, numbers)
        epochs = _grouped(session.execute(query.order_by(HistoryTable.number, HistoryTable.epoch)), 1, epoch_from)
    return [
        trial_from(row, candidates[row.number], epochs[row.number], interrupted=interrupted) for row in rows
    ]


def _of(session: Session, query: Any, table: Any, study_id: str, numbers: Sequence[int] | None) -> Any:
    return query.where(table.study_id == study_id, among(session, table.number, numbers))


def _candidates(session: Session, study: StudyTable, numbers: Sequence[int] | None) -> dict[int, list[Candidate]]:
    query = (
        _of(session, select(CandidateTable, ArchitectureTable, ArtifactTable), CandidateTable, study.id, numbers)
        .join(ArchitectureTable, ArchitectureTable.id == CandidateTable.architecture_id)
        .outerjoin(ArtifactTable, ArtifactTable.id == CandidateTable.weights_id)
        .order_by(CandidateTable.number, CandidateTable.position)
    )
    rows = session.execute(query).all()
    place = (EvaluationTable.number, EvaluationTable.position)
    query = _of(session, select(*place, *EVALUATION_COLUMNS), EvaluationTable, study.id, numbers)
    evaluations = _grouped(session.execute(query.order_by(EvaluationTable.id)), 2, evaluation_from)
    splits = _grouped(_of_architectures(session, study, numbers, SplitTable.index, SPLIT_COLUMNS), 1, split_from)
    measured = _of_architectures(session, study, numbers, MeasurementTable.id, MEASUREMENT_COLUMNS)
    measurements = _grouped(measured, 1, measurement_from)
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
    session: Session,
    study: StudyTable,
    numbers: Sequence[int] | None,
    order: InstrumentedAttribute[int],
    columns: Sequence[Any],
) -> Any:
    table = order.class_
    settled_on = _of(session, select(CandidateTable.architecture_id), CandidateTable, study.id, numbers)
    query = (
        select(table.architecture_id, *columns)
        .where(table.architecture_id.in_(settled_on), table.input_shape == study.input_shape)
        .order_by(table.architecture_id, order)
    )
    return session.execute(query)


def _grouped(rows: Any, width: int, build: Any) -> dict[Any, list[Any]]:
    """Group the results of ``build`` by the first ``width`` values of their rows."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        groups[row[0] if width == 1 else tuple(row[:width])].append(build(row[width:]))
    return groups
