"""The state of the service: health, readiness, version, metrics. The first two need no token."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from nas.versions import own_version
from nas.wire.bodies import HealthBody
from nas.wire.status import ReadyBody, VersionBody
from service.api_route import ApiRoute
from service.deps import HubDep, StoreDep
from service.metrics import CONTENT_TYPE, Metrics

router = APIRouter(tags=["health"], route_class=ApiRoute)


@router.get("/healthz")
def health(request: Request, store: StoreDep) -> HealthBody:
    """Answer after a successful query of the database."""
    store.ping()
    return HealthBody(status="ok", worker=_worker(request))


@router.get(
    "/readyz",
    responses={
        200: {"model": ReadyBody}, 503: {"model": ReadyBody, "description": "it stops, or waits for its worker"}
    },
)  # fmt: skip
def ready(request: Request, store: StoreDep) -> Response:
    """Answer 200 if requests should be sent here: the database answers, and an embedded worker runs."""
    store.ping()
    worker = _worker(request)
    reason = "its worker restarts" if worker == "restarting" else ""
    if request.app.state.stopping:
        reason = "it stops"
    body = ReadyBody(ready=not reason, reason=reason or None, worker=worker, read_only=store.read_only)
    return JSONResponse(body.model_dump(mode="json"), 503 if reason else 200)


@router.get("/version")
def show_version() -> VersionBody:
    """Show the version of the program and of the API."""
    return VersionBody(version=own_version(), api="v1")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "metrics in the text format of Prometheus"}},
)
def metrics(request: Request, store: StoreDep, hub: HubDep) -> Response:
    """Return the metrics of this process and of the store for Prometheus."""
    found: Metrics = request.app.state.metrics
    return Response(found.text(store, hub.listeners), media_type=CONTENT_TYPE)


def _worker(request: Request) -> str:
    worker = request.app.state.worker
    return "off" if worker is None else str(worker.state)
