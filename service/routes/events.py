"""Routes of events: in pages, and live as server-sent events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request
from starlette.responses import Response, StreamingResponse

from nas.store.pages import MAX_PAGE
from nas.wire.events import EventBody, EventList
from service.api_route import ApiRoute
from service.deps import HubDep, StoreDep, StudyRef
from service.event_hub import MOST_LISTENERS
from service.head import is_head

router = APIRouter(tags=["events"], prefix="/studies/{study_ref}/events", route_class=ApiRoute)

_STREAM = (
    "id: 41\nevent: trial\n"
    'data: {"number":41,"kind":"trial","at":"2026-11-26T10:00:00+00:00","facts":{"number":3,"state":"complete"}}\n\n'
)


@router.get("")
def list_events(
    study_ref: StudyRef,
    store: StoreDep,
    after: Annotated[int, Query(ge=0, lt=2**31, description="number of the last known event")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="largest number of events")] = 100,
) -> EventList:
    """List the events of a study after a number, in order."""
    events = store.events_after(store.study(study_ref).id, after, limit=limit)
    bodies = tuple(
        EventBody(number=event.number, kind=event.kind, at=event.created_at, facts=dict(event.payload))
        for event in events
    )
    return EventList(events=bodies, count=len(bodies), last=bodies[-1].number if bodies else after)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"example": _STREAM}}, "description": "events as they happen"}},
)
def stream_events(
    request: Request,
    study_ref: StudyRef,
    store: StoreDep,
    hub: HubDep,
    after: Annotated[
        int | None, Query(ge=0, lt=2**31, description="number of the last known event; the newest if absent")
    ] = None,
    last: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=20, description="sent by browsers after a lost connection"),
    ] = None,
) -> Response:
    """Send the events of a study as they happen, as server-sent events; the id of each is its number.

    After a lost connection, ``Last-Event-ID`` or ``after`` continues behind the last known event.
    """
    version = store.study_version(study_ref)
    known = int(last) if last is not None and last.isdecimal() else after
    if hub.listeners >= MOST_LISTENERS:
        raise HTTPException(503, f"{MOST_LISTENERS} clients listen already; try again later", {"Retry-After": "10"})
    if is_head(request):
        return Response(media_type="text/event-stream")
    start = version.event if known is None else min(known, version.event)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not hold events back
    return StreamingResponse(hub.stream(version.study_id, start), media_type="text/event-stream", headers=headers)
