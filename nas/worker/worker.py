"""The worker: it leases jobs and runs each in a supervised process of its own.

`nas worker` starts it; `python -m nas.worker` with `--job` and `--epoch` runs the child process of one job. The
worker itself loads no torch. A job whose process dies is started again, unless it always dies without progress. The
death of a worker costs nothing: its children die with it, their leases end, and the next worker continues from the
tables.
"""

from __future__ import annotations

import logging
import threading
import time

from nas.artifacts import Artifacts
from nas.errors import NotFoundError, StaleLease, StoreError, StoreLost
from nas.host.interrupts import INTERRUPTED, stop_on_signals
from nas.host.processes import describe_exit
from nas.host.room import ROOM_SECONDS, is_disk_fault
from nas.housekeeping.stopped import discard_if_stopped
from nas.jobs import DesiredState, Job, JobState
from nas.scratch import sweep_leftovers
from nas.settings import Settings
from nas.store import Store
from nas.sweep.cluster import socket_base
from nas.worker.child import TERM_SECONDS, Child
from nas.worker.holder import is_gone, worker_name
from nas.worker.lease import doubt_seconds
from nas.worker.options import WorkerOptions

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


class Worker:
    """Leases jobs and supervises their processes; all of this runs in the thread that calls :meth:`run`.

    Args:
        store: Store of the jobs.
        settings: Settings that the jobs receive in their environment.
        options: Slots, times and folder of the logs.
    """

    def __init__(self, store: Store, settings: Settings, options: WorkerOptions | None = None) -> None:
        self._store = store
        self._settings = settings
        self._options = options or WorkerOptions()
        self._name = worker_name()
        self._children: list[Child] = []
        self._retried: set[str] = set()
        self._looked_at = -_LOOK_SECONDS

    def run(self, stop: threading.Event, *, once: bool = False) -> None:
        """Work until ``stop`` is set; with ``once``, until no job is left.

        At the end, running jobs are stopped cleanly and handed back, so that the next worker can continue them.
        """
        log.info("worker %s takes jobs from %s", self._name, self._store.url)
        try:
            while not stop.is_set():
                idle = self._fill() and not self._children
                if once and idle and not self._some_wait():
                    return
                self._tend(stopping=False)
                stop.wait(self._options.poll_seconds)
        finally:
            self._shut_down()

    def _fill(self) -> bool:
        """Lease jobs for the free slots; return False if the database does not answer."""
        for kinds, places in self._options.slots.items():
            while sum(child.job.kind in kinds for child in self._children) < places:
                try:
                    self._release_dead()
                    seconds = self._options.lease_seconds
                    doubt = doubt_seconds(seconds)
                    job = self._store.lease_job(self._name, kinds=kinds, seconds=seconds, doubt=doubt)
                except StoreLost:
                    raise
                except StoreError as error:
                    log.warning("the queue could not be read, trying again: %s", error)
                    return False
                if job is None:
                    break
                self._start(job)
        return True

    def _some_wait(self) -> bool:
        """Return whether jobs wait whose processes died here."""
        jobs = self._store.jobs() if self._retried else []
        return any(job.id in self._retried and job.state is JobState.QUEUED for job in jobs)

    def _release_dead(self) -> None:
        """End the leases of processes that died on this machine, from time to time."""
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        for job in self._store.expire_leases(is_gone):
            log.info("%s was held by %s, which is dead", _title(job), job.worker)

    def _start(self, job: Job) -> None:
        try:
            self._children.append(Child(job, self._settings, self._options))
        except OSError as error:
            log.exception("job %s could not be started", job.id)
            reason = f"its process could not be started: {error}"
            if is_disk_fault(error):
                self._store.pause_job(job.id, job.epoch, reason, again=ROOM_SECONDS)
                return
            self._retry(job, reason, reason)
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
            except (StaleLease, NotFoundError) as error:  # another worker took it, or it was deleted with its study
                log.warning("%s; its process is killed", error)
                child.kill()
                self._children.remove(child)
                continue
            except StoreError as error:
                if isinstance(error, StoreLost) and not stopping:
                    raise
                log.warning("job %s: the database does not answer, trying again: %s", child.job.id, error)
            child.press()

    def _renew(self, child: Child) -> None:
        if not child.renewal_is_due():
            return
        try:
            job = self._store.heartbeat(child.job.id, child.job.epoch, self._options.lease_seconds)
        except StaleLease:
            job = self._store.job(child.job.id)
            if job.epoch != child.job.epoch or not job.state.ended:
                raise
            child.dismiss()  # it has recorded its end and is about to exit
            return
        if job.desired is not DesiredState.RUNNING and not child.asked:
            log.info("%s was requested to be %s", _title(job), job.desired.value)
            child.ask()

    def _settle(self, child: Child, *, stopping: bool) -> None:
        """Record the end of a job whose process did not do so."""
        job, code = self._store.job(child.job.id), child.code
        log.info("%s: its process ended with %s", _title(job), describe_exit(code))
        if job.state is not JobState.RUNNING or job.epoch != child.job.epoch:
            return
        if stopping and job.desired is DesiredState.RUNNING:
            self._store.release_job(job.id, job.epoch)
        elif code in (0, INTERRUPTED) or child.asked:
            self._store.finish_job(job.id, job.epoch, JobState.CANCELLED)
            self._discard_if_stopped(job)
        else:
            reason = f"the process of the {job.kind.value} ended with {describe_exit(code)}"
            tail = child.last_lines()
            error = f"{reason}; the last lines of its log:\n{tail}" if tail else f"{reason}; its log is empty"
            self._retry(job, reason, error)

    def _discard_if_stopped(self, job: Job) -> None:
        if job.study_id is not None:
            discard_if_stopped(self._store, Artifacts(self._settings.storage), job.study_id)

    def _retry(self, job: Job, reason: str, error: str) -> None:
        self._retried.add(job.id)
        given = self._store.retry_job(job.id, job.epoch, error, pause=self._options.retry_seconds)
        self._discard_if_stopped(job)
        log.warning("%s: %s; it is %s", _title(job), reason, given.state.value)

    def _shut_down(self) -> None:
        """Stop the running jobs cleanly; kill those that take too long, and all of them at a second signal."""
        deadline = time.monotonic() + self._options.grace_seconds + 2 * TERM_SECONDS + 1
        try:
            for child in self._children:
                child.ask()
            while self._children and time.monotonic() < deadline:
                self._tend(stopping=True)
                time.sleep(min(self._options.poll_seconds, 0.1))
        finally:
            for child in self._children:
                child.kill()
            self._hand_back()

    def _hand_back(self) -> None:
        """Record the end of killed children; without an answer of the database, their leases expire."""
        for child in self._children:
            try:
                self._settle(child, stopping=True)
            except (StaleLease, NotFoundError, StoreError) as error:
                log.warning("job %s could not be handed back: %s", child.job.id, error)


