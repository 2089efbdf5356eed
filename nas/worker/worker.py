"""The worker: leases jobs and runs each in a supervised process of its own.

Run as ``python -m nas.worker``; with ``--job`` and ``--epoch`` it is the child that runs one job. The worker itself
loads no torch. A job's process that crashes costs its job only; a worker that dies costs nothing, because its
children die with it, their leases expire, and the next worker goes on from the tables.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.errors import NasError, NotFoundError, StaleLease, StoreError
from nas.jobs import DesiredState, Job, JobKind, JobState
from nas.settings import Settings
from nas.store import Store
from nas.worker.lease import HEARTBEAT_SECONDS, LEASE_SECONDS, worker_name
from nas.worker.runner import die_with_parent, run_job

log = logging.getLogger(__name__)

_LOG_LINES = 20
_LOG_BYTES = 8000
_TERM_SECONDS = 3.0


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works.

    Args:
        runs: Folder of the jobs' logs, made when needed.
        slots: Kinds of jobs that share one place, and how many run at once there. An export need not wait for hours
            of search, but two searches would share the machine's cores.
        lease_seconds: Until a dead worker's jobs go to another.
        poll_seconds: Between looks at the queue and the children.
        grace_seconds: That a job gets to stop cleanly after SIGINT, before SIGTERM and SIGKILL.
    """

    runs: Path = Path("nas-runs")
    slots: Mapping[tuple[JobKind, ...], int] = field(
        default_factory=lambda: {(JobKind.SEARCH,): 1, (JobKind.EXPORT,): 1}
    )
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 0.25
    grace_seconds: float = 20.0


class Worker:
    """Leases jobs and supervises their processes, all from the thread that calls :meth:`run`.

    Args:
        store: Where the jobs are.
        settings: Passed on to the jobs, in the environment.
        options: How it works.
    """

    def __init__(self, store: Store, settings: Settings, options: WorkerOptions | None = None) -> None:
        self._store = store
        self._settings = settings
        self._options = options or WorkerOptions()
        self._name = worker_name()
        self._children: list[_Child] = []

    def run(self, stop: threading.Event, *, once: bool = False) -> None:
        """Work until ``stop`` is set, or with ``once`` until no job is left.

        On the way out running jobs are stopped cleanly and given back, for the next worker to continue.
        """
        log.info("worker %s takes jobs from %s", self._name, self._store.url)
        try:
            while not stop.is_set():
                idle = self._fill() and not self._children
                if once and idle:
                    return
                self._tend(stopping=False)
                stop.wait(self._options.poll_seconds)
        finally:
            self._shut_down()

    def _fill(self) -> bool:
        """Lease jobs for the free slots; return False if the database could not be asked."""
        for kinds, places in self._options.slots.items():
            while sum(child.job.kind in kinds for child in self._children) < places:
                try:
                    job = self._store.lease_job(self._name, kinds=kinds, seconds=self._options.lease_seconds)
                except StoreError as error:
                    log.warning("no jobs could be looked for, trying on: %s", error)
                    return False
                if job is None:
                    break
                self._start(job)
        return True

    def _start(self, job: Job) -> None:
        try:
            self._children.append(_Child(job, self._settings, self._options))
        except OSError as error:
            log.exception("job %s could not be started", job.id)
            reason = f"its process could not be started: {error}"
            self._store.finish_job(job.id, job.epoch, JobState.FAILED, error=reason)
            return
        log.info("%s runs as process %d", _title(job), self._children[-1].pid)

    def _tend(self, *, stopping: bool) -> None:
        for child in list(self._children):
            try:
                if child.ended:
                    self._settle(child, stopping=stopping)
                    self._children.remove(child)
                    continue
                self._renew(child)
            except (StaleLease, NotFoundError) as error:  # taken over, or deleted with its study
                log.warning("%s; its process is killed", error)
                child.kill()
                self._children.remove(child)
                continue
            except StoreError as error:
                log.warning("job %s: the database could not be told, trying on: %s", child.job.id, error)
            child.press()

    def _renew(self, child: _Child) -> None:
        if not child.renewal_is_due():
            return
        try:
            job = self._store.heartbeat(child.job.id, child.job.epoch, self._options.lease_seconds)
        except StaleLease:
            job = self._store.job(child.job.id)
            if job.epoch != child.job.epoch or not job.state.ended:
                raise
            child.dismiss()  # it has recorded its end and is on its way out
            return
        if job.desired is DesiredState.STOPPED and not child.asked:
            log.info("%s is to stop", _title(job))
            child.ask()

    def _settle(self, child: _Child, *, stopping: bool) -> None:
        """Record how a job ended whose process did not do so itself."""
        job, code = self._store.job(child.job.id), child.code
        log.info("%s: its process ended with %s", _title(job), describe_exit(code))
        if job.state is not JobState.RUNNING or job.epoch != child.job.epoch:
            return
        if stopping and job.desired is DesiredState.RUNNING:
            self._store.release_job(job.id, job.epoch)
        elif code == 0 or child.asked:
            self._store.finish_job(job.id, job.epoch, JobState.CANCELLED)
        else:
            reason = f"the process of the {job.kind.value} ended with {describe_exit(code)}"
            tail = child.last_lines()
            error = f"{reason}; the last lines of its log:\n{tail}" if tail else f"{reason}; its log is empty"
            self._store.finish_job(job.id, job.epoch, JobState.FAILED, error=error)

    def _shut_down(self) -> None:
        deadline = time.monotonic() + self._options.grace_seconds + 2 * _TERM_SECONDS + 1
        for child in self._children:
            child.ask()
        while self._children and time.monotonic() < deadline:
            self._tend(stopping=True)
            time.sleep(min(self._options.poll_seconds, 0.1))
        for child in self._children:  # the database does not answer: their leases expire
            child.kill()


