"""Jobs of kind ``export``: the network of a trial as a zipped package in the storage."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.artifacts import Artifacts, packed_files, zip_folder
from nas.errors import InputError
from nas.jobs import INT8, Job, JobState, Result
from nas.scratch import scratch_folder
from nas.settings import Settings
from nas.store import Store


def run(store: Store, job: Job, settings: Settings) -> Result:
    """Export a trial's network and store the archive.

    Raises:
        InputError: If the payload names no trial.
        ConflictError: If the requested 8-bit form loses too much.
    """
    from nas.networks.export import Int8Wish, export_trial

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
        points = job.payload.get(INT8)
        wish = None if points is None else Int8Wish(float(points) / 100, settings.data_roots)
        export_trial(
            store, artifacts, study.id, number, folder, candidate=candidate, onnx=onnx, program=program, int8=wish
        )
        scores = {} if wish is None else {"int8": int8_scores(folder)}
        files = [asdict(file) for file in packed_files(folder)]
        archive = zip_folder(folder, scratch / "export.zip")
        # With the lease's epoch: a process with an expired lease cannot replace the archive.
        artifact = artifacts.put(archive, f"{place}/{job.id}-{job.epoch}.zip", "export")
    store.add_artifact(artifact)
    stored = {"uri": artifact.uri, "sha256": artifact.sha256, "size": artifact.size}
    return JobState.FINISHED, {**stored, "files": files, **scores}


def int8_scores(folder: Path) -> dict[str, Any]:
    """Return the scores of a package's 8-bit form beside those of the float form.

    Args:
        folder: Folder of the package.
    """
    from partialnet.package import INT8_REPORT

    report = json.loads((folder / INT8_REPORT).read_text(encoding="utf-8"))
    forms = ("float32", "int8")
    return {
        "images": report["validation"]["int8"]["n"],
        "max_drop": report["max_drop"],
        "top1": {name: report["validation"][name]["top1"] for name in forms},
        "latency_ms": {name: report["latency_ms"][name] for name in forms},
        "device": report["latency_figures"]["int8"]["device_name"],
    }
