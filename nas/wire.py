"""What goes over the wire: the JSON that the API answers, the client reads and ``--json`` prints. No torch, no ray.

Every type has a builder from the domain types (``*_from``). Figures are plain numbers in the units of
:data:`nas.trial.METRICS`: fractions, never percent. Unknown keys are ignored when reading, so that an older client
reads a newer service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.study import Study, StudyState
from nas.trial import METRICS, Candidate, Direction, EpochRecord, EvaluationKind, Trial, TrialKind, TrialState

if TYPE_CHECKING:
    from nas.pareto import ParetoPoint

Scalar = bool | int | float | str


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorBody(_Body):
    """The one shape of every error.

    Args:
        error: Name of the kind of error, such as ``NotFoundError``.
        detail: What was wrong, where, the value, what would be right.
        faults: One line for each fault where there can be several (a definition), else empty.
    """

    error: str
    detail: str
    faults: tuple[str, ...] = ()


class StudyBody(_Body):
    """A study in a list.

    Args:
        counts: Trials by state; states without a trial are left out.
        planned: Trials that the definition asks for, with baselines and the final comparison.
        best_top1: Best validation top-1 of all trials, of the best trained weights that were scored; a fraction.
    """

    id: str
    name: str
    state: StudyState
    question: str
    data: str
    model: str
    objectives: tuple[str, ...]
    counts: dict[TrialState, int]
    planned: int
    best_top1: float | None
    created_at: datetime
    updated_at: datetime
    reason: str | None
    report: tuple[str, ...]


class StudyDetail(StudyBody):
    """A study with its definition (which :func:`nas.study.parse_study` reads back)."""

    definition: dict[str, Any]
    reference_point: dict[str, float]


class StudyList(_Body):
    """All studies, newest first."""

    studies: tuple[StudyBody, ...]
    count: int


class EvaluationBody(_Body):
    """One figure observed on data."""

    kind: EvaluationKind
    metric: str
    value: float
    std: float | None
    data_split: str
    seed: int | None
    epochs: int | None


class MeasurementBody(_Body):
    """One figure measured on the network, with its circumstances."""

    metric: str
    label: str
    value: float
    figures: dict[str, Any]
    fingerprint: str


class SplitBody(_Body):
    """The learned split of one layer."""

    layer: str
    index: int
    stage: int | None
    block: int | None
    channels: int
    active_channels: int
    ratio: float
    macs: int


class CandidateBody(_Body):
    """An architecture that a trial settled on, and what was observed of it.

    Args:
        target: Absolute cost that was asked for; None for uniform and random splits.
    """

    architecture_id: str
    architecture: dict[str, Any]
    splits: tuple[SplitBody, ...]
    evaluations: tuple[EvaluationBody, ...]
    measurements: tuple[MeasurementBody, ...]
    has_weights: bool
    within_budget: bool
    note: str | None
    target: float | None = None


class EpochBody(_Body):
    """What a trial reported after an epoch."""

    epoch: int
    phase: str
    metrics: dict[str, float]
    active_channels: dict[str, int]


class TrialBody(_Body):
    """A trial in a list.

    Args:
        scores: Metric to figure of the trial's network, of several the first; evaluated ones are of kind
            ``evaluation``.
        evaluation: Which weights the evaluated scores come from: as asked for, or the best trained ones of the network.
        within_budget: Whether all networks are; None before there is one.
        networks: How many the trial settled on.
        epoch: Newest one that a running trial reported.
    """

    number: int
    kind: TrialKind
    label: str
    state: TrialState
    parameters: dict[str, Scalar]
    seed: int
    reason: str | None
    scores: dict[str, float]
    evaluation: EvaluationKind | None
    within_budget: bool | None
    epoch: int | None
    started_at: datetime | None
    ended_at: datetime | None
    networks: int = 0


class TrialDetail(TrialBody):
    """A trial with its candidates (per-layer splits, scores) and its history."""

    candidates: tuple[CandidateBody, ...]
    history: tuple[EpochBody, ...]


class TrialList(_Body):
    """The trials of a study by number.

    Args:
        evaluation: Asked for; None where each trial says its own.
    """

    trials: tuple[TrialBody, ...]
    count: int
    evaluation: EvaluationKind | None


class AxisBody(_Body):
    """An objective, as an axis shows it."""

    metric: str
    label: str
    direction: Direction
    percent: bool


class ParetoPointBody(_Body):
    """One candidate in the plane (or space) of the objectives; ``position`` is its place within its trial."""

    number: int
    label: str
    kind: TrialKind
    architecture_id: str
    values: dict[str, float]
    on_front: bool
    parameters: dict[str, Scalar]
    position: int = 0


class ParetoBody(_Body):
    """The candidates of a study and which of them are on the front.

    Args:
        hypervolume: Of the front up to the study's reference point; None without points, or where the reference point
            lacks one of the objectives.
    """

    study_id: str
    study: str
    evaluation: EvaluationKind
    objectives: tuple[AxisBody, ...]
    points: tuple[ParetoPointBody, ...]
    hypervolume: float | None


class JobBody(_Body):
    """A job of a worker.

    Args:
        number: The trial that it is about, if any.
        size: Of the file that can be downloaded, in bytes; None as long as there is none.
        sha256: Of that file.
        error: Why it failed.
        stopping: Whether it was asked to stop and has not ended yet.
    """

    id: str
    kind: JobKind
    state: JobState
    stopping: bool
    study_id: str | None
    number: int | None
    size: int | None
    sha256: str | None
    error: str | None


class LaunchBody(_Body):
    """A launched (or resumed) study and the job that runs it."""

    study: StudyBody
    job: JobBody


class HealthBody(_Body):
    """Whether the service can work: ``worker`` is ``running``, ``restarting`` or ``off`` (none of its own)."""

    status: str = Field(description="ok")
    worker: str


def study_from(study: Study, counts: Mapping[TrialState, int], best_top1: float | None) -> StudyBody:
    """Build a study's body."""
    return StudyBody(**_study_fields(study, counts, best_top1))


