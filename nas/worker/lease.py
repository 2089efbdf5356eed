"""Running a search in the user's own process under a lease, as a worker's child does."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nas.errors import LeaseInDoubt, StaleLease, StoreError, StoreLost, explain
from nas.jobs import DesiredState, Job, JobState
from nas.store import Store
from nas.study import PAUSED_ON_REQUEST, StudyState
from nas.worker.holder import is_gone, worker_name

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.5


@contextmanager
def held_search(
    store: Store, study_id: str, *, seconds: float = LEASE_SECONDS, hold: Callable[[Job], None] = lambda _job: None
) -> Iterator[Store]:
    """Hold the lease of a study's search while the body runs it in this process.

    No worker takes the study meanwhile. If this process dies, a worker does; on the same machine, a call of this
    function takes it at once. A pause or stop that is requested elsewhere arrives as SIGINT. At the end the state of
    the job follows from the state of the study.

    Args:
        store: Store of the study.
        study_id: Id of the study.
        seconds: Time in seconds until the lease expires if this process dies.
        hold: Function that receives the leased job.

    Yields:
        The store, fenced by the lease, to pass to ``run_search``.

    Raises:
        ConflictError: If another process is searching the study.
    """
    job = _take(store, study_id, seconds)
    hold(job)
    try:
        with beating(store, job, seconds):
            yield store.fenced(job.id, job.epoch)
    except BaseException as error:
        _close(store, job, error)
        raise
    _close(store, job, None)


@contextmanager
def beating(store: Store, job: Job, seconds: float) -> Iterator[None]:
    """Renew the lease of a job inside the block; a pause or stop that is requested elsewhere arrives as SIGINT.

    Args:
        store: Store of the job.
        job: Job that this process has leased.
        seconds: Time in seconds until the lease expires if this process dies.
    """
    done = _End()
    pulse = threading.Thread(target=_beat, args=(store, job, seconds, done), name="lease", daemon=True)
    pulse.start()
    try:
        yield
        done.set()  # here, because a request that comes now still interrupts
    finally:
        done.set()
        pulse.join()


def doubt_seconds(seconds: float) -> float:
    """Return for how long a lease of ``seconds`` must be seen expired before it is taken over: ten heartbeats."""
    return min(10 * HEARTBEAT_SECONDS, seconds / 3)


def _take(store: Store, study_id: str, seconds: float) -> Job:
    """Lease the search of a study; wait while it is in doubt whether its holder lives."""
    while True:
        store.expire_leases(is_gone)
        try:
            return store.hold_search(study_id, worker_name(), seconds=seconds, doubt=doubt_seconds(seconds))
        except LeaseInDoubt as error:
            log.info("%s", error)
            time.sleep(_LOOK_SECONDS)


class _End:
    """The end of a search, after which no request interrupts this process: nothing would expect the signal."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()

    def set(self) -> None:
        """End the requests; one that is under way arrives before this method returns."""
        with self._lock:
            self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; return whether it has come."""
        return self._event.wait(seconds)

    def interrupt(self) -> None:
        """Interrupt the search of this process, unless it has ended."""
        with self._lock:
            if not self._event.is_set():
                os.kill(os.getpid(), signal.SIGINT)


def _beat(store: Store, job: Job, seconds: float, done: _End) -> None:
    asked = False
    while not done.wait(min(HEARTBEAT_SECONDS, seconds / 3)):
        try:
            desired = store.heartbeat(job.id, job.epoch, seconds).desired
        except (StaleLease, StoreLost) as error:
            log.warning("the lease is lost, so the search stops: %s", error)  # which ends with this error itself
            done.interrupt()
            return
        except StoreError as error:
            log.warning("the lease could not be renewed, trying again: %s", error)
            continue
        if desired is not DesiredState.RUNNING and not asked:
            asked = True
            done.interrupt()


def _close(store: Store, job: Job, error: BaseException | None) -> None:
    assert job.study_id is not None
    try:
        study = store.study(job.study_id)
        if study.state is StudyState.PAUSED and study.reason != PAUSED_ON_REQUEST:
            store.pause_job(job.id, job.epoch, study.reason or explain(error))
            return
        state = JobState.CANCELLED
        if error is not None and isinstance(error, Exception):
            state = JobState.FAILED
        elif study.state is StudyState.FINISHED:
            state = JobState.FINISHED
        store.finish_job(job.id, job.epoch, state, error=explain(error) if state is JobState.FAILED else None)
    except StaleLease:
        log.warning("job %s went to another process; nothing was written", job.id)
    except StoreError as problem:
        if error is None:
            raise
        log.warning("the end of job %s could not be written: %s", job.id, problem)  # what ended it is the reason
