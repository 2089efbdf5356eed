"""What a worker's child process does: one job, in its main thread. Torch and Ray are loaded here, when needed."""

from __future__ import annotations

import logging
import traceback

from nas.errors import JobError, StaleLease, explain
from nas.jobs import JobState
from nas.settings import Settings
from nas.store import Store
from nas.worker.kinds import KINDS

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
        if job.kind not in KINDS:
            raise JobError(f"this version runs no jobs of kind {job.kind.value!r}")
        ended = KINDS[job.kind].run(fenced, job, settings)
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
