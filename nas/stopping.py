"""Ctrl-C and SIGTERM as a flag: the first one asks for a clean stop, the second one is taken at its word."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Set by SIGINT or SIGTERM while used as a context manager in the main thread; elsewhere only by :meth:`set`.

    Args:
        tell: Is told once, from within the signal handler, that a stop was asked for.
    """

    def __init__(self, tell: Callable[[], None] | None = None) -> None:
        self._tell = tell
        self._event = threading.Event()
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask for a stop."""
        if not self._event.is_set():
            self._event.set()
            if self._tell is not None:
                self._tell()

    def wait(self, seconds: float) -> bool:
        """Wait until a stop is asked for, at most so long, and return whether it was."""
        return self._event.wait(seconds)

    def listen(self) -> None:
        """Take over the signals, also again after somebody else (Ray, when it starts) has taken them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.signal(number, self._handle)
            self._before.setdefault(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._event.is_set():
            self._give_back()
            raise KeyboardInterrupt
        self.set()

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
