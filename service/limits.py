"""Limits of requests: the size of a body, the time until it is whole, and the number of requests of a token."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import error_response
from service.settings import ServiceSettings

BURST_SECONDS = 10.0
_TOKENS = 10_000


class BodyLimits:
    """Refuses bodies that are too long (413), or not whole in time (408).

    Args:
        app: Application that answers the request.
        settings: Settings with both limits.
    """

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.settings.body_bytes
        told = Request(scope).headers.get("content-length", "")
        if told.isdecimal() and int(told) > limit:
            response = error_response(Request(scope), 413, "ContentTooLarge", _too_long(limit))
            await response(scope, receive, send)
            return
        await self.app(scope, self._limited(receive, limit), send)

    def _limited(self, receive: Receive, limit: int) -> Receive:
        size, whole = 0, False
        deadline = time.monotonic() + self.settings.body_seconds

        async def receive_limited() -> Message:
            nonlocal size, whole
            if whole:  # now it waits for the client to go away
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                seconds = self.settings.body_seconds
                detail = f"the body was not whole within {seconds:g} s; send it faster, or in smaller parts"
                raise HTTPException(408, detail, {"Connection": "close"}) from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > limit:
                raise HTTPException(413, _too_long(limit))
            return message

        return receive_limited


def _too_long(limit: int) -> str:
    return f"a body has at most {limit:,} bytes (NAS_SERVICE_BODY_BYTES)"


class Rates:
    """Counts the requests of each token: a rate in the mean, with bursts of ten seconds.

    Args:
        rate: Number of requests per second.
        clock: Clock in seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._most = max(1.0, rate * BURST_SECONDS)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, token: str) -> float:
        """Count a request; return 0 if it is allowed, else the time in seconds until it will be."""
        now = self._clock()
        left, last = self._left.pop(token, (self._most, now))
        left = min(self._most, left + (now - last) * self.rate)
        allowed = left >= 1.0
        self._left[token] = (left - 1.0 if allowed else left, now)
        if len(self._left) > _TOKENS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self.rate
