"""What runs inside a Ray trial: training, storage of the weights, reports. It makes no decision of the sweep."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from nas.candidate import Artifact
from nas.definition.study import StudyDefinition
from nas.errors import MemoryExhausted, NasError
from nas.host.room import check_room
from nas.scratch import scratch_folder
from nas.study import DataFingerprint
from nas.sweep.breaker import failure_of
from nas.sweep.ray_words import Outcome, Report, from_ray_config, to_ray_result
from nas.trial import Compute, Placement, TrialSpec
from partialnet.errors import PartialNetError
from partialnet.search.latency_table import LatencyTable

if TYPE_CHECKING:
    from nas.training.run_trial import ScoredNetwork


@dataclass(frozen=True)
class TrialContext:
    """Data that all trials of a search share.

    Args:
        study_id: Id of the study.
        definition: Definition of the study.
        data_roots: Absolute folders to search for data sets, on the machine that runs the trial.
        storage: Absolute folder or URL of the weights.
        data: Fingerprint of the study's data; None if it was not recorded.
        table: Latency table of the study, if it has one.
    """

    study_id: str
    definition: StudyDefinition
    data_roots: tuple[Path, ...]
    storage: str
    data: DataFingerprint | None = None
    table: LatencyTable | None = None

    @property
    def threads(self) -> int:
        """Number of threads of a trial: its share of CPUs, at least one."""
        return max(1, int(self.definition.sweep.cpus_per_trial))

    @property
    def device(self) -> str | None:
        """Device ``"cpu"`` for trials without a share of a GPU; None lets a trial use the GPU that Ray assigns."""
        return None if self.definition.sweep.gpus_per_trial else "cpu"


def weights_uri(study_id: str, number: int, sha256: str) -> str:
    """Return the URI of the weights of a trial's network, relative to the storage.

    It depends on the content: a process with an expired lease cannot replace the weights by others.
    """
    return f"studies/{study_id}/trials/{number}/weights-{sha256[:16]}.safetensors"


def train_trial(config: Mapping[str, Any], context: TrialContext) -> None:
    """Run one trial and report its epochs, then its outcome or the reason of its failure.

    After an error that our code raises on purpose, the process can run the next trial. After any other error it ends,
    because its state is unknown (for example, a CUDA context does not survive a failed kernel). The driver handles a
    lack of memory and retries once: the process that took the memory may be gone.
    """
    spec = from_ray_config(config)
    try:
        outcome = _run(spec, context)
    except MemoryExhausted:
        raise
    except Exception as error:
        _report(failure_of(error, context.storage))
        if not isinstance(error, (PartialNetError, NasError)):
            raise
    else:
        _report(outcome)


def _run(spec: TrialSpec, context: TrialContext) -> Outcome:
    import torch

    from nas.artifacts import Artifacts
    from nas.training.checkpoint import TrialCheckpoint
    from nas.training.device import claim, compute
    from nas.training.run_trial import run_trial
    from nas.training.trainer import training_of

    check_room(context.storage)
    torch.set_num_threads(context.threads)
    gpus, precision = context.definition.sweep.gpus_per_trial, training_of(context.definition, spec).precision
    _report(_placement(context.definition, compute(claim(context.device, gpus), precision, gpus)))
    with scratch_folder("trial") as folder:
        checkpoint = TrialCheckpoint(Artifacts(context.storage), context.study_id, spec, folder)
        checkpoint.restore()
        outcome = run_trial(
            context.definition,
            spec,
            context.data_roots,
            report=_report,
            device=context.device,
            checkpoint=checkpoint,
            data=context.data,
            table=context.table,
        )
    return Outcome(
        tuple(
            replace(found.candidate, weights=_store_weights(found, outcome.class_names, spec, context))
            for found in outcome.networks
        )
    )


def _store_weights(
    network: ScoredNetwork,
    class_names: tuple[str, ...],
    spec: TrialSpec,
    context: TrialContext,
) -> Artifact:
    from nas.artifacts import Artifacts
    from nas.training.weights import save_weights

    architecture = network.candidate.architecture
    metadata = {"architecture": json.dumps(architecture.to_dict()), "class_names": json.dumps(class_names)}
    with scratch_folder("weights") as folder:
        path = folder / "weights.safetensors"
        save_weights(network.state_dict, path, metadata)
        with path.open("rb") as file:
            uri = weights_uri(context.study_id, spec.number, hashlib.file_digest(file, "sha256").hexdigest())
        return Artifacts(context.storage).put(path, uri, "weights")


def _placement(definition: StudyDefinition, compute: Compute) -> Placement:
    gpu_ids = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return Placement(
        node=platform.node(),
        pid=os.getpid(),
        cpus=definition.sweep.cpus_per_trial,
        gpus=definition.sweep.gpus_per_trial,
        gpu_ids=tuple(map(str, gpu_ids)),
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        compute=compute,
    )


def _report(report: Report) -> None:
    tune.report(to_ray_result(report))
