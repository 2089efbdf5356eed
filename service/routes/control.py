"""Routes that steer the search of a study: pause, stop, resume, extend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nas.definition.sections import MAX_TRIALS
from nas.housekeeping.stopped import discard_if_stopped
from nas.jobs import Job
from nas.store import Store
from nas.wire.bodies import ControlBody, LaunchBody
from nas.wire.builders import job_from, study_from
from service.api_route import ApiRoute
from service.deps import ArtifactsDep, StoreDep, StudyRef

router = APIRouter(tags=["studies"], route_class=ApiRoute)


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
    return launched(store, study.id, store.resume_with_failed(study.id) if retry_failed else store.resume(study.id))


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
    return launched(store, study.id, job)


def _controlled(store: Store, study_id: str, job: Job | None) -> ControlBody:
    row = store.study_row(study_id)
    body = study_from(row.study, row.counts, row.best_top1)
    return ControlBody(study=body, job=None if job is None else job_from(job))


def launched(store: Store, study_id: str, job: Job) -> LaunchBody:
    """Build the answer of a route that has queued a search."""
    row = store.study_row(study_id)
    return LaunchBody(study=study_from(row.study, row.counts, row.best_top1), job=job_from(job))
