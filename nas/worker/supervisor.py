"""The supervisor of ``nas run``: a light process that starts the search in a child process and continues it if it dies.

It alone receives the terminal's signals. Search and Ray run in a session of their own, so that a signal to the whole
process group reaches them in order: the search first, then Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas.errors import StoreError
from nas.host.interrupts import INTERRUPTED, SIGNALS, Requests, end_within, interrupt_on_signals
from nas.host.processes import describe_exit, die_with, end_session
from nas.jobs import DesiredState, Job, JobState
from nas.scratch import sweep_leftovers

_WATCHED = frozenset({*SIGNALS, signal.SIGCHLD})
_LONGEST_PAUSE = 60.0
_OTHERS_PAUSE = 30.0  # a worker leaves the job alone until the new child has loaded its modules
_PATIENCE_SECONDS = 60.0
_LOCKED_SECONDS, _LAST_SECONDS = 20, 10  # a locked database delays the last write
_SHOW_CURSOR = "\x1b[?25h"


@dataclass(frozen=True)
class Times:
    """Times in seconds of a supervisor.

    Args:
        grace: Time between SIGINT and SIGTERM.
        term: Time between SIGTERM and SIGKILL.
        idle: Time between SIGINT and SIGKILL for a child that has leased nothing and so can lose nothing.
        second: Time between the user's second request and SIGKILL.
        pause: Time between a first death and the next child; each death without progress doubles it.
    """

    grace: float = 20.0
    term: float = 3.0
    idle: float = 2.0
    second: float = 3.0
    pause: float = 1.0


@dataclass(frozen=True)
class Part:
    """The part of a command that a child process runs.

    Args:
        study_id: Id of the study to continue, because an earlier child died; None for the first child.
        hold: Function that receives the leased job of the search, so that the supervisor knows what to continue.
    """

    study_id: str | None = None
    hold: Callable[[Job], None] = lambda _job: None


def supervised(url: str, folders: tuple[Path, ...] = (), times: Times | None = None) -> Part:
    """Fork; return in the child, and leave the parent as its supervisor until the command ends.

    Call it before the process has threads. On a system without ``sigtimedwait`` there is no supervisor.

    Args:
        url: URL of the database.
        folders: Parent folders of temporary folders, besides the system's.
        times: Times of the stronger signals.

    Raises:
        SystemExit: In the parent, with the exit code of the command.
    """
    if not hasattr(signal, "sigtimedwait"):
        return Part()
    return _Supervisor(url, folders, times or Times()).run()


class _Supervisor:
    """The parent's part."""

    def __init__(self, url: str, folders: tuple[Path, ...], times: Times) -> None:
        self._url = url
        self._folders = folders
        self._times = times
        self._requests = Requests()
        self._told = b""

    def run(self) -> Part:
        """Start children until one ends the command; return in each child."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        study_id: str | None = None
        while True:
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._told = b""
            sys.stdout.flush()
            sys.stderr.flush()
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                return _child(parent, reader, writer, study_id)
            os.close(writer)
            code = self._await(pid, reader)
            held = self._held(reader)
            os.close(reader)
            end_session(pid)
            sweep_leftovers(self._folders)
            going = self._conclude(code, held)
            if isinstance(going, int):
                sys.exit(going)
            study_id = going

    def _held(self, reader: int) -> tuple[str, int] | None:
        """Return the id and the lease of the last job that the child held."""
        with suppress(BlockingIOError):
            while part := os.read(reader, 4096):
                self._told += part
        if not self._told:
            return None
        job_id, epoch = self._told.decode().splitlines()[-1].split()
        return job_id, int(epoch)

    def _await(self, pid: int, reader: int) -> int:
        """Wait for a child, and pass requests to stop on; return its exit code, negative for a signal."""
        steps: list[tuple[float, signal.Signals]] = []
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            due = [number for moment, number in steps if moment <= now]
            steps = [step for step in steps if step[0] > now]
            for number in due:
                if number is signal.SIGKILL:
                    end_session(pid)
                else:
                    os.kill(pid, number)
            if self._requests.count:
                import nas.store  # noqa: F401  loaded now, so that the end can be recorded at once
            pause = min((moment - now for moment, _ in steps), default=3600.0)
            found = signal.sigtimedwait(_WATCHED, pause)
            if found is not None and found.si_signo != signal.SIGCHLD and self._requests.new():
                if self._requests.count > 1:
                    end_within(_LAST_SECONDS)
                steps = self._steps(time.monotonic(), idle=self._held(reader) is None)

    def _steps(self, now: float, *, idle: bool) -> list[tuple[float, signal.Signals]]:
        times = self._times
        if self._requests.count == 1 and idle:
            return [(now, signal.SIGINT), (now + times.idle, signal.SIGKILL)]
        if self._requests.count == 1:
            term = now + times.grace
            return [(now, signal.SIGINT), (term, signal.SIGTERM), (term + times.term, signal.SIGKILL)]
        return [(now, signal.SIGTERM), (now + times.second, signal.SIGKILL)]

    def _conclude(self, code: int, held: tuple[str, int] | None) -> str | int:
        """Record the end of a child that did not do so itself.

        Args:
            code: Exit code of the child, negative for a signal.
            held: Id and lease of its job; None if it has leased none.

        Returns:
            Id of the study to continue, or the exit code of the command.
        """
        final = INTERRUPTED if self._requests.count and code != 0 else code
        if code == 0 or held is None:
            if code < 0:
                died = f"the process of the command ended with {describe_exit(code)}"
                _say("interrupted" if self._requests.count else died)
            return final if final >= 0 else 1
        patience = _PATIENCE_SECONDS if code < 0 else self._times.second  # the child itself may have lost the database
        if self._requests.count:
            patience = self._times.second / 2
            if self._requests.count == 1:
                end_within(_LOCKED_SECONDS)
        deadline = time.monotonic() + patience
        while True:
            try:
                going = self._settle(code, *held)
                signal.alarm(0)
                return final if going is None else going
            except StoreError as error:
                if time.monotonic() >= deadline:
                    if code != 1:  # otherwise the child has said what it met
                        _say(f"the end of the search could not be recorded: {error}")
                    return final if final > 0 else 1
                signal.sigtimedwait(SIGNALS, 1.0)

    def _settle(self, code: int, job_id: str, epoch: int) -> str | int | None:
        """Record the end of the job, unless it is recorded; return as :meth:`_conclude`, and None in that case."""
        from nas.store import Store

        with Store.open(self._url, upgrade=False, create=False) as store:
            job = store.job(job_id)
            if job.state is not JobState.RUNNING or job.epoch != epoch:
                return None
            assert job.study_id is not None
            _restore_terminal()
            name = store.study(job.study_id).name
            if self._requests.count or code == INTERRUPTED:
                ended = store.finish_job(job_id, epoch, JobState.CANCELLED)
                return _say_ended(name, ended)
            reason = f"the process of the search ended with {describe_exit(code)}"
            given = store.retry_job(job_id, epoch, reason, pause=_OTHERS_PAUSE)
            if given.state is JobState.CANCELLED:  # the end was requested elsewhere
                return _say_ended(name, given)
            if given.state is not JobState.QUEUED:
                _say(f"study {name} failed: {given.error}")
                return 1
            pause = min(_LONGEST_PAUSE, self._times.pause * 2.0 ** (job.attempt - 1))
            _say(f"{reason}; it continues from its last epochs in {pause:.0f} s")
            if signal.sigtimedwait(SIGNALS, pause) is None:
                return job.study_id
            return _say_ended(name, store.request_job(job_id, DesiredState.PAUSED))


def _child(parent: int, reader: int, writer: int, study_id: str | None) -> Part:
    os.close(reader)
    os.setsid()
    interrupt_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    die_with(parent, signal.SIGKILL)
    return Part(study_id, lambda job: _tell_held(writer, job))


def _tell_held(writer: int, job: Job) -> None:
    os.write(writer, f"{job.id} {job.epoch}\n".encode())


def _say_ended(name: str, job: Job) -> int:
    if job.state is JobState.FINISHED:  # the request came when the search had just ended
        _say(f"study {name} is finished; see the results with: nas pareto {name}")
        return 0
    if job.desired is DesiredState.STOPPED:
        _say(f"stopped for good; see the results with: nas pareto {name}")
    else:
        _say(f"paused; continue with: nas run --resume {name}")
    return INTERRUPTED


def _restore_terminal() -> None:
    """Show the cursor that the display of a killed child has hidden."""
    if sys.stdout.isatty():
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()


def _say(message: str) -> None:
    print(f"nas: {message}", file=sys.stderr, flush=True)
