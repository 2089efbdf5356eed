"""The REST API, one file for each noun; all paths begin with ``/api/v1``."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from nas.wire.bodies import ErrorBody
from service.auth import check_owner
from service.routes import figures, health, jobs, studies, trials

PREFIX = "/api/v1"


def api_router() -> APIRouter:
    """Collect the routes of the API."""
    statuses = (400, 401, 403, 404, 408, 409, 413, 421, 422, 429, 503)
    router = APIRouter(
        prefix=PREFIX,
        responses={status: {"model": ErrorBody} for status in statuses},
        dependencies=[Depends(check_owner)],
    )
    for module in (health, studies, trials, figures, jobs):
        router.include_router(module.router)
    return router
