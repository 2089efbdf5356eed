"""Writes trials: adds, starts, records and ends them, and puts them back after an interruption."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nas.candidate import Artifact, Candidate
from nas.definition.space import Parameters
from nas.errors import ConflictError, InputError, NotFoundError
from nas.finalist import Finalist
from nas.findings.scores import told_kind
from nas.metrics import Evaluation, Measurement
from nas.store.base import Repository
from nas.store.mapping import (
    clean_text,
    definition_from,
    epoch_values,
    evaluation_values,
    measurement_values,
    plain,
    shape_key,
    spec_from,
    split_values,
)
from nas.store.scores import (
    evaluation_scores,
    forget_growths,
    grow,
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
    Base,
    CandidateTable,
    EvaluationTable,
    HistoryTable,
    MeasurementTable,
    RungTable,
    SplitTable,
    StudyTable,
    TrialTable,
)
from nas.trial import EpochRecord, Fidelity, Placement, Rung, TrialKind, TrialSpec, TrialState, seed_for


class TrialWrites(Repository):
    """Changes trials, their scores and their measurements."""

    def add_trials(self, study_id: str, trials: Iterable[tuple[TrialKind, Parameters]]) -> list[TrialSpec]:
        """Add queued trials with the next numbers; each seed derives from the study's (:func:`nas.trial.seed_for`).

        Raises:
            InputError: If one is of kind ``retrain``; see :meth:`add_finalists`.
        """
        new = [(kind, parameters, None) for kind, parameters in trials]
        if any(kind is TrialKind.RETRAIN for kind, _, _ in new):
            raise InputError("a trial of kind 'retrain' needs the network that it trains; add it as a finalist")
        return self._add_trials(study_id, new)

    def add_finalists(
        self, study_id: str, finalists: Iterable[Finalist], parameters: Parameters | None = None
    ) -> list[TrialSpec]:
        """Add queued trials of the final comparison, one for each of ``finalists``, trained with ``parameters``."""
        trials = [(TrialKind.RETRAIN, parameters or {}, finalist) for finalist in finalists]
        return self._add_trials(study_id, trials)

    def _add_trials(
        self, study_id: str, trials: Sequence[tuple[TrialKind, Parameters, Finalist | None]]
    ) -> list[TrialSpec]:
        with self._write() as session:
            study = self._locked_study(session, study_id)
            seed = definition_from(study).sweep.seed
            last = session.scalar(select(func.max(TrialTable.number)).where(TrialTable.study_id == study_id))
            first = 0 if last is None else last + 1
            # The search trials of an extended study have the seeds that they would have had before its comparison.
            apart = TrialTable.kind == TrialKind.RETRAIN.value
            compared = select(func.count()).where(TrialTable.study_id == study_id, apart)
            before = session.scalar(compared) or 0
            specs = [
                TrialSpec(number, kind, plain(parameters), seed_for(seed, number - before, finalist), finalist)
                for number, (kind, parameters, finalist) in enumerate(trials, start=first)
            ]
            now = self._database.now(session)
            for spec in specs:
                row = TrialTable(study_id=study_id, number=spec.number, kind=spec.kind.value, seed=spec.seed)
                row.state, row.parameters, row.created_at = TrialState.QUEUED.value, spec.stored_parameters, now
                session.add(row)
                self._emit_trial(session, study, row)
            return specs

    def start_trial(self, study_id: str, number: int) -> None:
        """Move a queued trial to ``running``.

        Raises:
            ConflictError: If it is not queued.
        """
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            if row.state != TrialState.QUEUED.value:
                raise ConflictError(f"trial {number} of study {study.name} is {row.state}, so it cannot be started")
            row.state, row.started_at = TrialState.RUNNING.value, self._database.now(session)
            self._emit_trial(session, study, row)

    def place_trial(self, study_id: str, number: int, placement: Placement) -> None:
        """Record the place of a trial's run; a repeated run replaces it.

        Raises:
            NotFoundError: If there is no such trial.
        """
        with self._write() as session:
            _, row = self._locked_trial(session, study_id, number)
            row.placement = placement.to_dict()

    def record_epoch(self, study_id: str, number: int, record: EpochRecord, rung: Rung | None = None) -> None:
        """Record the report of a running trial; an equal record changes nothing.

        Another record replaces it and deletes the later epochs: the trial started anew, and will report them again.

        Args:
            study_id: Id of the study.
            number: Number of the trial.
            record: Report of the epoch.
            rung: Decision of early stopping at this epoch, written in the same transaction; the first one stays.

        Raises:
            ConflictError: If the trial is not running.
        """
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            if row.state != TrialState.RUNNING.value:
                raise ConflictError(
                    f"trial {number} of study {study.name} is {row.state}, so it cannot report epoch {record.epoch}"
                )
            if rung is not None and session.get(RungTable, (study_id, number, rung.epoch)) is None:
                place = {"study_id": study_id, "number": number, "epoch": rung.epoch}
                session.add(RungTable(**place, scores=list(rung.scores), kept=rung.kept))
            values = epoch_values(record)
            known = session.get(HistoryTable, (study_id, number, record.epoch))
            if known is None:
                session.add(HistoryTable(study_id=study_id, number=number, epoch=record.epoch, **values))
                self._progressed(session)
            elif all(getattr(known, key) == value for key, value in values.items()):
                return
            else:
                for key, value in values.items():
                    setattr(known, key, value)
                behind = (HistoryTable.study_id == study_id) & (HistoryTable.number == number)
                session.execute(delete(HistoryTable).where(behind, HistoryTable.epoch > record.epoch))
            event = {"number": number, "epoch": record.epoch, "phase": record.phase, "metrics": values["metrics"]}
            self._emit(session, study, "epoch", event)

    def end_trial(
        self,
        study_id: str,
        number: int,
        state: TrialState,
        *,
        candidates: Sequence[Candidate] = (),
        reason: str | None = None,
        fidelity: Fidelity | None = None,
    ) -> None:
        """End a trial; no other method does. The same transaction writes all its scores and measurements.

        Args:
            study_id: Id of the study.
            number: Number of the trial.
            state: State at the end: ``complete``, ``pruned``, ``failed`` or ``cancelled``.
            candidates: Networks that it settled on; a complete trial has at least one, a pruned one none.
            reason: Reason why it failed, was cancelled or stopped early.
            fidelity: Number of epochs that a pruned trial trained, of how many.

        Raises:
            InputError: If ``state`` is not the end of a trial, a complete trial has no candidate, or a pruned one has
                a candidate or lacks its fidelity.
            ConflictError: If the trial has already ended, or this end needs a started trial.
        """
        if not state.ended:
            raise InputError(f"a trial ends as complete, pruned, failed or cancelled, not as {state.value!r}")
        if state is TrialState.COMPLETE and not candidates:
            raise InputError(f"trial {number} cannot be complete without a candidate; end it as failed, with a reason")
        if state is TrialState.PRUNED and (candidates or fidelity is None):
            # Scores of fewer epochs beside those of whole trainings would put it on a front where it does not belong.
            raise InputError(f"trial {number} was stopped early: end it with its fidelity, and without a candidate")
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            unstarted = row.state == TrialState.QUEUED.value
            observed = state in (TrialState.COMPLETE, TrialState.PRUNED)
            if TrialState(row.state).ended or (unstarted and observed):
                raise ConflictError(
                    f"trial {number} of study {study.name} is {row.state}, so it cannot end as {state.value}"
                )
            now = self._database.now(session)
            row.state, row.reason, row.ended_at = state.value, clean_text(reason), now
            if fidelity is not None:
                row.epochs_trained, row.epochs_planned = fidelity.epochs, fidelity.budget
            moved = [
                write_candidate(session, study, row, position, candidate, now)
                for position, candidate in enumerate(candidates)
            ]
            if any(moved):
                regrow(session, study)
            elif candidates:
                grow(session, study, number, now)
            self._emit_trial(session, study, row)
            self._progressed(session)

    def requeue_trial(self, study_id: str, number: int) -> None:
        """Put a running trial back to ``queued`` with its epochs: it resumes from its last checkpoint.

        Raises:
            ConflictError: If it has ended.
        """
        with self._write() as session:
            study, row = self._locked_trial(session, study_id, number)
            if TrialState(row.state).ended:
                raise ConflictError(f"trial {number} of study {study.name} is {row.state}, so it cannot be put back")
            self._put_back(session, study, row)

    def revive_trials(self, study_id: str, numbers: Iterable[int]) -> None:
        """Put failed trials back to ``queued``, because a fault that was not theirs ended them.

        Raises:
            ConflictError: If one of them has not failed.
        """
        with self._write() as session:
            for number in numbers:
                study, row = self._locked_trial(session, study_id, number)
                if row.state != TrialState.FAILED.value:
                    raise ConflictError(f"trial {number} of study {study.name} is {row.state}, so it cannot run again")
                self._revive(session, study, row)

    def _revive(self, session: Session, study: StudyTable, row: TrialTable) -> None:
        row.state, row.reason, row.started_at, row.ended_at = TrialState.QUEUED.value, None, None, None
        self._emit_trial(session, study, row)

    def requeue_unfinished(self, study_id: str) -> list[TrialSpec]:
        """Put running trials back to ``queued`` with their epochs: they resume from their last checkpoints.

        Returns:
            Trials that now wait, by number: those put back and those that never started.
        """
        with self._write() as session:
            study = self._locked_study(session, study_id)
            self._requeue(session, study)
            query = select(TrialTable).where(
                TrialTable.study_id == study_id, TrialTable.state == TrialState.QUEUED.value
            )
            return [spec_from(row) for row in session.scalars(query.order_by(TrialTable.number))]

    def _requeue(self, session: Session, study: StudyTable) -> None:
        query = select(TrialTable).where(TrialTable.study_id == study.id, TrialTable.state == TrialState.RUNNING.value)
        for row in session.scalars(query.order_by(TrialTable.number)).all():
            self._put_back(session, study, row)

    def _cancel_unfinished(self, session: Session, study: StudyTable, reason: str) -> None:
        unfinished = TrialTable.state.in_([TrialState.QUEUED.value, TrialState.RUNNING.value])
        query = select(TrialTable).where(TrialTable.study_id == study.id, unfinished)
        now = self._database.now(session)
        for row in session.scalars(query.order_by(TrialTable.number)).all():
            row.state, row.reason, row.ended_at = TrialState.CANCELLED.value, clean_text(reason), now
            self._emit_trial(session, study, row)

    def _put_back(self, session: Session, study: StudyTable, row: TrialTable) -> None:
        if row.state == TrialState.RUNNING.value:
            row.state, row.started_at = TrialState.QUEUED.value, None
            self._emit_trial(session, study, row)

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
            _insert_evaluations(session, (study_id, number, row.position), evaluations, now)
            write_scores(session, (study_id, number, row.position), trial.kind, evaluation_scores(evaluations))
            if any(entry.kind is told_kind(definition_from(study)) for entry in evaluations):
                regrow(session, study)
            values = {f"{entry.kind.value}.{entry.metric}": entry.value for entry in evaluations}
            payload = {"number": number, "architecture_id": architecture_id, "values": values}
            self._emit(session, study, "evaluation", payload)

    def add_artifact(self, artifact: Artifact) -> None:
        """Record a stored file; it replaces a record with the same URI."""
        with self._write() as session:
            _artifact_id(session, artifact, self._database.now(session))

    def _locked_trial(self, session: Session, study_id: str, number: int) -> tuple[StudyTable, TrialTable]:
        study = self._locked_study(session, study_id)
        row = session.get(TrialTable, (study_id, number))
        if row is None:
            raise NotFoundError(f"study {study.name} has no trial {number}")
        return study, row

    def _emit_trial(self, session: Session, study: StudyTable, row: TrialTable) -> None:
        payload = {"number": row.number, "kind": row.kind, "state": row.state, "reason": row.reason}
        self._emit(session, study, "trial", payload)


def write_candidate(
    session: Session, study: StudyTable, trial: TrialTable, position: int, candidate: Candidate, now: datetime
) -> bool:
    """Write a candidate; return whether its measurements may move earlier networks of the study."""
    number, architecture = trial.number, candidate.architecture
    known = {"id": architecture.id, "model": architecture.model, "definition": architecture.to_dict()}
    session.execute(_insert_new(session, ArchitectureTable), [{**known, "created_at": now}])
    place = {"architecture_id": architecture.id, "input_shape": study.input_shape}
    if candidate.splits:
        rows = [{**place, **split_values(split)} for split in candidate.splits]
        session.execute(_insert_new(session, SplitTable), rows)
    added = _insert_measurements(session, architecture.id, study.input_shape, candidate.measurements, now)
    others = measured_rows(session, architecture.id, study.input_shape, added)
    row = CandidateTable(study_id=study.id, number=number, position=position, architecture_id=architecture.id)
    row.within_budget, row.note = candidate.within_budget, clean_text(candidate.note)
    row.target = None if candidate.target is None else float(candidate.target)
    row.weights_id = None if candidate.weights is None else _artifact_id(session, candidate.weights, now)
    session.add(row)
    session.flush()
    _insert_evaluations(session, (study.id, number, position), candidate.evaluations, now)
    measured = measured_scores(session, architecture.id, study.input_shape)
    scores = {**evaluation_scores(candidate.evaluations), **measured}
    write_scores(session, (study.id, number, position), trial.kind, scores, others)
    forget_growths(session, study, others)
    return moves_objective(study, others)


def _insert_new(session: Session, table: type[Base]) -> Insert:
    """Return an insert that skips rows with an existing key: another trial may have settled on the same network."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _insert_evaluations(
    session: Session, candidate: tuple[str, int, int], evaluations: Iterable[Evaluation], now: datetime
) -> None:
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
