"""Answers about studies: kept by the number of the study's last event, with an ETag that follows from it.

A study that does not change is read once, however often it is shown. Equal requests at one time are one read, and
few reads run at once: what a service holds in memory does not grow with the number of its clients.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from nas.store import Store
from nas.versions import own_version

Handler = Callable[[Request], Awaitable[Response]]
F = TypeVar("F", bound=Callable[..., Any])

KEPT_BYTES = 32 * 1024 * 1024
LONGEST_BYTES = 4 * 1024 * 1024
READS_AT_ONCE = 2
EPOCH_SECONDS = 0.5
LONGEST_REF = 100
_ZIPPED_FROM = 1000
_MARK = "_kept_until"


class Until(StrEnum):
    """Changes that make an answer old."""

    EVENT = "event"
    """Any event of the study, an epoch as well."""
    RESULT = "result"
    """An event of the study that is no epoch."""
    LIST = "list"
    """An event of any study that is no epoch."""
    TRAINING = "training"
    """A change of the training that ``training_ref`` names."""
    TRAININGS = "trainings"
    """A change of any training."""


def kept(until: Until) -> Callable[[F], F]:
    """Mark a route whose answers are kept until a change; ``study_ref`` names the study in its path."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _MARK, until)
        return endpoint

    return mark


def kept_until(endpoint: Callable[..., Any]) -> Until | None:
    """Return what makes the answers of a route old; None for a route whose answers are not kept."""
    found: Until | None = getattr(endpoint, _MARK, None)
    return found


@dataclass(frozen=True)
class _State:
    """State of what an answer tells: ``etag`` of all of it, ``result`` of all but the epochs of trials that run."""

    etag: str
    result: str


@dataclass(frozen=True)
class _Answer:
    state: _State
    made: float
    body: bytes
    headers: tuple[tuple[str, str], ...]


class Answers:
    """Keeps answers in memory, the most recent ones, up to a number of bytes.

    Args:
        store: Store that knows the versions.
        kept_bytes: Bytes of all kept answers.
    """

    def __init__(self, store: Store, kept_bytes: int = KEPT_BYTES) -> None:
        self._store = store
        self._most = kept_bytes
        self._program = own_version()
        self._held = 0
        self._answers: OrderedDict[tuple[str, bool], _Answer] = OrderedDict()
        self._under_way: dict[tuple[str, bool], anyio.Lock] = {}
        self._reads = anyio.CapacityLimiter(READS_AT_ONCE)

    async def answer(self, request: Request, until: Until, handle: Handler) -> Response:
        """Return the kept answer if it is as new as the study; otherwise that of ``handle``."""
        given = (request.path_params.get(name, "") for name in ("study_ref", "training_ref"))
        if any(len(ref) > LONGEST_REF for ref in given):  # which the route refuses
            return await handle(request)
        state = await self._state(request, until)
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        key = (_address(request), zipped)
        found = self._answers.get(key)
        if found is not None and _is_fresh(found, state):
            self._answers.move_to_end(key)
            return _response(request, found)
        if matches(request.headers.get("if-none-match"), state.etag):
            return Response(status_code=304, headers={"ETag": state.etag, **_REVALIDATED})
        lock = self._under_way.setdefault(key, anyio.Lock())
        try:
            async with lock:
                found = self._answers.get(key)
                if found is not None and _is_fresh(found, state):  # another request has read it meanwhile
                    return _response(request, found)
                async with self._reads:
                    response = await handle(request)
                    if response.status_code != 200:
                        return response
                    made = await _made(response, state, zipped)
                self._keep(key, made)
                return _response(request, made)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._under_way.pop(key, None)

    async def _state(self, request: Request, until: Until) -> _State:
        event = 0
        if until is Until.LIST:
            known: object = await run_in_threadpool(self._store.list_version)
        elif until is Until.TRAININGS:
            known = await run_in_threadpool(self._store.trainings_version)
        elif until is Until.TRAINING:
            known = await run_in_threadpool(self._store.training_version, request.path_params["training_ref"])
        else:
            found = await run_in_threadpool(self._store.study_version, request.path_params["study_ref"])
            event = found.event if until is Until.EVENT else 0
            known = (found.study_id, found.result, found.measured, found.interrupted)
        result = f"{self._program} {_address(request)} {known}"
        digest = hashlib.sha256(f"{result} {event}".encode()).hexdigest()[:32]
        return _State(f'W/"{digest}"', result)  # weak, because the same answer is sent compressed and plain

    def _keep(self, key: tuple[str, bool], answer: _Answer) -> None:
        before = self._answers.pop(key, None)
        self._held -= 0 if before is None else len(before.body)
        if len(answer.body) > LONGEST_BYTES:
            return
        self._answers[key] = answer
        self._held += len(answer.body)
        while self._held > self._most:
            _, oldest = self._answers.popitem(last=False)
            self._held -= len(oldest.body)


_REVALIDATED: Mapping[str, str] = MappingProxyType({"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"})


def _is_fresh(answer: _Answer, state: _State) -> bool:
    """Return whether an answer can be sent: it is as new as its study, or misses epochs of a moment only.

    Twenty reports of epochs a second must not make each list be read twenty times a second.
    """
    if answer.state.etag == state.etag:
        return True
    return answer.state.result == state.result and time.monotonic() - answer.made < EPOCH_SECONDS


def _address(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}"


def matches(given: str | None, etag: str) -> bool:
    """Return whether the ``If-None-Match`` header ``given`` names ``etag``."""
    if given is None:
        return False
    return given.strip() == "*" or etag.removeprefix("W/") in [
        part.strip().removeprefix("W/") for part in given.split(",")
    ]


async def _made(response: Response, state: _State, zipped: bool) -> _Answer:
    body = bytes(response.body)
    headers = [("Content-Type", response.headers["content-type"]), ("ETag", state.etag), *_REVALIDATED.items()]
    if zipped and len(body) >= _ZIPPED_FROM:
        body = await run_in_threadpool(gzip.compress, body, 5)
        headers.append(("Content-Encoding", "gzip"))
    return _Answer(state, time.monotonic(), body, tuple(headers))


def _response(request: Request, answer: _Answer) -> Response:
    etag = answer.state.etag
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, **_REVALIDATED})
    return Response(answer.body, headers=dict(answer.headers))
