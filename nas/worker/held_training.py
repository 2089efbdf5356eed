"""Running a training in the user's own process under a lease, as a worker's child does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nas.definition.requested_training import RequestedTraining
from nas.errors import LeaseInDoubt, StaleLease, StoreError, explain
from nas.jobs import Job, JobState
from nas.store import Store
from nas.trainings import Training, TrainingState
from nas.worker.holder import is_gone, worker_name
from nas.worker.lease import LEASE_SECONDS, beating, doubt_seconds

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


def submit_held(store: Store, wanted: RequestedTraining) -> tuple[Training, Job]:
    """Create a training that this process holds, so that no worker takes it."""
    training = store.submit_training(wanted, hold=(worker_name(), LEASE_SECONDS))
    assert training.job_id is not None
    return training, store.job(training.job_id)


def take_over(store: Store, ref: str) -> tuple[Training, Job]:
    """Lease a training that waits, has stopped or has failed; wait while it is in doubt whether its holder lives.

    Raises:
        NotFoundError: If there is no such training.
        ConflictError: If it has finished, or another process holds it.
    """
    while True:
        store.expire_leases(is_gone)
        try:
            return store.hold_training(
                ref, worker_name(), seconds=LEASE_SECONDS, doubt=doubt_seconds(LEASE_SECONDS)
            )
        except LeaseInDoubt as error:
            log.info("%s", error)
            time.sleep(_LOOK_SECONDS)


@contextmanager
def held_training(store: Store, training: Training, job: Job) -> Iterator[Store]:
    """Hold a leased training while the body runs it in this process; the end of its job follows.

    A stop that is requested elsewhere arrives as SIGINT.

    Args:
        store: Store of the training.
        training: Training to run.
        job: Its job, which this process has leased.

    Yields:
        The store, fenced by the lease.
    """
    try:
        with beating(store, job, LEASE_SECONDS):
            yield store.fenced(job.id, job.epoch)
    except BaseException as error:
        _close(store, training, job, error)
        raise
    _close(store, training, job, None)


def _close(store: Store, training: Training, job: Job, error: BaseException | None) -> None:
    try:
        if store.training(training.id).state is TrainingState.FINISHED:
            state = JobState.FINISHED
        else:
            state = JobState.FAILED if isinstance(error, Exception) else JobState.CANCELLED
        reason = explain(error) if state is JobState.FAILED else None
        store.finish_job(job.id, job.epoch, state, result={"training": training.id}, error=reason)
    except StaleLease:
        log.warning("job %s went to another process; nothing was written", job.id)
    except StoreError as problem:
        if error is None:
            raise
        log.warning("the end of job %s could not be written: %s", job.id, problem)  # what ended it is the reason