def _title(job: Job) -> str:
    """Return the job's name with the short ids that `nas studies` and the names of the logs show."""
    study = f" of study {job.study_id[:8]}" if job.study_id else ""
    return f"{job.kind.value} {job.id[:8]}{study}"


def run_worker(
    settings: Settings, *, once: bool = False, stop: threading.Event | None = None, options: WorkerOptions | None = None
) -> None:
    """Open the store and work; see :meth:`Worker.run`.

    Raises:
        StoreError: If the database cannot be opened.
    """
    sweep_leftovers([socket_base()])
    # A worker that is started again after the loss of an SQLite file must not put an empty one in its place.
    with Store.open(settings.database_url, create=False) as store:
        Worker(store, settings, options).run(stop or threading.Event(), once=once)


def work_until_signal(settings: Settings, *, once: bool = False, options: WorkerOptions | None = None) -> None:
    """Work until SIGINT, SIGTERM or SIGHUP. Call it in the main thread of a process of its own.

    The first signal stops and hands back the running jobs cleanly; a second one kills them.

    Raises:
        StoreError: If the database cannot be opened.
        KeyboardInterrupt: At the second signal.
    """
    stop = threading.Event()
    stop_on_signals(stop)
    run_worker(settings, once=once, stop=stop, options=options)
