"""Routes of studies: launch, list, show, pause, stop, resume, extend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nas.definition.sections import MAX_TRIALS
from nas.housekeeping.stopped import discard_if_stopped
from nas.jobs import Job
from nas.metrics import EvaluationKind
from nas.store import Store
from nas.trial import TrialKind
from nas.wire.bodies import ControlBody, LaunchBody, ParetoBody, StudyDetail, StudyList
from nas.wire.builders import job_from, pareto_from, study_detail_from, study_from
from service.deps import ArtifactsDep, DefinitionText, StoreDep, StudyRef, parse_definition

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
    return study_detail_from(row.study, row.counts, row.best_top1, store.growths(row.study.id))


@router.get("/studies/{study_ref}/pareto")
def show_front(
    study_ref: StudyRef,
    store: StoreDep,
    x: Annotated[str, Query(description="metric, such as macs, params, latency_ms")] = "macs",
    y: Annotated[str, Query(description="metric, such as top1")] = "top1",
    evaluation: Annotated[EvaluationKind | None, Query(description="best trained kind if absent")] = None,
    dominated: Annotated[bool, Query(description="whether dominated networks are among the points")] = True,
) -> ParetoBody:
    """Place each scored network in the plane of two metrics, and mark the front."""
    study = store.study(study_ref)
    front = store.front(study.id, (x, y), evaluation, dominated=tuple(TrialKind) if dominated else ())
    return pareto_from(study, front, (x, y))


@router.post("/studies/{study_ref}/pause", status_code=202)
def pause(study_ref: StudyRef, store: StoreDep) -> ControlBody:
    """Request the search to pause; its trials wait with their checkpoints and continue after a resume."""
    study = store.study(study_ref)
    return _controlled(store, study.id, store.pause(study.id))


@router.post("/studies/{study_ref}/stop", status_code=202)
def stop(study_ref: StudyRef, store: StoreDep, artifacts: ArtifactsDep) -> ControlBody:
    """Request the search to end for good; its unfinished trials become cancelled."""
    study = store.study(study_ref)
    job = store.stop(study.id)
    discard_if_stopped(store, artifacts, study.id)
    return _controlled(store, study.id, job)


@router.post("/studies/{study_ref}/resume", status_code=202)
def resume(
    study_ref: StudyRef,
    store: StoreDep,
    retry_failed: Annotated[bool, Query(description="run failed trials again, also those of an ended study")] = False,
) -> LaunchBody:
    """Queue a new search on a paused or failed study; ended trials are kept."""
    study = store.study(study_ref)
    return _launched(store, study.id, store.resume_with_failed(study.id) if retry_failed else store.resume(study.id))


@router.post("/studies/{study_ref}/extend", status_code=202)
def extend(
    study_ref: StudyRef,
    store: StoreDep,
    trials: Annotated[int, Query(ge=1, le=MAX_TRIALS, description="number of search trials to add")],
) -> LaunchBody:
    """Add search trials to the plan of a finished, paused or failed study, and queue its search."""
    study = store.study(study_ref)
    job = store.extend(study.id, trials)
    assert job is not None
    return _launched(store, study.id, job)


def _controlled(store: Store, study_id: str, job: Job | None) -> ControlBody:
    row = store.study_row(study_id)
    body = study_from(row.study, row.counts, row.best_top1)
    return ControlBody(study=body, job=None if job is None else job_from(job))


def _launched(store: Store, study_id: str, job: Job) -> LaunchBody:
    row = store.study_row(study_id)
    return LaunchBody(study=study_from(row.study, row.counts, row.best_top1), job=job_from(job))
