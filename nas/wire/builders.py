"""Builders of the bodies in :mod:`nas.wire.bodies` from domain types, one for each. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.candidate import Candidate
from nas.findings.scores import candidate_values
from nas.jobs import DesiredState, Job
from nas.metrics import METRICS, Evaluation, EvaluationKind
from nas.study import Study
from nas.trial import EpochRecord, Fidelity, Trial, TrialState
from nas.wire.bodies import (
    AxisBody,
    BlockBody,
    CandidateBody,
    DataBody,
    EpochBody,
    EvaluationBody,
    FidelityBody,
    GrowthBody,
    Int8Body,
    JobBody,
    MeasurementBody,
    ParetoBody,
    ParetoPointBody,
    SplitBody,
    StudyBody,
    StudyDetail,
    TrialBody,
    TrialDetail,
)
from partialnet.architecture import Architecture
from partialnet.blocks import AS_PUBLISHED, BlockChoices, block_rows

if TYPE_CHECKING:
    from nas.findings.growth import Growth
    from nas.store import Front, TrialRow

_UNDER_WAY = (TrialState.RUNNING, TrialState.INTERRUPTED)


def study_from(study: Study, counts: Mapping[TrialState, int], best_top1: float | None) -> StudyBody:
    """Build the body of a study."""
    return StudyBody(**_study_fields(study, counts, best_top1))


def study_detail_from(
    study: Study, counts: Mapping[TrialState, int], best_top1: float | None, growths: Iterable[Growth] = ()
) -> StudyDetail:
    """Build the body of a study with its definition, and with the ``growths`` of its hypervolume."""
    return StudyDetail(
        **_study_fields(study, counts, best_top1),
        definition=study.definition.to_dict(),
        reference_point=dict(study.reference_point),
        fingerprint=None if study.data is None else DataBody(**study.data.to_dict()),
        hypervolumes=tuple(GrowthBody(**vars(growth)) for growth in growths),
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
        "planned": study.planned,
        "best_top1": best_top1,
        "created_at": study.created_at,
        "updated_at": study.updated_at,
        "reason": study.reason,
        "report": tuple(study.report),
        "tags": study.tags,
        "note": study.note,
        "archived": study.archived,
        "created_by": study.created_by,
        "content": None if study.data is None else study.data.content.get("train"),
    }


def trial_from(row: TrialRow) -> TrialBody:
    """Build the body of a trial for a list, with the scores of its first listed network."""
    first = row.networks[0] if row.networks else None
    return TrialBody(
        number=row.spec.number,
        kind=row.spec.kind,
        label=row.spec.label,
        state=row.state,
        parameters=row.spec.stored_parameters,
        seed=row.spec.seed,
        reason=row.reason,
        scores={} if first is None else dict(first.values),
        evaluation=None if first is None else first.evaluation,
        within_budget=row.within_budget,
        epoch=row.epoch,
        started_at=row.started_at,
        ended_at=row.ended_at,
        networks=row.count,
        position=None if first is None or row.count == 1 else first.position,
        fidelity=_fidelity_from(row.fidelity),
    )


def _fidelity_from(fidelity: Fidelity | None) -> FidelityBody | None:
    return None if fidelity is None else FidelityBody(epochs=fidelity.epochs, budget=fidelity.budget)


def trial_detail_from(
    trial: Trial, fingerprints: Mapping[str, str], evaluation: EvaluationKind | None = None
) -> TrialDetail:
    """Build the body of a trial with candidates and history.

    Args:
        trial: Trial with its candidates.
        fingerprints: Circumstances by measured metric under which its study compares networks.
        evaluation: Evaluation kind of the scores; None for that of the best trained weights with a score.
    """
    epoch = trial.history[-1].epoch if trial.history and trial.state in _UNDER_WAY else None
    return TrialDetail(
        **_trial_fields(trial, fingerprints, evaluation, epoch),
        candidates=tuple(candidate_from(candidate) for candidate in trial.candidates),
        history=tuple(epoch_from(record) for record in trial.history),
        placement=None if trial.placement is None else trial.placement.to_dict(),
    )


def _trial_fields(
    trial: Trial, fingerprints: Mapping[str, str], evaluation: EvaluationKind | None, epoch: int | None
) -> dict[str, Any]:
    first = trial.candidates[0] if trial.candidates else None
    kind = evaluation or (None if first is None else first.kind)
    return {
        "number": trial.number,
        "kind": trial.kind,
        "label": trial.label,
        "state": trial.state,
        "parameters": trial.spec.stored_parameters,
        "seed": trial.seed,
        "reason": trial.reason,
        "scores": {} if first is None else candidate_values(first, kind, fingerprints),
        "evaluation": kind,
        "within_budget": None if first is None else all(candidate.within_budget for candidate in trial.candidates),
        "epoch": epoch,
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "networks": len(trial.candidates),
        "fidelity": _fidelity_from(trial.fidelity),
    }


def evaluation_from(evaluation: Evaluation) -> EvaluationBody:
    """Build the body of a score."""
    return EvaluationBody(**vars(evaluation))


def _blocks_from(architecture: Architecture) -> tuple[BlockBody, ...]:
    if BlockChoices.of(architecture) == AS_PUBLISHED:
        return ()
    return tuple(BlockBody(**vars(row)) for row in block_rows(architecture))


def candidate_from(candidate: Candidate) -> CandidateBody:
    """Build the body of a candidate."""
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
        blocks=_blocks_from(candidate.architecture),
        evaluations=tuple(map(evaluation_from, candidate.evaluations)),
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
        measured_within_budget=candidate.measured_within_budget,
        trainings=tuple(map(evaluation_from, candidate.trainings)),
    )


def epoch_from(record: EpochRecord) -> EpochBody:
    """Build the body of an epoch."""
    return EpochBody(
        epoch=record.epoch,
        phase=record.phase,
        metrics=dict(record.metrics),
        active_channels=dict(record.active_channels),
    )


def axis_from(metric: str) -> AxisBody:
    """Build the body of the objective ``metric``, a key of :data:`nas.metrics.METRICS`."""
    known = METRICS[metric]
    return AxisBody(metric=metric, label=known.label, direction=known.direction, percent=known.percent)


def pareto_from(study: Study, front: Front, objectives: Sequence[str], *, thinned: bool = False) -> ParetoBody:
    """Build the body of a front of ``study``; ``thinned`` says that only a selection of dominated points is in it."""
    return ParetoBody(
        study_id=study.id,
        study=study.name,
        evaluation=front.evaluation,
        scored=front.scored,
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
                broken=point.broken,
                measured_within_budget=point.measured_within_budget,
                parameters=dict(front.parameters.get(point.number, {})),
            )
            for point in front.points
        ),
        hypervolume=front.hypervolume,
        thinned=thinned,
    )


def job_from(job: Job) -> JobBody:
    """Build the body of a job. The location of its artifact is internal to the service and is left out."""
    number, result = job.payload.get("number"), job.result or {}
    return JobBody(
        id=job.id,
        kind=job.kind,
        state=job.state,
        desired=job.desired,
        stopping=job.desired is not DesiredState.RUNNING and not job.state.ended,
        study_id=job.study_id,
        number=number if isinstance(number, int) else None,
        size=result.get("size"),
        sha256=result.get("sha256"),
        int8=None if "int8" not in result else Int8Body.model_validate(result["int8"]),
        error=job.error,
        expired=job.expired,
        attempt=job.attempt,
        worker=job.worker,
        created_at=job.created_at,
        started_at=job.started_at,
        expires_at=job.expires_at,
    )
