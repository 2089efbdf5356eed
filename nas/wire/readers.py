"""Domain types from the bodies of :mod:`nas.wire.bodies`, as a client needs them to print what a service answered.

The counterpart of :mod:`nas.wire.builders`. Loads neither torch nor ray.
"""

from __future__ import annotations

from nas.candidate import Artifact, Candidate, Split
from nas.definition.study import parse_study
from nas.findings.growth import Growth
from nas.findings.pareto import ParetoPoint
from nas.metrics import Evaluation, Measurement
from nas.store.records import Front, StudyRow
from nas.study import DataFingerprint, Study
from nas.trial import EpochRecord, Fidelity, Placement, Trial, TrialSpec, TrialState
from nas.wire.bodies import CandidateBody, ParetoBody, SplitBody, StudyDetail, TrialDetail
from partialnet.architecture import Architecture

_ELSEWHERE = Artifact("weights.safetensors", "", 0, "weights")
"""Weights that the service has; an export fetches them."""


def study_row_from(body: StudyDetail) -> StudyRow:
    """Read a study with its counts."""
    return StudyRow(study_of(body), {state: body.counts.get(state, 0) for state in TrialState}, body.best_top1)


def study_of(body: StudyDetail) -> Study:
    """Read a study."""
    definition = parse_study(body.definition, f"study {body.name}")
    data = body.fingerprint
    return Study(
        id=body.id,
        name=body.name,
        state=body.state,
        definition=definition,
        reference_point=body.reference_point,
        created_at=body.created_at,
        updated_at=body.updated_at,
        reason=body.reason,
        report=body.report,
        data=None if data is None else DataFingerprint(data.classes, data.counts, data.content),
        extended=body.planned - definition.planned,
        tags=body.tags,
        note=body.note,
        archived=body.archived,
        created_by=body.created_by,
    )


def growths_of(body: StudyDetail) -> list[Growth]:
    """Read how the hypervolume of a study grew."""
    return [Growth(growth.number, growth.trials, growth.value, growth.at) for growth in body.hypervolumes]


def trial_of(body: TrialDetail) -> Trial:
    """Read a trial with its networks and its history."""
    spec = TrialSpec.of_stored(body.number, body.kind, body.parameters, body.seed)
    return Trial(
        number=body.number,
        kind=body.kind,
        state=body.state,
        parameters=spec.parameters,
        seed=body.seed,
        reason=body.reason,
        candidates=tuple(_candidate_of(candidate) for candidate in body.candidates),
        history=tuple(EpochRecord(**epoch.model_dump()) for epoch in body.history),
        started_at=body.started_at,
        ended_at=body.ended_at,
        placement=None if body.placement is None else Placement.from_dict(body.placement),
        finalist=spec.finalist,
        fidelity=None if body.fidelity is None else Fidelity(body.fidelity.epochs, body.fidelity.budget),
    )


def front_of(body: ParetoBody) -> Front:
    """Read a front."""
    numbers = [point.number for point in body.points]
    broken = [limit for point in body.points for limit in point.broken]
    return Front(
        evaluation=body.evaluation,
        scored=body.scored,
        points=tuple(ParetoPoint(**point.model_dump(exclude={"parameters"})) for point in body.points),
        parameters={point.number: point.parameters for point in body.points},
        several=frozenset(n for n, p in zip(numbers, body.points, strict=True) if p.position or numbers.count(n) > 1),
        hypervolume=body.hypervolume,
        broken={limit: broken.count(limit) for limit in sorted(set(broken))},
    )


def _candidate_of(body: CandidateBody) -> Candidate:
    return Candidate(
        architecture=Architecture.from_dict(body.architecture),
        splits=tuple(_split_of(split) for split in body.splits),
        evaluations=tuple(Evaluation(**evaluation.model_dump()) for evaluation in body.evaluations),
        measurements=tuple(Measurement(m.metric, m.value, m.figures, m.fingerprint) for m in body.measurements),
        weights=_ELSEWHERE if body.has_weights else None,
        within_budget=body.within_budget,
        note=body.note,
        target=body.target,
        measured_within_budget=body.measured_within_budget,
        trainings=tuple(Evaluation(**evaluation.model_dump()) for evaluation in body.trainings),
    )


def _split_of(body: SplitBody) -> Split:
    return Split(
        body.layer, body.index, body.channels, body.active_channels, body.macs, stage=body.stage, block=body.block
    )
