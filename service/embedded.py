"""The embedded worker: a child process beside the API, restarted when it dies, stopped with the service.

The API's process never runs a job itself. The child leaves the terminal's process group, so that Ctrl-C reaches it only
through :meth:`EmbeddedWorker.stop`. If the service is killed, the kernel ends the child (Linux).
"""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from nas.host.interrupts import interrupt_on_signals
from nas.host.processes import die_with

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
HEALTHY_SECONDS = 60.0
TERM_SECONDS = 5.0


class EmbeddedWorker:
    """Keeps one worker process alive.

    Args:
        command: Command to run; the worker's own module by default.
        environment: Environment of the child.
        stop_seconds: Time in seconds for the child to stop before it is killed.
        first_pause: Pause in seconds before the first restart; it doubles with each crash in a row.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        command: Sequence[str] | None = None,
        stop_seconds: float = 30.0,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._environment = dict(environment)
        self._command = list(command or (sys.executable, "-m", "service.embedded"))
        self._stop_seconds = stop_seconds
        self._first_pause = first_pause
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ends the child when the *thread* that started it ends, so a permanent thread starts it.
        self._thread = threading.Thread(target=self._supervise, name="embedded-worker", daemon=True)

    @property
    def state(self) -> str:
        """State of the worker: ``running``, ``restarting`` or ``off``."""
        if self._stopping.is_set():
            return "off"
        process = self._process
        return "running" if process is not None and process.poll() is None else "restarting"

    @property
    def pid(self) -> int | None:
        """Process id of the present child, if there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the child and its supervision."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt the child and wait for it; kill it if it takes too long."""
        self._stopping.set()
        self._thread.join()

    def _supervise(self) -> None:
        pause = self._first_pause
        while not self._stopping.is_set():
            began = time.monotonic()
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
            while self._process.poll() is None and not self._stopping.wait(0.1):
                pass
            if self._stopping.is_set():
                break
            if time.monotonic() - began > HEALTHY_SECONDS:
                pause = self._first_pause
            log.warning("the worker ended with %s; restarting in %.0f s", self._process.returncode, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if self._process is not None:
            self._end(self._process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        steps = ((signal.SIGINT, self._stop_seconds), (signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, TERM_SECONDS))
        for number, seconds in steps:
            if process.poll() is not None:
                return
            process.send_signal(number)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                log.warning("the worker did not stop on %s within %.0f s", number.name, seconds)


def main() -> None:
    """Tie this process's life to its parent's, then become the worker."""
    interrupt_on_signals()
    die_with(os.getppid(), signal.SIGTERM)
    sys.argv = ["nas.worker"]
    runpy.run_module("nas.worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
