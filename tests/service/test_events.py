"""Live events: in order, without gaps, within a second, resumable, with one look for all listeners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fastapi.testclient import TestClient

from nas.client import Client
from nas.client.events import ClientEvent, EventReader
from nas.errors import InputError, NotFoundError
from nas.tokens import Scope
from nas.trial import EpochRecord
from service.event_hub import EventHub
from tests.service.conftest import TOKEN, Place, serve
from tests.service.fixture_study import RUNNING

LISTENERS = 200


def events_of(text: bytes) -> list[ClientEvent]:
    """Return the events of a piece of a stream."""
    reader = EventReader()
    return [event for line in text.decode().split("\n") if (event := reader.feed(line)) is not None]


async def listen(stream: AsyncIterator[bytes], count: int) -> list[ClientEvent]:
    """Return the first events of a stream."""
    found: list[ClientEvent] = []
    async for piece in stream:
        found += events_of(piece)
        if len(found) >= count:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


def report(place: Place, study_id: str, epoch: int) -> None:
    place.store.record_epoch(study_id, 2, EpochRecord(epoch, "gates", {"loss": 1.0 / epoch}, {}))


def test_a_list_in_pages(api: TestClient, place: Place) -> None:
    url = f"/api/v1/studies/{RUNNING}/events"
    first = api.get(url, params={"limit": 3}).json()
    assert [event["number"] for event in first["events"]] == [1, 2, 3]
    rest = api.get(url, params={"after": first["last"], "limit": 2}).json()
    assert [event["number"] for event in rest["events"]] == [4, 5]


def test_many_listeners_hear_everything_in_time_by_one_look(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = place.store.study(RUNNING)
    last = place.store.study_version(study.id).event
    looks, reads = [], []
    store = place.store
    last_events, events_after = store.last_events, store.events_after
    monkeypatch.setattr(store, "last_events", lambda ids: looks.append(ids) or last_events(ids))
    monkeypatch.setattr(store, "events_after", lambda *a, **k: reads.append(a) or events_after(*a, **k))

    async def run() -> tuple[list[list[ClientEvent]], float]:
        hub = EventHub(store, look_seconds=0.1)
        waiting = [asyncio.create_task(listen(hub.stream(study.id, last), 3)) for _ in range(LISTENERS)]
        await asyncio.sleep(0.2)
        assert hub.listeners == LISTENERS
        for epoch in (2, 3, 4):
            await asyncio.to_thread(report, place, study.id, epoch)
        began = time.monotonic()
        heard = await asyncio.gather(*waiting)
        return heard, time.monotonic() - began

    heard, seconds = asyncio.run(run())
    for events in heard:
        assert [event.number for event in events] == [last + 1, last + 2, last + 3]
        assert [event.payload["epoch"] for event in events] == [2, 3, 4]
    assert seconds < 1
    assert len(looks) < 20
    assert len(reads) < 10


def test_a_lost_connection_goes_on_behind_the_last_event(place: Place) -> None:
    study = place.store.study(RUNNING)
    last = place.store.study_version(study.id).event

    async def run() -> list[ClientEvent]:
        return await listen(EventHub(place.store).stream(study.id, 0), last)

    assert [event.number for event in asyncio.run(run())] == list(range(1, last + 1))


def test_streams_end_when_the_service_stops_or_the_study_is_deleted(place: Place) -> None:
    study = place.store.study(RUNNING)
    other = place.store.study("digits-fixture")

    async def pieces(stream: AsyncIterator[bytes]) -> list[bytes]:
        return [piece async for piece in stream]

    async def run() -> tuple[list[bytes], list[bytes]]:
        hub = EventHub(place.store, look_seconds=0.05, quiet_seconds=0.05)
        open_end = asyncio.create_task(pieces(hub.stream(study.id, 10**6)))
        deleted = asyncio.create_task(pieces(hub.stream(other.id, 10**6)))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(place.store.delete_study, other.id, other.name)
        gone = await asyncio.wait_for(deleted, 5)
        hub.close()
        return await asyncio.wait_for(open_end, 5), gone

    ended, gone = asyncio.run(run())
    assert b": quiet" in b"".join(ended)
    assert gone[-1].startswith(b"event: deleted")


def test_a_client_resumes_over_a_socket_and_hears_of_changes_at_once(place: Place) -> None:
    study = place.store.study(RUNNING)
    last = place.store.study_version(study.id).event
    with serve(place.app) as url, Client(url, TOKEN) as client:
        with pytest.raises(NotFoundError):
            next(client.events("none"))
        events = client.events(RUNNING, after=last - 1)
        assert next(events).number == last
        began = time.monotonic()
        report(place, study.id, 2)
        heard = next(events)
        assert time.monotonic() - began < 1
        assert (heard.number, heard.kind, heard.payload["epoch"]) == (last + 1, "epoch", 2)
        place.app.state.hub.close()
        events.close()


def test_a_head_does_not_wait_for_events(api: TestClient) -> None:
    answer = api.head(f"/api/v1/studies/{RUNNING}/events", headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_a_revoked_token_ends_its_stream(place: Place) -> None:
    token, secret = place.store.create_token("listener", Scope.READ)
    last = place.store.study_version(RUNNING).event
    with serve(place.app) as url, Client(url, secret) as client:
        place.app.state.hub = EventHub(place.store, check_seconds=0.1)
        events = client.events(RUNNING, after=last - 1)
        assert next(events).number == last
        place.store.revoke_token(token.id)
        began = time.monotonic()
        with pytest.raises(InputError, match="was revoked"):
            next(events)
        assert time.monotonic() - began < 5
