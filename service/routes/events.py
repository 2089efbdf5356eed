"""Routes of events: in pages, and live as server-sent events."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request
from starlette.responses import Response, StreamingResponse

from nas.store import Store
from nas.store.pages import MAX_PAGE
from nas.wire.events import EventBody, EventList
from service.api_route import ApiRoute
from service.auth import may_stay
from service.deps import HubDep, StoreDep, StudyRef
from service.event_hub import MOST_LISTENERS, EventHub
from service.head import is_head

router = APIRouter(tags=["events"], prefix="/studies/{study_ref}/events", route_class=ApiRoute)

_STREAM = 'id: 41\nevent: trial\ndata: {"number":3,"kind":"search","state":"complete","reason":null}\n\n'
_ENDLESS = "text/event-stream"


@router.get(
    "",
    response_model=EventList,
    responses={200: {"content": {_ENDLESS: {"example": _STREAM}}, "description": "a page, or events as they happen"}},
)
def list_events(
    request: Request,
    study_ref: StudyRef,
    store: StoreDep,
    hub: HubDep,
    after: Annotated[
        int | None,
        Query(ge=0, lt=2**31, description="number of the last known event; if absent, a page begins with the first "
              "event, and a stream with the next one"),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="largest number of events of a page")] = 100,
    last: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=20, description="sent by browsers after a lost connection"),
    ] = None,
) -> Response | EventList:
    """List the events of a study after a number, in order, or send them as they happen.

    With ``Accept: text/event-stream``, the answer is an endless stream of server-sent events. The id of each is its
    number; after a lost connection, ``Last-Event-ID`` or ``after`` continues behind the last known event.
    """
    if _ENDLESS in request.headers.get("accept", ""):
        return _stream(request, study_ref, store, hub, int(last) if last is not None and last.isdecimal() else after)
    known, version = after or 0, store.study_version(study_ref)
    events = store.events_after(version.study_id, known, limit=limit)
    bodies = tuple(
        EventBody(number=event.number, kind=event.kind, at=event.created_at, facts=dict(event.payload))
        for event in events
    )
    end = bodies[-1].number if bodies else known
    return EventList(events=bodies, count=len(bodies), last=end, newest=max(end, version.event))


def _stream(request: Request, ref: str, store: Store, hub: EventHub, known: int | None) -> Response:
    version = store.study_version(ref)
    if hub.listeners >= MOST_LISTENERS:
        raise HTTPException(503, f"{MOST_LISTENERS} clients listen already; try again later", {"Retry-After": "10"})
    if is_head(request.scope):
        return Response(media_type=_ENDLESS)
    start = version.event if known is None else min(known, version.event)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not hold events back
    stream = hub.stream(version.study_id, start, partial(may_stay, request))
    return StreamingResponse(stream, media_type=_ENDLESS, headers=headers)
