"""Jobs of the workers, and the files that they made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from nas.candidate import Artifact
from nas.errors import ConflictError
from nas.scratch import scratch_folder
from nas.wire.bodies import JobBody
from nas.wire.builders import job_from
from service.deps import ArtifactsDep, StoreDep

router = APIRouter(tags=["jobs"], prefix="/jobs")

JobId = Annotated[UUID, PathParameter(description="as the route that queued it answered")]


@router.get("/{job_id}")
def show_job(job_id: JobId, store: StoreDep) -> JobBody:
    """Show where a job stands."""
    return job_from(store.job(str(job_id)))


@router.get("/{job_id}/download", response_class=FileResponse)
def download(job_id: JobId, store: StoreDep, artifacts: ArtifactsDep) -> FileResponse:
    """Send the zip that an export made; its checksum is verified before the first byte leaves."""
    job = store.job(str(job_id))
    result = job.result or {}
    if "uri" not in result:
        raise ConflictError(f"job {job.id} is {job.state.value}: it has no file to download")
    artifact = Artifact(result["uri"], result["sha256"], result["size"], "export")
    study = store.study(job.study_id) if job.study_id else None
    name = f"{study.name if study else 'export'}-trial-{job.payload.get('number', 0)}.zip"
    with ExitStack() as stack:
        path = artifacts.fetch(artifact, stack.enter_context(scratch_folder("download")) / "export.zip")
        sent = stack.pop_all()
    return FileResponse(path, media_type="application/zip", filename=name, background=BackgroundTask(sent.close))
