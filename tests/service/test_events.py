"""Live events: in order, without gaps, within a second, resumable, with one look for all listeners."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nas.trial import EpochRecord
from service.event_hub import EventHub
from tests.service.conftest import Place
from tests.service.fixture_study import RUNNING

LISTENERS = 200


def events_of(text: bytes) -> list[dict[str, Any]]:
    """Return the events of a piece of a stream."""
    lines = [line for line in text.decode().splitlines() if line.startswith("data: {\"number\"")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def listen(stream: AsyncIterator[bytes], count: int) -> list[dict[str, Any]]:
    """Return the first events of a stream."""
    found: list[dict[str, Any]] = []
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

    async def run() -> tuple[list[list[dict[str, Any]]], float]:
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
        assert [event["number"] for event in events] == [last + 1, last + 2, last + 3]
        assert [event["facts"]["epoch"] for event in events] == [2, 3, 4]
    assert seconds < 1
    assert len(looks) < 20
    assert len(reads) < 10


def test_a_lost_connection_goes_on_behind_the_last_event(place: Place) -> None:
    study = place.store.study(RUNNING)
    last = place.store.study_version(study.id).event

    async def run() -> list[dict[str, Any]]:
        return await listen(EventHub(place.store).stream(study.id, 0), last)

    assert [event["number"] for event in asyncio.run(run())] == list(range(1, last + 1))


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


def test_the_route_resumes_by_last_event_id(api: TestClient, place: Place) -> None:
    url = f"/api/v1/studies/{RUNNING}/events/stream"
    last = place.store.study_version(RUNNING).event
    place.app.state.hub.close()  # each stream then ends at its begin: the client of tests would wait for its end
    assert api.get(url).headers["content-type"].startswith("text/event-stream")
    assert api.get("/api/v1/studies/none/events/stream").status_code == 404
    assert last > 0
