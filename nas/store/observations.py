"""Writes what was observed of networks: scores on data, measurements, stored files."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from nas.candidate import Artifact, Candidate
from nas.errors import InputError, NotFoundError
from nas.findings.scores import told_kind
from nas.metrics import Evaluation, Measurement
from nas.store.base import Repository, insert_new
from nas.store.mapping import (
    clean_text,
    definition_from,
    evaluation_values,
    measurement_values,
    shape_key,
    split_values,
)
from nas.store.scores import (
    evaluation_scores,
    forget_growths,
    measured_rows,
    measured_scores,
    moves_objective,
    regrow,
    upsert,
    write_scores,
)
from nas.store.tables import (
    ArchitectureTable,
    ArtifactTable,
    BlockTable,
    CandidateTable,
    EvaluationTable,
    MeasurementTable,
    SplitTable,
    StudyTable,
    TrialTable,
)
from nas.store.tallies import note_best
from partialnet.blocks import block_rows


class Observations(Repository):
    """Adds scores, measurements and files to the networks of trials."""

    def add_measurements(
        self,
        architecture_id: str,
        measurements: Iterable[Measurement],
        *,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        """Add measurements of an architecture; all studies with this architecture share them.

        Args:
            architecture_id: Hash of the architecture.
            measurements: Measurements to add.
            input_shape: Channels, height, width of the input. It may be absent if all studies with the architecture use
                the same shape.

        Raises:
            NotFoundError: If no trial settled on the architecture.
            InputError: If the input shape is needed.
        """
        with self._write() as session:
            query = (
                select(StudyTable)
                .where(StudyTable.id.in_(_studies_of(architecture_id)))
                .order_by(StudyTable.id)  # one order for all, so that two writers cannot wait for each other
                .with_for_update()
            )
            studies = session.scalars(query).all()
            shape = _one_shape(architecture_id, studies, input_shape)
            added = _insert_measurements(session, architecture_id, shape, measurements, self._database.now(session))
            rows = measured_rows(session, architecture_id, shape, added)
            upsert(session, rows)
            for study in studies:
                if added and study.input_shape == shape:
                    if moves_objective(study, rows):
                        regrow(session, study)
                    payload = {"architecture_id": architecture_id, "values": {m.metric: m.value for m in added}}
                    self._emit(session, study, "measurement", payload)

    def judge_latencies(self, study_id: str, kept: Mapping[tuple[int, int], bool | None]) -> None:
        """Record whether measured latencies keep the budget, by trial number and position of the network.

        Raises:
            NotFoundError: If there is no such study.
        """
        with self._write() as session:
            study = self._locked_study(session, study_id)
            for (number, position), value in kept.items():
                place = {"study_id": study_id, "number": number, "position": position}
                session.execute(update(CandidateTable).filter_by(**place).values(measured_within_budget=value))
            if kept:
                self._emit(session, study, "judgement", {"networks": len(kept)})

    def add_evaluations(
        self, study_id: str, number: int, architecture_id: str, evaluations: Iterable[Evaluation]
    ) -> None:
        """Add scores on data of a trial's candidate, for example after a retraining.

        Raises:
            NotFoundError: If the trial has no such candidate.
        """
        with self._write() as session:
            study, trial = self._locked_trial(session, study_id, number)
            query = select(CandidateTable).where(
                CandidateTable.study_id == study_id,
                CandidateTable.number == number,
                CandidateTable.architecture_id == architecture_id,
            )
            row = session.scalars(query.order_by(CandidateTable.position)).first()
            if row is None:
                raise NotFoundError(
                    f"trial {number} of study {study.name} has no candidate with architecture {architecture_id!r}"
                )
            evaluations = list(evaluations)
            now = self._database.now(session)
            insert_evaluations(session, (study_id, number, row.position), evaluations, now)
            write_scores(session, (study_id, number, row.position), trial.kind, evaluation_scores(evaluations))
            if any(entry.kind is told_kind(definition_from(study)) for entry in evaluations):
                regrow(session, study)
            note_best(session, study)
            values = {f"{entry.kind.value}.{entry.metric}": entry.value for entry in evaluations}
            payload = {"number": number, "architecture_id": architecture_id, "values": values}
            self._emit(session, study, "evaluation", payload)

    def add_artifact(self, artifact: Artifact) -> None:
        """Record a stored file; it replaces a record with the same URI."""
        with self._write() as session:
            _artifact_id(session, artifact, self._database.now(session))


def write_candidate(
    session: Session, study: StudyTable, trial: TrialTable, position: int, candidate: Candidate, now: datetime
) -> bool:
    """Write a candidate; return whether its measurements may move earlier networks of the study."""
    number, architecture = trial.number, candidate.architecture
    known = {"id": architecture.id, "model": architecture.model, "definition": architecture.to_dict()}
    session.execute(insert_new(session, ArchitectureTable), [{**known, "created_at": now}])
    place = {"architecture_id": architecture.id, "input_shape": study.input_shape}
    if candidate.splits:
        rows = [{**place, **split_values(split)} for split in candidate.splits]
        session.execute(insert_new(session, SplitTable), rows)
    if blocks := block_rows(architecture):
        rows = [{"architecture_id": architecture.id, **asdict(block)} for block in blocks]
        session.execute(insert_new(session, BlockTable), rows)
    added = _insert_measurements(session, architecture.id, study.input_shape, candidate.measurements, now)
    others = measured_rows(session, architecture.id, study.input_shape, added)
    row = CandidateTable(study_id=study.id, number=number, position=position, architecture_id=architecture.id)
    row.within_budget, row.note = candidate.within_budget, clean_text(candidate.note)
    row.target = None if candidate.target is None else float(candidate.target)
    row.measured_within_budget = candidate.measured_within_budget
    row.weights_id = None if candidate.weights is None else _artifact_id(session, candidate.weights, now)
    session.add(row)
    session.flush()
    entries = (*candidate.evaluations, *candidate.trainings)
    insert_evaluations(session, (study.id, number, position), entries, now)
    measured = measured_scores(session, architecture.id, study.input_shape)
    scores = {**evaluation_scores(candidate.evaluations), **measured}
    write_scores(session, (study.id, number, position), trial.kind, scores, others)
    forget_growths(session, study, others)
    return moves_objective(study, others)


def insert_evaluations(
    session: Session, candidate: tuple[str, int, int], evaluations: Iterable[Evaluation], now: datetime
) -> None:
    """Insert scores of a candidate, which is named by study, trial and position."""
    study_id, number, position = candidate
    place = {"study_id": study_id, "number": number, "position": position, "created_at": now}
    rows = [{**place, **evaluation_values(evaluation)} for evaluation in evaluations]
    if rows:
        session.execute(insert(EvaluationTable), rows)


def _insert_measurements(
    session: Session, architecture_id: str, shape: str, measurements: Iterable[Measurement], now: datetime
) -> list[Measurement]:
    """Insert new measurements, without exact repetitions: trials that settle on one network count it again."""
    query = select(MeasurementTable).where(
        MeasurementTable.architecture_id == architecture_id, MeasurementTable.input_shape == shape
    )
    known = [(row.metric, row.value, row.figures, row.fingerprint) for row in session.scalars(query)]
    added: list[Measurement] = []
    rows: list[Mapping[str, Any]] = []
    for measurement in measurements:
        values = measurement_values(measurement)
        if tuple(values.values()) not in known:
            added.append(measurement)
            rows.append({"architecture_id": architecture_id, "input_shape": shape, "created_at": now, **values})
    if rows:
        session.execute(insert(MeasurementTable), rows)
    return added


def _artifact_id(session: Session, artifact: Artifact, now: datetime) -> str:
    row = session.scalars(select(ArtifactTable).where(ArtifactTable.uri == artifact.uri)).one_or_none()
    if row is None:
        row = ArtifactTable(id=str(uuid.uuid4()), uri=artifact.uri)
        session.add(row)
    row.sha256, row.size, row.kind, row.created_at = artifact.sha256, artifact.size, artifact.kind, now
    session.flush()
    return row.id


def _studies_of(architecture_id: str) -> Any:
    return select(CandidateTable.study_id).where(CandidateTable.architecture_id == architecture_id)


def _one_shape(architecture_id: str, studies: Sequence[StudyTable], given: Sequence[int] | None) -> str:
    shapes = sorted({study.input_shape for study in studies})
    if not shapes:
        raise NotFoundError(f"no trial settled on architecture {architecture_id!r}")
    if given is not None:
        return shape_key(given)
    if len(shapes) > 1:
        raise InputError(f"architecture {architecture_id} runs on {', '.join(shapes)}: say which input_shape was used")
    return shapes[0]
