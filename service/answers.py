"""Answers about studies: kept by the number of the study's last event, with an ETag that follows from it.

A study that does not change is read once, however often it is shown. Equal requests at one time are one read, and
few reads run at once: what a service holds in memory does not grow with the number of its clients. The versions that
decide whether a kept answer is still good are read for all who ask at one time together.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nas.errors import NasError
from nas.store import Store
from nas.store.versions import ListVersion
from nas.versions import own_version
from service.shared import SharedReads

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
F = TypeVar("F", bound=Callable[..., Any])

KEPT_BYTES = 32 * 1024 * 1024
LONGEST_BYTES = 4 * 1024 * 1024
READS_AT_ONCE = 2
EPOCH_SECONDS = 0.5
LONGEST_REF = 100
_ZIPPED_FROM = 1000
_MARK = "_kept_until"
_AGEING = "nas.ageing"
"""Key of the scope of a request whose kept answer is to be made anew."""


class Until(StrEnum):
    """Changes that make an answer old."""

    EVENT = "event"
    """Any event of the study, an epoch as well."""
    RESULT = "result"
    """An event of the study that is no epoch."""
    LIST = "list"
    """An event of any study."""
    TRAINING = "training"
    """A change of the training that ``training_ref`` names."""
    TRAININGS = "trainings"
    """A change of any training."""
    NOW = "now"
    """Anything: the answer is not kept, but equal requests at one time share it."""


def kept(until: Until) -> Callable[[F], F]:
    """Mark a route whose answers are kept until a change; ``study_ref`` names the study in its path."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _MARK, until)
        return endpoint

    return mark


def settle(request: Request, *, when: bool = True) -> None:
    """Note that the answer to a request shows no trial that runs, so that reports of epochs do not make it old.

    Args:
        request: Request for an answer that is kept until any event.
        when: Whether it is so.
    """
    request.state.settled = when


def kept_until(endpoint: Callable[..., Any]) -> Until | None:
    """Return what makes the answers of a route old; None for a route whose answers are not kept."""
    found: Until | None = getattr(endpoint, _MARK, None)
    return found


@dataclass(frozen=True)
class _State:
    """State of what an answer tells.

    Args:
        etag: Mark of all of it.
        settled: Mark of all but the epochs of trials that run, for answers that show none.
        result: Text of that part.
    """

    etag: str
    settled: str
    result: str

    def of(self, answer: _Answer) -> str:
        """Return the mark that a kept answer must have to be as new as this."""
        return self.settled if answer.settled else self.etag


@dataclass(frozen=True)
class _Answer:
    until: Until
    study: str | None
    route: Any
    etag: str
    settled: bool
    result: str
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
        self._shared = SharedReads()

    async def known(self, request: Request) -> Response | None:
        """Return the kept answer to the address of a request if it is as new as the study; None otherwise."""
        found = self._answers.get(key := _key(request))
        if found is None:
            return None
        try:
            state = await self._state(request, found.until, found.study)
        except NasError:  # the route says what has happened
            return None
        if not _is_fresh(found, state):
            return None
        if found.etag != state.of(found) and time.monotonic() - found.made > EPOCH_SECONDS / 2:
            request.scope[_AGEING] = True
        if key in self._answers:
            self._answers.move_to_end(key)
        request.scope["route"] = found.route  # by which requests are counted
        return _response(request, found)

    async def answer(self, request: Request, until: Until, handle: Handler) -> Response:
        """Return the kept answer if it is as new as the study; otherwise that of ``handle``."""
        ref = request.path_params.get("study_ref", request.path_params.get("training_ref"))
        if len(ref or "") > LONGEST_REF:  # which the route refuses
            return await handle(request)
        key = _, zipped = _key(request)
        if until is Until.NOW:
            return _copy(await self._shared.read(key, lambda: self._now(request, handle, zipped)))
        state = await self._state(request, until, ref)
        found = self._answers.get(key)
        renews = _AGEING in request.scope
        if found is not None and _is_fresh(found, state) and not renews:
            self._answers.move_to_end(key)
            return _response(request, found)
        for etag in (state.etag, state.settled):
            if matches(request.headers.get("if-none-match"), etag):
                return Response(status_code=304, headers={"ETag": etag, **_REVALIDATED})
        lock = self._under_way.setdefault(key, anyio.Lock())
        try:
            async with lock:
                found = self._answers.get(key)
                if found is not None and _is_fresh(found, state) and not renews:  # read meanwhile
                    return _response(request, found)
                async with self._reads:
                    response = await handle(request)
                    if response.status_code != 200:
                        return response
                    made = await _made(request, response, (until, ref), state, zipped)
                self._keep(key, made)
                return _response(request, made)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._under_way.pop(key, None)

    async def _now(self, request: Request, handle: Handler, zipped: bool) -> Response:
        async with self._reads:
            response = await handle(request)
        body = bytes(response.body)
        if zipped and response.status_code == 200 and len(body) >= _ZIPPED_FROM:
            headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            zipped_body = await run_in_threadpool(gzip.compress, body, 5)
            return Response(zipped_body, media_type=response.headers["content-type"], headers=headers)
        return response

    async def _state(self, request: Request, until: Until, ref: str | None) -> _State:
        known: object
        read: Callable[[], Awaitable[Any]]
        if until is Until.LIST:
            listed = await self._listed()
            event, known = listed.event, listed.result
        elif until is Until.TRAININGS:
            event, known = 0, await self._shared.read(until, partial(run_in_threadpool, self._store.trainings_version))
            if "study" in request.query_params:  # a name, whose meaning changes with the studies
                known = (known, (await self._listed()).result)
        elif until is Until.TRAINING:
            read = partial(run_in_threadpool, self._store.training_version, ref or "")
            event, known = 0, await self._shared.read(("training", ref), read)
        else:
            assert ref is not None  # the other answers are about a study
            read = partial(run_in_threadpool, self._store.study_version, ref)
            found = await self._shared.read(("study", ref), read)
            event = found.event if until is Until.EVENT else 0
            known = (found.study_id, found.result, found.measured, found.interrupted)
        result = f"{self._program} {_address(request)} {known}"
        return _State(_mark(f"{result} {event}"), _mark(f"{result} settled"), result)

    async def _listed(self) -> ListVersion:
        found: ListVersion = await self._shared.read(Until.LIST, partial(run_in_threadpool, self._store.list_version))
        return found

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


