"""Ctrl-C and SIGTERM as a flag: the first signal requests a clean stop, the second one interrupts at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """A flag that SIGINT or SIGTERM sets inside the block in the main thread; in other threads only :meth:`set` does.

    The handler only sets the flag: any work of the main thread may be half done.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
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
