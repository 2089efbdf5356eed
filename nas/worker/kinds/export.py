"""Jobs of kind ``export``: the network of a trial as a zipped package in the storage."""

from __future__ import annotations

from dataclasses import asdict

from nas.artifacts import Artifacts, packed_files, zip_folder
from nas.errors import InputError
from nas.jobs import Job, JobState, Result
from nas.scratch import scratch_folder
from nas.settings import Settings
from nas.store import Store


def run(store: Store, job: Job, settings: Settings) -> Result:
    """Export a trial's network and store the archive.

    Raises:
        InputError: If the payload names no trial.
    """
    from nas.networks.export import export_trial

    number = job.payload.get("number")
    if job.study_id is None or isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"an export needs a study and a trial's number, but got {dict(job.payload)!r}")
    candidate = job.payload.get("candidate")  # jobs of an earlier version have none
    study = store.study(job.study_id)
    artifacts = Artifacts(settings.storage)
    place = f"exports/{study.id}/{number}"
    artifacts.discard_partials(place, job.id)  # of earlier leases of this job
    with scratch_folder("export") as scratch:
        folder = scratch / f"{study.name}-trial-{number}"
        onnx, program = (bool(job.payload.get(name, False)) for name in ("onnx", "program"))
        export_trial(store, artifacts, study.id, number, folder, candidate=candidate, onnx=onnx, program=program)
        files = [asdict(file) for file in packed_files(folder)]
        archive = zip_folder(folder, scratch / "export.zip")
        # With the lease's epoch: a process with an expired lease cannot replace the archive.
        artifact = artifacts.put(archive, f"{place}/{job.id}-{job.epoch}.zip", "export")
    store.add_artifact(artifact)
    stored = {"uri": artifact.uri, "sha256": artifact.sha256, "size": artifact.size}
    return JobState.FINISHED, {**stored, "files": files}
