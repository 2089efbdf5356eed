"""Jobs of the workers, the queue, the workers, and the files that jobs write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from starlette.responses import Response

from nas.candidate import Artifact
from nas.errors import ConflictError
from nas.jobs import Job, JobKind, JobState
from nas.store.records import HeldRow
from nas.wire.bodies import JobBody
from nas.wire.builders import job_from
from nas.wire.status import QueueBody, WorkerBody, WorkerList
from nas.worker.lease import LEASE_SECONDS
from service.answers import Until, kept
from service.api_route import ApiRoute
from service.deps import ArtifactsDep, StoreDep
from service.zips import zip_response, zip_responses

router = APIRouter(tags=["jobs"], route_class=ApiRoute)

JobId = Annotated[UUID, PathParameter(description="id from the answer of the route that queued the job")]


@router.get("/queue")
@kept(Until.NOW)
def show_queue(store: StoreDep) -> QueueBody:
    """List the jobs that wait for a worker or run, the running ones first, then in the order of their turns."""
    found = sorted(store.open_jobs(), key=lambda job: job.state is JobState.QUEUED)
    return QueueBody(
        jobs=tuple(map(job_from, found)),
        count=len(found),
        waiting=sum(job.state is JobState.QUEUED for job in found),
        running=sum(job.state is JobState.RUNNING for job in found),
    )


@router.get("/workers")
@kept(Until.NOW)
def show_workers(store: StoreDep) -> WorkerList:
    """List the workers that run jobs, with the ends of their leases."""
    held = [job for job in store.open_jobs() if job.state is JobState.RUNNING and job.worker is not None]
    held.sort(key=_holder)
    by_study = store.held({job.study_id for job in held if job.study_id is not None and job.kind is JobKind.SEARCH})
    workers = [_worker(name, list(group), by_study) for name, group in groupby(held, key=_holder)]
    return WorkerList(workers=tuple(workers), count=len(workers))


def _worker(name: str, jobs: Sequence[Job], by_study: Mapping[str, HeldRow]) -> WorkerBody:
    ends = [job.expires_at for job in jobs if job.expires_at is not None]
    searched = dict.fromkeys(job.study_id or "" for job in jobs if job.kind is JobKind.SEARCH)
    rows = [by_study[study_id] for study_id in searched if study_id in by_study]
    return WorkerBody(
        name=name,
        jobs=tuple(map(job_from, jobs)),
        expires_at=min(ends),
        alive=not any(job.expired for job in jobs),
        seen_at=max(ends) - timedelta(seconds=LEASE_SECONDS),
        trials=sum(row.trials for row in rows),
        cpus=sum(row.cpus for row in rows),
        gpus=sum(row.gpus for row in rows),
        nodes=tuple(sorted({node for row in rows for node in row.nodes})),
    )


@router.get("/jobs")
@kept(Until.NOW)
def list_jobs(
    store: StoreDep,
    kind: Annotated[JobKind | None, Query(description="kind of the jobs; all if absent")] = None,
    state: Annotated[JobState | None, Query(description="state of the jobs; all if absent")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="largest number of jobs")] = 100,
    after: Annotated[str | None, Query(max_length=200, description="mark that the previous page ended with")] = None,
) -> QueueBody:
    """List jobs in pages, newest first, ended ones as well."""
    page, mark = store.job_page(kind, state, limit, after)
    return QueueBody(
        jobs=tuple(map(job_from, page)),
        count=len(page),
        waiting=sum(job.state is JobState.QUEUED for job in page),
        running=sum(job.state is JobState.RUNNING for job in page),
        after=mark,
    )


@router.get("/jobs/{job_id}")
def show_job(job_id: JobId, store: StoreDep) -> JobBody:
    """Show the state of a job."""
    return job_from(store.job(str(job_id)))


@router.get(
    "/jobs/{job_id}/download",
    response_class=FileResponse,
    responses=zip_responses(),
)
def download(request: Request, job_id: JobId, store: StoreDep, artifacts: ArtifactsDep) -> Response:
    """Send the zip file of an export, or a range of it; its checksum is verified before the first byte is sent.

    The ETag is the SHA-256 of the file, as in ``Repr-Digest``.
    """
    job = store.job(str(job_id))
    result = job.result or {}
    if "uri" not in result:
        raise ConflictError(f"job {job.id} is {job.state.value}: it has no file to download")
    artifact = Artifact(result["uri"], result["sha256"], result["size"], "export")
    study = store.study(job.study_id) if job.study_id else None
    name = f"{study.name if study else 'export'}-trial-{job.payload.get('number', 0)}.zip"
    return zip_response(request, artifacts, artifact, name)


def _holder(job: Job) -> str:
    return job.worker or ""