class KeptAnswers:
    """Answers what is kept before any route is looked for; the sender has passed all checks of access by then.

    An answer that will soon be too old is made anew beside the requests, so that none of them waits for it.

    Args:
        app: Application that answers the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._renewed: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            answers: Answers = scope["app"].state.answers
            known = await answers.known(Request(scope))
            if known is not None:
                if _AGEING in scope:
                    self._renew(scope)
                await known(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _renew(self, scope: Scope) -> None:
        address = _address(Request(scope))
        if address not in self._renewed:
            own = {**scope, "state": dict(scope.get("state", {}))}
            own["headers"] = [header for header in scope["headers"] if header[0] != b"if-none-match"]
            self._renewed[address] = asyncio.create_task(self._make_anew(address, own))

    async def _make_anew(self, address: str, scope: Scope) -> None:
        try:
            await self.app(scope, _nothing, _nowhere)
        except Exception:  # the next request meets the same error, and answers it
            log.debug("an answer could not be made anew", exc_info=True)
        finally:
            del self._renewed[address]


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nowhere(_message: Message) -> None:
    """Take the answer, which :class:`Answers` keeps."""


_REVALIDATED: Mapping[str, str] = MappingProxyType({"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"})


def _is_fresh(answer: _Answer, state: _State) -> bool:
    """Return whether an answer can be sent: it is as new as its study, or misses epochs of a moment only.

    Twenty reports of epochs a second must not make each list be read twenty times a second.
    """
    if answer.etag == state.of(answer):
        return True
    return answer.result == state.result and time.monotonic() - answer.made < EPOCH_SECONDS


def _mark(text: str) -> str:
    # weak, because the same answer is sent compressed and plain
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _copy(response: Response) -> Response:
    """Return a response for one more client: the middleware adds headers to each."""
    copy = Response(response.body, response.status_code)
    copy.raw_headers = list(response.raw_headers)
    return copy


def _address(request: Request) -> str:
    return f"{request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"


def _key(request: Request) -> tuple[str, bool]:
    return _address(request), "gzip" in request.headers.get("accept-encoding", "")


def matches(given: str | None, etag: str) -> bool:
    """Return whether the ``If-None-Match`` header ``given`` names ``etag``."""
    if given is None:
        return False
    return given.strip() == "*" or etag.removeprefix("W/") in [
        part.strip().removeprefix("W/") for part in given.split(",")
    ]


async def _made(
    request: Request, response: Response, of: tuple[Until, str | None], state: _State, zipped: bool
) -> _Answer:
    settled = of[0] is Until.EVENT and getattr(request.state, "settled", False)
    body, etag = bytes(response.body), state.settled if settled else state.etag
    headers = [("Content-Type", response.headers["content-type"]), ("ETag", etag), *_REVALIDATED.items()]
    if zipped and len(body) >= _ZIPPED_FROM:
        body = await run_in_threadpool(gzip.compress, body, 5)
        headers.append(("Content-Encoding", "gzip"))
    route = request.scope.get("route")
    return _Answer(*of, route, etag, settled, state.result, time.monotonic(), body, tuple(headers))


def _response(request: Request, answer: _Answer) -> Response:
    etag = answer.etag
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, **_REVALIDATED})
    return Response(answer.body, headers=dict(answer.headers))
