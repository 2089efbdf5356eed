"""Live events: one look at the store for all listeners of this process, however many there are."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from nas.errors import NasError
from nas.events import Event
from nas.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
QUIET_SECONDS = 15.0
CHECK_SECONDS = 2.0
_KEPT = 1000
_PAGE = 500
MOST_LISTENERS = 1000


def encode(event: Event) -> bytes:
    """Return an event in the form of server-sent events; its id is its number within the study."""
    data = json.dumps(dict(event.payload), separators=(",", ":"))
    return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n".encode()


class _Topic:
    """The recent events of a study that somebody listens to."""

    def __init__(self, number: int) -> None:
        self.last = number
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self.news = asyncio.Event()
        self.listeners = 0
        self.gone = False

    def add(self, events: Sequence[Event]) -> None:
        for event in events:
            self.recent.append((event.number, encode(event)))
            self.last = event.number
        self.wake()

    def wake(self) -> None:
        """Wake those who listen at present."""
        self.news.set()
        self.news = asyncio.Event()

    def since(self, number: int) -> list[tuple[int, bytes]] | None:
        """Return the events after ``number``; None if they reach farther back than the recent ones."""
        if number >= self.last:
            return []
        if not self.recent or self.recent[0][0] > number + 1:
            return None
        return [entry for entry in self.recent if entry[0] > number]


class _Guard:
    """Asks now and then whether a listener may stay."""

    def __init__(self, may_stay: Callable[[], Awaitable[bool]] | None, seconds: float) -> None:
        self._may_stay = may_stay
        self._seconds = seconds
        self._asked = time.monotonic()

    async def passes(self) -> bool:
        """Return whether the listener may stay, as far as is known."""
        if self._may_stay is None or time.monotonic() - self._asked < self._seconds:
            return True
        self._asked = time.monotonic()
        try:
            return await self._may_stay()
        except NasError:  # the database does not answer: the next look will tell
            return True


class EventHub:
    """Tells listeners what happens in studies; everything here runs in the event loop.

    Args:
        store: Store of the events.
        look_seconds: Time between looks at the store, in seconds.
        quiet_seconds: Time without an event after which a comment keeps the connection alive, in seconds.
        check_seconds: Time between looks at the token of a listener, in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        look_seconds: float = LOOK_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._store = store
        self._look_seconds = look_seconds
        self._quiet_seconds = quiet_seconds
        self._check_seconds = check_seconds
        self._topics: dict[str, _Topic] = {}
        self._looks: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def listeners(self) -> int:
        """Number of listeners at present."""
        return sum(topic.listeners for topic in self._topics.values())

    def close(self) -> None:
        """End all streams: the service stops."""
        self._closed = True
        for topic in self._topics.values():
            topic.wake()

    async def stream(
        self, study_id: str, after: int, may_stay: Callable[[], Awaitable[bool]] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the events of a study after a number, those in the store first, until the service stops.

        Args:
            study_id: Id of the study.
            after: Number of the last known event.
            may_stay: Function that tells whether the listener's token is still valid; None for listeners without one.
        """
        guard = _Guard(may_stay, self._check_seconds)
        quiet_since = time.monotonic()
        topic = self._topics.setdefault(study_id, _Topic(after))
        topic.listeners += 1
        if self._looks is None or self._looks.done():
            self._looks = asyncio.create_task(self._look())
        try:
            yield b"retry: 2000\n\n"
            while not (self._closed or topic.gone) and await guard.passes():
                news = topic.news  # before the look, so that nothing that comes meanwhile is missed
                found = topic.since(after)
                if found is None:
                    events = await run_in_threadpool(self._store.events_after, study_id, after, limit=_PAGE)
                    found = [(event.number, encode(event)) for event in events]
                if found:
                    after = found[-1][0]
                    yield b"".join(text for _, text in found)
                    quiet_since = time.monotonic()
                    continue
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), min(self._quiet_seconds, self._check_seconds))
                if time.monotonic() - quiet_since >= self._quiet_seconds:
                    quiet_since = time.monotonic()
                    yield b": quiet\n\n"
            if topic.gone:
                yield b"event: deleted\ndata: {}\n\n"
        finally:
            topic.listeners -= 1
            if not topic.listeners and self._topics.get(study_id) is topic:
                del self._topics[study_id]

    async def _look(self) -> None:
        while self._topics and not self._closed:
            try:
                await self._look_once()
            except NasError as error:
                log.warning("the events could not be read, trying again: %s", error)
            await asyncio.sleep(self._look_seconds)

    async def _look_once(self) -> None:
        numbers: Mapping[str, int] = await run_in_threadpool(self._store.last_events, list(self._topics))
        for study_id, topic in list(self._topics.items()):
            last = numbers.get(study_id)
            if last is None:
                topic.gone = True
                topic.wake()
            elif last > topic.last:
                events = await run_in_threadpool(self._store.events_after, study_id, topic.last, limit=_PAGE)
                topic.add(events)