def study_detail_from(study: Study, counts: Mapping[TrialState, int], best_top1: float | None) -> StudyDetail:
    """Build a study's body with its definition."""
    return StudyDetail(
        **_study_fields(study, counts, best_top1),
        definition=study.definition.to_dict(),
        reference_point=dict(study.reference_point),
    )


def _study_fields(study: Study, counts: Mapping[TrialState, int], best_top1: float | None) -> dict[str, Any]:
    definition = study.definition
    return {
        "id": study.id,
        "name": study.name,
        "state": study.state,
        "question": definition.question,
        "data": definition.data.name,
        "model": definition.model.model,
        "objectives": definition.objectives,
        "counts": {state: count for state, count in counts.items() if count},
        "planned": definition.planned,
        "best_top1": best_top1,
        "created_at": study.created_at,
        "updated_at": study.updated_at,
        "reason": study.reason,
        "report": tuple(study.report),
    }


def trial_from(trial: Trial, evaluation: EvaluationKind | None = None, *, epoch: int | None = None) -> TrialBody:
    """Build a trial's body for a list.

    Args:
        trial: With its candidates.
        evaluation: Which weights the scores come from; the best trained ones that were scored if absent.
        epoch: Newest one of a running trial.
    """
    return TrialBody(**_trial_fields(trial, evaluation, epoch))


def trial_detail_from(trial: Trial, evaluation: EvaluationKind | None = None) -> TrialDetail:
    """Build a trial's body with candidates and history; ``evaluation`` as in :func:`trial_from`."""
    epoch = trial.history[-1].epoch if trial.history and trial.state is TrialState.RUNNING else None
    return TrialDetail(
        **_trial_fields(trial, evaluation, epoch),
        candidates=tuple(candidate_from(candidate) for candidate in trial.candidates),
        history=tuple(epoch_from(record) for record in trial.history),
    )


