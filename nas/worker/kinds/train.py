"""Jobs of kind ``train``: the training of one network, as one or several processes, here or on a Ray cluster."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from nas.artifacts import Artifacts
from nas.errors import ClusterFault, InputError, JobError
from nas.host.interrupts import INTERRUPTED
from nas.host.processes import describe_exit
from nas.host.room import ROOM_SECONDS, lack_of_room
from nas.jobs import Job, JobState, Result
from nas.settings import LOCAL_RAY, Settings
from nas.store import Store
from nas.training.files import FOLDER, working_folder
from nas.training.processes import run_processes
from nas.trainings import Training, TrainingState
from partialnet.train.launching import launched

if TYPE_CHECKING:
    from nas.worker.training_run import Display

log = logging.getLogger(__name__)


def run(store: Store, job: Job, settings: Settings) -> Result | None:
    """Train the network of a job; return None if it was interrupted, which the worker then explains.

    A training that lacks room on a disk waits, and continues when there is room; one whose Ray cluster is away waits
    for it.

    Raises:
        InputError: If the payload names no training.
        JobError: If one of several processes fails without a reason.
    """
    name = job.payload.get("training")
    if not isinstance(name, str):
        raise InputError(f"a job of kind train needs a training, but got {dict(job.payload)!r}")
    training = store.training(name)
    if training.state is TrainingState.FINISHED:  # its process died between the result and its end
        return _done(training)
    if launched():  # its parent tells of the end
        _train(store, job, training, settings)
        return None
    full = lack_of_room(settings.storage)
    if full is not None:
        store.pause_job(job.id, job.epoch, full, again=ROOM_SECONDS)
        return None
    try:
        train_leased(store, job, training, settings)
    except ClusterFault as error:
        store.pause_job(job.id, job.epoch, str(error), again=ROOM_SECONDS)
        return None
    training = store.training(name)
    return _done(training) if training.state is TrainingState.FINISHED else None


def train_leased(
    store: Store, job: Job, training: Training, settings: Settings, display: Display | None = None
) -> None:
    """Run a leased training in as many processes as it wants, here or on a cluster; the store tells how it ended.

    Args:
        store: Store that the lease of the job fences.
        job: Leased job of the training.
        training: Training to run.
        settings: Settings with the storage, the data roots and the address of a Ray cluster; with ``local``, the
            processes run on this machine.
        display: Functions that show a training of one process, or on a cluster; by default it is logged.

    Raises:
        JobError: If one of several processes fails without a reason.
        ClusterFault: If the cluster cannot be joined, or is lost.
        PartialNetError: If the training cannot be run, for example without its data.
    """
    if training.definition["processes"] > 1 and settings.ray_address == LOCAL_RAY:
        _train_together(store, job, training, settings)
    else:
        _train(store, job, training, settings, display)


def _done(training: Training) -> Result:
    return JobState.FINISHED, {"training": training.id, "best_top1": training.best_top1}


def _train(
    store: Store, job: Job, training: Training, settings: Settings, display: Display | None = None
) -> None:
    from nas.worker.training_run import train_here

    train_here(store, job, training, settings, display)


def _train_together(store: Store, job: Job, training: Training, settings: Settings) -> None:
    """Train in several processes of this machine; each runs this file's :func:`run`."""
    command = [sys.executable, "-m", "nas.worker", "--job", job.id, "--epoch", str(job.epoch)]
    count, again = int(training.definition["processes"]), f"nas trainings resume {training.id[:8]}"
    with working_folder(Artifacts(settings.storage), training) as files:
        os.environ[FOLDER] = str(files.folder)  # for those processes
        try:
            code = run_processes(command, count, again, log.warning)
        finally:
            del os.environ[FOLDER]
    if code in (0, INTERRUPTED) or store.job(job.id).state.ended:
        return
    raise JobError(f"a process of the training ended with {describe_exit(code)}; the log of the job says why")
