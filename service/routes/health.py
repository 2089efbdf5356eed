"""Whether the service can work; the only route that needs no token."""

from __future__ import annotations

from fastapi import APIRouter, Request

from nas.wire.bodies import HealthBody
from service.deps import StoreDep

router = APIRouter(tags=["health"])


@router.get("/healthz")
def health(request: Request, store: StoreDep) -> HealthBody:
    """Answer once the database has answered."""
    store.ping()
    worker = request.app.state.worker
    return HealthBody(status="ok", worker="off" if worker is None else worker.state)