def _trial_fields(trial: Trial, evaluation: EvaluationKind | None, epoch: int | None) -> dict[str, Any]:
    first = trial.candidates[0] if trial.candidates else None
    kind = evaluation or (None if first is None else first.kind)
    return {
        "number": trial.number,
        "kind": trial.kind,
        "label": trial.label,
        "state": trial.state,
        "parameters": dict(trial.parameters),
        "seed": trial.seed,
        "reason": trial.reason,
        "scores": {} if first is None else scores_from(first, kind),
        "evaluation": kind,
        "within_budget": None if first is None else all(candidate.within_budget for candidate in trial.candidates),
        "epoch": epoch,
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "networks": len(trial.candidates),
    }


def scores_from(candidate: Candidate, evaluation: EvaluationKind | None) -> dict[str, float]:
    """Return metric to figure of ``candidate``; evaluated metrics are of kind ``evaluation``, or there are none."""
    known = [metric for metric, facts in METRICS.items() if evaluation is not None or not facts.evaluated]
    scores = {metric: candidate.score(metric, evaluation) for metric in known}
    return {metric: value for metric, value in scores.items() if value is not None}


def candidate_from(candidate: Candidate) -> CandidateBody:
    """Build a candidate's body."""
    return CandidateBody(
        architecture_id=candidate.architecture.id,
        architecture=candidate.architecture.to_dict(),
        splits=tuple(
            SplitBody(
                layer=split.layer,
                index=split.index,
                stage=split.stage,
                block=split.block,
                channels=split.channels,
                active_channels=split.active_channels,
                ratio=split.ratio,
                macs=split.macs,
            )
            for split in candidate.splits
        ),
        evaluations=tuple(
            EvaluationBody(
                kind=item.kind,
                metric=item.metric,
                value=item.value,
                std=item.std,
                data_split=item.data_split,
                seed=item.seed,
                epochs=item.epochs,
            )
            for item in candidate.evaluations
        ),
        measurements=tuple(
            MeasurementBody(
                metric=item.metric,
                label=METRICS[item.metric].label,
                value=item.value,
                figures=dict(item.figures),
                fingerprint=item.fingerprint,
            )
            for item in candidate.measurements
        ),
        has_weights=candidate.weights is not None,
        within_budget=candidate.within_budget,
        note=candidate.note,
        target=candidate.target,
    )


def epoch_from(record: EpochRecord) -> EpochBody:
    """Build an epoch's body."""
    return EpochBody(
        epoch=record.epoch,
        phase=record.phase,
        metrics=dict(record.metrics),
        active_channels=dict(record.active_channels),
    )


def axis_from(metric: str) -> AxisBody:
    """Build the body of the objective ``metric``, a key of :data:`nas.trial.METRICS`."""
    known = METRICS[metric]
    return AxisBody(metric=metric, label=known.label, direction=known.direction, percent=known.percent)


def pareto_from(
    study: Study,
    trials: Iterable[Trial],
    points: Sequence[ParetoPoint],
    objectives: Sequence[str],
    *,
    evaluation: EvaluationKind,
    hypervolume: float | None,
) -> ParetoBody:
    """Build the body of a front from the study's ``trials`` and their ``points``."""
    parameters = {trial.number: trial.parameters for trial in trials}
    return ParetoBody(
        study_id=study.id,
        study=study.name,
        evaluation=evaluation,
        objectives=tuple(axis_from(metric) for metric in objectives),
        points=tuple(
            ParetoPointBody(
                number=point.number,
                label=point.label,
                kind=point.kind,
                architecture_id=point.architecture_id,
                values=dict(point.values),
                on_front=point.on_front,
                position=point.position,
                parameters=dict(parameters.get(point.number, {})),
            )
            for point in points
        ),
        hypervolume=hypervolume,
    )


def job_from(job: Job) -> JobBody:
    """Build a job's body. Where its artifact lies is the service's business and stays out."""
    number, result = job.payload.get("number"), job.result or {}
    return JobBody(
        id=job.id,
        kind=job.kind,
        state=job.state,
        stopping=job.desired is DesiredState.STOPPED and not job.state.ended,
        study_id=job.study_id,
        number=number if isinstance(number, int) else None,
        size=result.get("size"),
        sha256=result.get("sha256"),
        error=job.error,
    )
