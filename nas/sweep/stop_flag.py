"""Ctrl-C and SIGTERM as a flag: the first one asks for a clean stop, the second one is taken at its word."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """Set by SIGINT or SIGTERM while used as a context manager in the main thread; elsewhere only by :meth:`set`.

    The handler does nothing but set it: whatever the main thread was doing may be half done.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask for a stop."""
        self._event.set()

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
