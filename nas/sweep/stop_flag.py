"""SIGINT, SIGTERM and SIGHUP as a flag: the first request is a clean stop, the second one interrupts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from nas.host.interrupts import Requests, heard_signals


class StoppedAtOnce(KeyboardInterrupt):
    """The first request to stop, in a block that it may leave at any point."""


class StopFlag:
    """A flag that a signal sets inside the block in the main thread; in other threads only :meth:`set` does.

    The handler only sets the flag: any work of the main thread may be half done.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._requests = Requests()
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Request a stop."""
        self._event.set()

    def listen(self) -> None:
        """Take over the signals, also again after Ray has taken them at its start."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in heard_signals():
            handler = signal.signal(number, self._handle)
            self._before.setdefault(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Make the first request raise :class:`StoppedAtOnce` inside the block, where no work can be half done.

        Ray takes over SIGTERM at its start, and then exits; its exit becomes the same exception.
        """
        if self:
            raise StoppedAtOnce
        self._at_once = True
        try:
            yield
        except SystemExit as error:
            if error.code != signal.SIGTERM:
                raise
            self.set()
            raise StoppedAtOnce from None
        finally:
            self._at_once = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._requests.new():
            return
        again = self._event.is_set()
        self.set()
        if again:
            self._give_back()
            raise KeyboardInterrupt
        if self._at_once:
            raise StoppedAtOnce

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            self._give_back()
