"""The process of one job, as its worker sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType

from nas.host.interrupts import signals_kept
from nas.host.processes import end_session
from nas.jobs import Job
from nas.scratch import sweep_leftovers
from nas.settings import Settings
from nas.sweep.cluster import socket_base
from nas.worker.lease import HEARTBEAT_SECONDS
from nas.worker.options import WorkerOptions

_LOG_LINES = 20
_LOG_BYTES = 8000
TERM_SECONDS = 3.0
_OUTPUT: Mapping[str, str] = MappingProxyType(
    {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}  # a crash in native code leaves its stack in the log
)


class Child:
    """The process of one job, in a session of its own, writing to its own log."""

    def __init__(self, job: Job, settings: Settings, options: WorkerOptions) -> None:
        self.job = job
        self.asked = False
        self._told = False
        self._done = False
        self._options = options
        self._asked_at = 0.0
        self._renewed_at = time.monotonic()
        options.runs.mkdir(parents=True, exist_ok=True)
        # The path depends on the id and the epoch only, so that no request can choose a path.
        self._log = options.runs / f"{uuid.UUID(job.id)}.{int(job.epoch)}.log"
        command = [*options.command, "--job", job.id, "--epoch", str(job.epoch)]
        with self._log.open("ab") as output, signals_kept():
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closes when this process dies: see die_with_parent()
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**settings.environment(), **_OUTPUT},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def code(self) -> int:
        """Exit code of the ended process; negative for a signal."""
        assert self._process.returncode is not None
        return self._process.returncode

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        if self._process.poll() is None:
            return False
        self._clear()
        return True

    def _clear(self) -> None:
        """Close the pipe to an ended process, and end its remaining processes and folders; once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            end_session(self._process.pid)
            sweep_leftovers([socket_base()])

    def renewal_is_due(self) -> bool:
        """Return whether the lease should be renewed now."""
        now = time.monotonic()
        if self._done or now - self._renewed_at < min(HEARTBEAT_SECONDS, self._options.lease_seconds / 3):
            return False
        self._renewed_at = now
        return True

    def ask(self) -> None:
        """Ask the process to stop, by SIGINT."""
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
            self._process.send_signal(signal.SIGINT)

    def dismiss(self) -> None:
        """Let the process end by itself, within the time that a process has after a request to stop."""
        self._done = self.asked = True
        self._asked_at = time.monotonic()

    def press(self) -> None:
        """Send a stronger signal to a process that received its request to stop long ago."""
        if not self.asked or self._process.poll() is not None:
            return
        waited = time.monotonic() - self._asked_at - self._options.grace_seconds
        if waited > TERM_SECONDS:
            self.kill()
        elif waited > 0 and not self._told:
            self._told = True
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and those that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._clear()

    def last_lines(self) -> str:
        """Return the last lines of the log, for messages."""
        with self._log.open("rb") as stream:
            stream.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
            text = stream.read().decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_LOG_LINES:])
