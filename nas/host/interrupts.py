"""SIGINT, SIGTERM and SIGHUP as one request to stop, for commands and for the processes of jobs. Loads nothing."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_REQUEST_SECONDS = 1.0
INTERRUPTED = 130
_LAST_SECONDS = 8
_IMPORT_POLL_SECONDS = 0.01


class Requests:
    """Counts the requests to stop. Signals that arrive together are one: ``timeout`` and systemd send several."""

    def __init__(self) -> None:
        self._last: float | None = None
        self.count = 0

    def new(self) -> bool:
        """Count a signal that has just arrived; return whether it is a new request."""
        now = time.monotonic()
        if self._last is not None and now - self._last < ONE_REQUEST_SECONDS:
            return False
        self._last = now
        self.count += 1
        return True


class _Interrupter:
    """Raises KeyboardInterrupt for a request, but not in the middle of an import.

    A native module that is interrupted during its import fails with a misleading error, so the exception waits for the
    end of the import, or for the start of the next one: between two of them is less time than between two looks. A
    second request ends the process at once during an import, and within seconds otherwise.
    """

    def __init__(self) -> None:
        self._requests = Requests()
        self._waits = False

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        if not self._requests.new():
            return
        if self._requests.count > 1:
            if _imports(frame):
                os._exit(INTERRUPTED)
            self._forget()
            end_within(_LAST_SECONDS)
            raise KeyboardInterrupt
        if not _imports(frame):
            raise KeyboardInterrupt
        self._waits = True
        signal.signal(signal.SIGALRM, self._look)
        atexit.register(self._forget)
        sys.meta_path.insert(0, self)
        signal.setitimer(signal.ITIMER_REAL, _IMPORT_POLL_SECONDS, _IMPORT_POLL_SECONDS)

    def _look(self, _number: int, frame: FrameType | None) -> None:
        if not _imports(frame):
            self._raise()

    def find_spec(self, _name: str, _path: object = None, _target: object = None) -> None:
        """Raise KeyboardInterrupt if an import starts that no other import needs; leave all else to other finders."""
        if threading.current_thread() is not threading.main_thread():
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _is_import(frame):
            frame = frame.f_back
        if not _imports(frame):
            self._raise()

    def _raise(self) -> None:
        if self._waits:
            self._forget()
            raise KeyboardInterrupt

    def _forget(self) -> None:
        """Disarm the timer, also at the end of the process, where no handler would catch its signal."""
        if self._waits:
            self._waits = False
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            signal.setitimer(signal.ITIMER_REAL, 0)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if _is_import(frame):
            return True
        frame = frame.f_back
    return False


def _is_import(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<frozen importlib")


def interrupt_on_signals() -> None:
    """Make each of the signals raise KeyboardInterrupt in this process, also if its parent ignores them.

    See :func:`heard_signals` for the exception.
    """
    interrupter = _Interrupter()
    for number in heard_signals():
        signal.signal(number, interrupter)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep the signals for processes that are started inside the block, until they call :func:`interrupt_on_signals`.

    A new Python process has no handler yet. It would ignore SIGINT if a shell has started its parent in the background.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_on_signals(stop: threading.Event) -> None:
    """Make the first request set an event, and the second one raise KeyboardInterrupt; the process then ends soon."""
    requests = Requests()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not requests.new():
            return
        stop.set()
        if requests.count > 1:
            end_within(_LAST_SECONDS)
            raise KeyboardInterrupt

    for number in heard_signals():
        signal.signal(number, handle)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Yield an event that the first request to stop sets inside the block; see :func:`stop_on_signals`.

    Handlers of before return afterwards. Outside of the main thread, which alone receives signals, nothing sets it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in heard_signals()}
    stop_on_signals(stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def heard_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that request a stop.

    A shell starts commands in the background with SIGINT ignored, and ``nohup`` ignores SIGHUP. Only the latter is a
    wish of the user, so it stays ignored.
    """
    return tuple(n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN)


def end_within(seconds: int) -> None:
    """Make the kernel end this process after a time, even if it hangs in native code."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def say_interrupted() -> int:
    """Print that the command was interrupted; return its exit code."""
    print("nas: interrupted", file=sys.stderr)
    return INTERRUPTED
