"""Jobs of kind ``export``: the network of a trial as a zipped package in the storage."""

from __future__ import annotations

from nas.artifacts import Artifacts, zip_folder
from nas.errors import InputError
from nas.jobs import Job, JobState, Result
from nas.scratch import scratch_folder
from nas.settings import Settings
from nas.store import Store
from nas.worker.interrupts import interrupts_deferred


def run(store: Store, job: Job, settings: Settings) -> Result:
    """Export a trial's network and store the archive.

    Raises:
        InputError: If the payload names no trial.
    """
    with interrupts_deferred():
        import torch  # noqa: F401  what takes long to load

        from nas.networks.export import export_trial

    number = job.payload.get("number")
    if job.study_id is None or isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"an export needs a study and a trial's number, but got {dict(job.payload)!r}")
    candidate = job.payload.get("candidate")  # of jobs queued by an earlier version there is none
    study = store.study(job.study_id)
    artifacts = Artifacts(settings.storage)
    place = f"exports/{study.id}/{number}"
    artifacts.discard_partials(place, job.id)  # of earlier leases of this job
    with scratch_folder("export") as scratch:
        folder = scratch / f"{study.name}-trial-{number}"
        export_trial(store, artifacts, study.id, number, folder, candidate=candidate)
        archive = zip_folder(folder, scratch / "export.zip")
        # With the lease's epoch: a process whose lease is over cannot put another archive in its place.
        artifact = artifacts.put(archive, f"{place}/{job.id}-{job.epoch}.zip", "export")
    store.add_artifact(artifact)
    return JobState.FINISHED, {"uri": artifact.uri, "sha256": artifact.sha256, "size": artifact.size}
