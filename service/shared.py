"""Shared reads: those who ask for one thing while it is being read wait for the next read, together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any


class SharedReads:
    """Answers many requests by few reads, and none by a read that began before it.

    So a client that has just changed something sees the change, as it would if each request read for itself.
    Everything here runs in the event loop.
    """

    def __init__(self) -> None:
        self._coming: dict[Hashable, asyncio.Task[Any]] = {}
        self._turns: dict[Hashable, asyncio.Lock] = {}

    async def read(self, key: Hashable, read: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer of a read that begins now or when the present one of ``key`` ends.

        Args:
            key: Name of what is read; equal keys mean equal reads.
            read: Function that reads.
        """
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = asyncio.create_task(self._next(key, read))
            coming.add_done_callback(_heard)
        return await asyncio.shield(coming)  # one client that goes away does not end the read of the others

    async def _next(self, key: Hashable, read: Callable[[], Awaitable[Any]]) -> Any:
        turn = self._turns.setdefault(key, asyncio.Lock())
        try:
            async with turn:
                del self._coming[key]  # whoever asks from now on needs a later read
                return await read()
        finally:
            if self._coming.get(key) is asyncio.current_task():  # ended before its turn: nobody may wait for it
                del self._coming[key]
            if key not in self._coming and not turn.locked():
                self._turns.pop(key, None)


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of an error whose clients have all gone; asyncio would complain."""
    if not task.cancelled():
        task.exception()
