"""Routes of studies: launch, list, show, stop, resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nas.findings.pareto import known_hypervolume, pareto_points
from nas.findings.scores import default_kind
from nas.metrics import EvaluationKind
from nas.wire.bodies import JobBody, LaunchBody, ParetoBody, StudyDetail, StudyList
from nas.wire.builders import job_from, pareto_from, study_detail_from, study_from
from service.deps import DefinitionText, StoreDep, StudyRef, parse_definition

router = APIRouter(tags=["studies"])


@router.post(
    "/studies",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object", "description": "a study definition"}},
                "application/yaml": {"schema": {"type": "string", "description": "a study definition as YAML"}},
            },
        }
    },
)
def launch(text: DefinitionText, store: StoreDep) -> LaunchBody:
    """Check a definition, store the study and queue its search; on a fault, do none of these."""
    definition = parse_definition(*text)
    # The costs at n = C need the network, hence torch: the worker completes the point before the first trial.
    study, job = store.submit_study(definition, {"top1": 0.0})
    return LaunchBody(study=study_from(study, {}, None), job=job_from(job))


@router.get("/studies")
def list_studies(store: StoreDep) -> StudyList:
    """List all studies, newest first."""
    rows = store.studies()
    bodies = tuple(study_from(row.study, row.counts, row.best_top1) for row in rows)
    return StudyList(studies=bodies, count=len(bodies))


@router.get("/studies/{study_ref}")
def show_study(study_ref: StudyRef, store: StoreDep) -> StudyDetail:
    """Show one study with its definition."""
    row = store.study_row(study_ref)
    return study_detail_from(row.study, row.counts, row.best_top1)


@router.get("/studies/{study_ref}/pareto")
def show_front(
    study_ref: StudyRef,
    store: StoreDep,
    x: Annotated[str, Query(description="metric, such as macs, params, latency_ms")] = "macs",
    y: Annotated[str, Query(description="metric, such as top1")] = "top1",
    evaluation: Annotated[EvaluationKind | None, Query(description="best trained kind if absent")] = None,
) -> ParetoBody:
    """Place each scored network in the plane of two metrics, and mark the front."""
    study = store.study(study_ref)
    trials = store.trials(study.id)
    objectives = (x, y)
    kind = evaluation or default_kind(trials)
    points = pareto_points(trials, objectives, kind, study.definition.constraints)
    volume = known_hypervolume(points, objectives, study.reference_point)
    return pareto_from(study, trials, points, objectives, evaluation=kind, hypervolume=volume)


@router.post("/studies/{study_ref}/stop", status_code=202)
def stop(study_ref: StudyRef, store: StoreDep) -> JobBody:
    """Request the search to stop; running trials are put back and continue after a resume."""
    return job_from(store.stop(store.study(study_ref).id))


@router.post("/studies/{study_ref}/resume", status_code=202)
def resume(study_ref: StudyRef, store: StoreDep) -> LaunchBody:
    """Queue a new search on a stopped or failed study; ended trials are kept."""
    study = store.study(study_ref)
    job = store.resume(study.id)
    row = store.study_row(study.id)
    return LaunchBody(study=study_from(row.study, row.counts, row.best_top1), job=job_from(job))