def _title(job: Job) -> str:
    """Name a job as people find it: by the beginnings of ids that `nas studies` and the logs' names show."""
    study = f" of study {job.study_id[:8]}" if job.study_id else ""
    return f"{job.kind.value} {job.id[:8]}{study}"


class _Child:
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
        # From the id and the epoch only, so that no request can name a path.
        self._log = options.runs / f"{uuid.UUID(job.id)}.{int(job.epoch)}.log"
        command = [sys.executable, "-m", "nas.worker", "--job", job.id, "--epoch", str(job.epoch)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closed by this process's death: see die_with_parent()
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(settings),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int:
        assert self._process.returncode is not None
        return self._process.returncode

    @property
    def ended(self) -> bool:
        if self._process.poll() is None:
            return False
        if self._process.stdin is not None:
            self._process.stdin.close()
        return True

    def renewal_is_due(self) -> bool:
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
        """Let the process end in its own time, which is as long as that of one that was asked to."""
        self._done = self.asked = True
        self._asked_at = time.monotonic()

    def press(self) -> None:
        """Be less polite to a process that was asked long ago."""
        if not self.asked or self._process.poll() is not None:
            return
        waited = time.monotonic() - self._asked_at - self._options.grace_seconds
        if waited > _TERM_SECONDS:
            self.kill()
        elif waited > 0 and not self._told:
            self._told = True
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and those it started in its session's group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def last_lines(self) -> str:
        with self._log.open("rb") as stream:
            stream.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
            text = stream.read().decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_LOG_LINES:])


def _environment(settings: Settings) -> dict[str, str]:
    """Return a job's environment: settings travel here and not as arguments, which every user of a machine can read."""
    environment = {key: value for key, value in os.environ.items() if key != "NAS_TOKEN"}
    environment["NAS_DATABASE_URL"] = settings.database_url
    environment["NAS_STORAGE"] = settings.storage
    environment["NAS_DATA_ROOTS"] = os.pathsep.join(str(root) for root in settings.data_roots)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONFAULTHANDLER"] = "1"  # a crash in native code leaves its stack in the log
    return environment


def describe_exit(code: int) -> str:
    """Return ``exit code 3`` or, for a negative one, the signal's name."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def run_worker(
    settings: Settings, *, once: bool = False, stop: threading.Event | None = None, options: WorkerOptions | None = None
) -> None:
    """Open the store and work; see :meth:`Worker.run`.

    Raises:
        StoreError: If the database cannot be opened.
    """
    with Store.open(settings.database_url) as store:
        Worker(store, settings, options).run(stop or threading.Event(), once=once)


def _work(settings: Settings, options: WorkerOptions, *, once: bool) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_worker(settings, once=once, stop=stop, options=options)


def main(arguments: list[str] | None = None) -> int:
    """Run a worker, or with ``--job`` the one job of a child."""
    parser = argparse.ArgumentParser(prog="python -m nas.worker", description="Runs the jobs of a store.")
    parser.add_argument("--once", action="store_true", help="end when no job is left")
    parser.add_argument("--runs", type=Path, default=WorkerOptions().runs, help="folder of the jobs' logs")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--epoch", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # else two lines for each look at the schema
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    settings = Settings()
    try:
        if given.job is None:
            _work(settings, WorkerOptions(runs=given.runs), once=given.once)
            return 0
        die_with_parent()
        with Store.open(settings.database_url, upgrade=False) as store:
            return run_job(store, settings, given.job, given.epoch)
    except NasError as error:
        log.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
