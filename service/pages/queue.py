"""The page of the queue: jobs that wait or run, the workers that run them, measured devices."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.deps import StoreDep
from service.pages.rendering import render
from service.routes.catalog import list_devices
from service.routes.jobs import show_queue, show_workers

router = APIRouter(include_in_schema=False, default_response_class=Response)

MOST_JOBS = 200


@router.get("/queue")
def queue_page(request: Request, store: StoreDep) -> Response:
    """Jobs, workers, devices and latency tables."""
    queue = show_queue(store)
    jobs = queue.jobs[:MOST_JOBS]
    names = store.study_names({job.study_id for job in jobs if job.study_id is not None})
    devices = list_devices(store)
    context = {
        "queue": queue,
        "jobs": jobs,
        "names": names,
        "workers": show_workers(store).workers,
        "devices": devices.devices,
        "tables": devices.tables,
    }
    return render(request, "queue.html", context)
