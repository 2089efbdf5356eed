"""What a worker's child process does: one job, in its main thread. Torch and Ray are loaded here, when needed."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from nas.artifacts import Artifacts, zip_folder
from nas.errors import InputError, JobError, StaleLease, explain
from nas.jobs import Job, JobKind, JobState, Result
from nas.settings import Settings
from nas.store import Store
from nas.study import StudyState

log = logging.getLogger(__name__)


def run_job(store: Store, settings: Settings, job_id: str, epoch: int) -> int:
    """Run a leased job to its end and record it.

    A search that was interrupted is left to the worker, which knows whether it was stopped or is to go on later.

    Returns:
        The process's exit code.
    """
    job = store.job(job_id)
    fenced = store.fenced(job_id, epoch)
    try:
        if job.kind not in RUNNERS:
            raise JobError(f"this version runs no jobs of kind {job.kind.value!r}")
        ended = RUNNERS[job.kind](fenced, job, settings)
        if ended is not None:
            state, result = ended
            reason = str(result.get("reason") or "") if state is JobState.FAILED else None
            store.finish_job(job_id, epoch, state, result=result, error=reason)
    except StaleLease as error:
        log.error("%s", error)
        return 1
    except Exception as error:
        traceback.print_exc()
        store.finish_job(job_id, epoch, JobState.FAILED, error=explain(error))
        return 1
    return 0


def _search(store: Store, job: Job, settings: Settings) -> Result | None:
    with _interrupts_deferred():
        from nas.sweep.search import run_search
        from nas.training.data import open_data
        from nas.training.feasibility import check_feasible, reference_point

    assert job.study_id is not None
    study = store.study(job.study_id)
    # Before the trials: without the images every one of them would fail, and ended trials are not run again.
    classes = len(open_data(study.definition, settings.data_roots).info.class_names)
    if not set(study.definition.objectives) <= set(study.reference_point):
        # Submitted by the API, which does not load torch and so could not look at the network.
        for note in check_feasible(study.definition, classes):
            log.info("%s", note)
        store.set_reference_point(study.id, reference_point(study.definition, classes))
    study = run_search(store, study.id, settings)
    if study.state is StudyState.FINISHED:
        return JobState.FINISHED, {"state": study.state.value}
    if study.state is StudyState.FAILED:
        return JobState.FAILED, {"state": study.state.value, "reason": study.reason}
    return None


def _export(store: Store, job: Job, settings: Settings) -> Result:
    with _interrupts_deferred():
        import torch  # noqa: F401  what takes long to load

        from nas.networks.export import export_trial

    number = job.payload.get("number")
    if job.study_id is None or isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"an export needs a study and a trial's number, but got {dict(job.payload)!r}")
    candidate = job.payload.get("candidate")  # of jobs queued by an earlier version there is none
    study = store.study(job.study_id)
    artifacts = Artifacts(settings.storage)
    with tempfile.TemporaryDirectory(prefix="nas-export-job-") as scratch:
        folder = Path(scratch) / f"{study.name}-trial-{number}"
        export_trial(store, artifacts, study.id, number, folder, candidate=candidate)
        archive = zip_folder(folder, Path(scratch) / "export.zip")
        artifact = artifacts.put(archive, f"exports/{study.id}/{number}/{job.id}.zip", "export")
    store.add_artifact(artifact)
    return JobState.FINISHED, {"uri": artifact.uri, "sha256": artifact.sha256, "size": artifact.size}


RUNNERS: Mapping[JobKind, Callable[[Store, Job, Settings], Result | None]] = MappingProxyType(
    {JobKind.SEARCH: _search, JobKind.EXPORT: _export}
)


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold SIGINT back: native modules that are interrupted while they load say that they are broken."""
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def die_with_parent() -> None:
    """End this process, and all of its group, when the worker that started it is gone.

    The worker holds the other end of standard input and never writes: end of file means that it died, however it
    did. Its processes get no time to tidy up, since their lease is about to go to another worker.
    """
    pipe = os.dup(0)  # not inherited by the processes that this one starts
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        alone = os.getpgrp() == os.getpid()
        os.killpg(0, signal.SIGKILL) if alone else os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
