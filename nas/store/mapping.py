"""Conversion of rows to domain types and back; nothing here queries the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from nas.candidate import Artifact, Candidate, Split
from nas.definition.study import StudyDefinition, parse_study
from nas.errors import DefinitionError, InputError, StoreError
from nas.events import Event
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store.tables import (
    ArtifactTable,
    CandidateTable,
    EvaluationTable,
    EventTable,
    HistoryTable,
    JobTable,
    MeasurementTable,
    RungTable,
    SplitTable,
    StudyTable,
    TrialTable,
)
from nas.study import ComparisonPlan, DataFingerprint, Study, StudyState
from nas.trial import EpochRecord, Fidelity, Placement, Rung, Trial, TrialKind, TrialSpec, TrialState
from partialnet.architecture import Architecture

MAX_TEXT = 20_000

# Frequent rows are read as plain values, in the order of the domain type's fields: mapper objects would take three
# times as long, which slows a page with thousands of trials.
EPOCH_COLUMNS = (HistoryTable.epoch, HistoryTable.phase, HistoryTable.metrics, HistoryTable.active_channels)
SPLIT_COLUMNS = (
    SplitTable.layer,
    SplitTable.index,
    SplitTable.channels,
    SplitTable.active_channels,
    SplitTable.macs,
    SplitTable.stage,
    SplitTable.block,
)
EVALUATION_COLUMNS = (
    EvaluationTable.kind,
    EvaluationTable.metric,
    EvaluationTable.value,
    EvaluationTable.std,
    EvaluationTable.data_split,
    EvaluationTable.seed,
    EvaluationTable.epochs,
    EvaluationTable.recipe,
)
MEASUREMENT_COLUMNS = (
    MeasurementTable.metric,
    MeasurementTable.value,
    MeasurementTable.figures,
    MeasurementTable.fingerprint,
)


def shape_key(shape: Iterable[int]) -> str:
    """Return the text ``CxHxW`` of a shape."""
    return "x".join(str(int(size)) for size in shape)


def clean_text(text: str | None) -> str | None:
    """Return ``text`` as both databases accept it: without NUL characters and lone surrogates, and of bounded length.
    """
    if text is None:
        return None
    # Python keeps undecodable bytes of file names as lone surrogates; escapes keep them legible.
    text = text.replace("\x00", "").encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT // 2] + "\n[...]\n" + text[-MAX_TEXT // 2 :]


def study_from(row: StudyTable, *, interrupted: bool = False) -> Study:
    """Build the study of ``row``; with an ``interrupted`` search it does not run.

    Raises:
        StoreError: If this version cannot read the study's definition.
    """
    return Study(
        id=row.id,
        name=row.name,
        state=StudyState.INTERRUPTED if interrupted else StudyState(row.state),
        definition=definition_from(row),
        reference_point=dict(row.reference_point),
        created_at=row.created_at,
        updated_at=row.updated_at,
        reason=row.reason,
        report=tuple(row.report),
        data=None if row.data is None else DataFingerprint.from_dict(row.data),
        extended=row.extended,
        tags=tuple(row.tags),
        note=row.note,
        archived=row.archived_at is not None,
        comparison_plan=None if row.comparison_plan is None else ComparisonPlan.from_dict(row.comparison_plan),
        created_by=row.created_by,
    )


def definition_from(row: StudyTable) -> StudyDefinition:
    """Read the definition of ``row`` back.

    Raises:
        StoreError: If this version cannot read it.
    """
    # Definitions are stored with all defaults, so one without this section is older than the final comparison.
    definition = {"final": {"candidates": 0}, **row.definition}
    # One without these kinds is older than scaled shapes.
    definition["final"] = {"against": ["uniform", "random"], **definition["final"]}
    try:
        return parse_study(definition, f"study {row.name}")
    except DefinitionError as error:
        raise StoreError(f"this version cannot read a stored definition: {error}") from error


def spec_from(row: TrialTable | Row[Any]) -> TrialSpec:
    """Build the specification that runs the trial of ``row``, which may hold its four columns only.

    Raises:
        StoreError: If its parameters are damaged.
    """
    try:
        return TrialSpec.of_stored(row.number, TrialKind(row.kind), row.parameters, row.seed)
    except InputError as error:
        raise StoreError(f"a stored trial cannot be read: {error}") from None


def trial_from(
    row: TrialTable, candidates: Iterable[Candidate], history: Iterable[EpochRecord], *, interrupted: bool = False
) -> Trial:
    """Build the trial of ``row``; in an ``interrupted`` study no trial runs.

    Raises:
        StoreError: If its parameters are damaged.
    """
    spec, state = spec_from(row), TrialState(row.state)
    return Trial(
        number=spec.number,
        kind=spec.kind,
        state=TrialState.INTERRUPTED if interrupted and state is TrialState.RUNNING else state,
        parameters=spec.parameters,
        seed=spec.seed,
        finalist=spec.finalist,
        reason=row.reason,
        candidates=tuple(candidates),
        history=tuple(history),
        started_at=row.started_at,
        ended_at=row.ended_at,
        placement=None if row.placement is None else Placement.from_dict(row.placement),
        fidelity=fidelity_from(row.epochs_trained, row.epochs_planned),
    )


def fidelity_from(epochs: int | None, budget: int | None) -> Fidelity | None:
    """Return the fidelity of a trial from its columns; None for one that was not stopped early."""
    return None if epochs is None or budget is None else Fidelity(epochs, budget)


def rung_from(row: RungTable) -> Rung:
    """Build the rung of ``row``."""
    return Rung(row.number, row.epoch, tuple(row.scores), row.kept)


def epoch_from(values: Sequence[Any]) -> EpochRecord:
    """Build a record from the values of :data:`EPOCH_COLUMNS`."""
    return EpochRecord(*values)


def epoch_values(record: EpochRecord) -> dict[str, Any]:
    """Return the columns of a history row except its key."""
    return {
        "phase": record.phase,
        "metrics": dict(record.metrics),
        "active_channels": dict(record.active_channels),
    }


def candidate_from(
    row: CandidateTable,
    architecture: Architecture,
    artifact: ArtifactTable | None,
    splits: Iterable[Split],
    evaluations: Iterable[Evaluation],
    measurements: Iterable[Measurement],
) -> Candidate:
    """Build the candidate of ``row``."""
    scores = tuple(evaluations)
    return Candidate(
        architecture=architecture,
        splits=tuple(splits),
        evaluations=tuple(entry for entry in scores if entry.recipe is None),
        trainings=tuple(entry for entry in scores if entry.recipe is not None),
        measurements=tuple(measurements),
        weights=None if artifact is None else artifact_from(artifact),
        within_budget=row.within_budget,
        note=row.note,
        target=row.target,
        measured_within_budget=row.measured_within_budget,
    )


def split_from(values: Sequence[Any]) -> Split:
    """Build a split from the values of :data:`SPLIT_COLUMNS`."""
    return Split(*values)


def split_values(split: Split) -> dict[str, Any]:
    """Return the columns of a split row except its architecture and input shape."""
    return {
        "index": split.index,
        "layer": split.layer,
        "stage": split.stage,
        "block": split.block,
        "channels": split.channels,
        "active_channels": split.active_channels,
        "ratio": split.ratio,
        "macs": split.macs,
    }


def evaluation_from(values: Sequence[Any]) -> Evaluation:
    """Build an evaluation from the values of :data:`EVALUATION_COLUMNS`."""
    kind, *others = values
    return Evaluation(EvaluationKind(kind), *others)


def evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    """Return the columns of an evaluation row except its candidate and time."""
    return {
        "kind": evaluation.kind.value,
        "metric": evaluation.metric,
        "value": float(evaluation.value),
        "std": None if evaluation.std is None else float(evaluation.std),
        "data_split": evaluation.data_split,
        "seed": evaluation.seed,
        "epochs": evaluation.epochs,
        "recipe": evaluation.recipe,
    }


def measurement_from(values: Sequence[Any]) -> Measurement:
    """Build a measurement from the values of :data:`MEASUREMENT_COLUMNS`."""
    return Measurement(*values)


def measurement_values(measurement: Measurement) -> dict[str, Any]:
    """Return the columns of a measurement row except its architecture, input shape and time."""
    return {
        "metric": measurement.metric,
        "value": float(measurement.value),
        "figures": plain(measurement.figures),
        "fingerprint": measurement.fingerprint,
    }


def artifact_from(row: ArtifactTable) -> Artifact:
    """Build the artifact of ``row``."""
    return Artifact(row.uri, row.sha256, row.size, row.kind)


def job_from(row: JobTable, now: datetime | None = None) -> Job:
    """Build the job of ``row`` at the time ``now``; without a time its lease counts as alive."""
    running = row.state == JobState.RUNNING.value
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        payload=dict(row.payload),
        state=JobState(row.state),
        desired=DesiredState(row.desired),
        attempt=row.attempt,
        epoch=row.epoch,
        study_id=row.study_id,
        worker=row.worker,
        expires_at=row.expires_at,
        expired=running and now is not None and row.expires_at is not None and row.expires_at < now,
        result=None if row.result is None else dict(row.result),
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def job_values(job: Job, now: datetime) -> dict[str, Any]:
    """Return the columns of a new job's row."""
    return {
        "id": job.id,
        "study_id": job.study_id,
        "kind": job.kind.value,
        "payload": plain(job.payload),
        "state": job.state.value,
        "desired": job.desired.value,
        "attempt": job.attempt,
        "epoch": job.epoch,
        "created_at": now,
    }


def event_from(row: EventTable) -> Event:
    """Build the event of ``row``."""
    return Event(row.study_id, row.number, row.kind, dict(row.payload), row.created_at)


def plain(value: Any) -> Any:
    """Return ``value`` with mappings as dicts and sequences as lists, which JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value
