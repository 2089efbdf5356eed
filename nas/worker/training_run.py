"""A training of the store in this process: its request, its epochs, its result. Torch is loaded here, when needed."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.artifacts import Artifacts, zip_folder
from nas.candidate import Artifact
from nas.definition.requested_training import request_values
from nas.definition.sections import DataSpec
from nas.definition.training import TrainRequest
from nas.host.interrupts import stop_requests
from nas.jobs import Job
from nas.scratch import scratch_folder
from nas.settings import LOCAL_RAY, Settings
from nas.store import Store
from nas.store.training_reads import PHASE
from nas.training.files import Elsewhere, WorkingFiles, working_folder
from nas.training.packages import find_package
from nas.training.processes import LOST_CONNECTION, lost_connection
from nas.trainings import Training, TrainingResult
from nas.trial import EpochRecord
from partialnet.architecture import Architecture
from partialnet.train.launching import first, launched

if TYPE_CHECKING:
    from nas.training.standalone import TrainResult, Watch
    from partialnet.train import EpochProgress

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 300.0  # a short absence of the database must not end hours of training


@dataclass(frozen=True)
class Display:
    """Functions that show a training to people.

    Args:
        start: Function that receives a sentence when data and network are ready.
        step: Function to call after each batch.
        epoch: Function that receives each epoch's progress, after it is recorded.
        note: Function that receives notes for people.
    """

    start: Callable[[str], None] = log.info
    step: Callable[[], None] = lambda: None
    epoch: Callable[[EpochProgress], None] = lambda progress: log.info(
        "epoch %d/%d: loss %.4f, %.0f images/s", progress.epoch, progress.epochs, progress.loss,
        progress.images_per_second,
    )  # fmt: skip
    note: Callable[[str], None] = log.warning


def train_here(
    store: Store, job: Job, training: Training, settings: Settings, display: Display | None = None
) -> None:
    """Train in this process, alone or as one of several, or on the Ray cluster of the settings.

    The training continues from the newest checkpoint if there is one.
    A request to stop writes a checkpoint and returns. The first process records the epochs and the result.

    Args:
        store: Store that the lease of the job fences.
        job: Leased job of the training.
        training: Training to run.
        settings: Settings with the storage and the data roots.
        display: Functions that show the training; by default it is logged.

    Raises:
        SystemExit: If another process of the training has gone.
        ClusterFault: If the cluster cannot be joined, or is lost.
        InputError: If it has too few processors or GPUs.
        PartialNetError: If the training cannot be run, for example without its data.
    """
    from partialnet.train.loop import TrainingStopped

    artifacts, store = Artifacts(settings.storage), store.patient(_PATIENCE_SECONDS)
    with working_folder(artifacts, training) as files:
        try:
            result = _trained(store, training, settings, files, display or Display())
        except TrainingStopped:
            if first():
                files.store()
            log.info("stopped, with a checkpoint")
            return
        except RuntimeError as error:
            if launched() and lost_connection(error):
                raise SystemExit(LOST_CONNECTION) from None
            raise
        if first():
            stored = _stored(artifacts, job, training, result)
            store.finish_training(training.id, stored, [epoch_record(entry) for entry in result.history])


def _trained(
    store: Store, training: Training, settings: Settings, files: WorkingFiles, display: Display
) -> TrainResult:
    from nas.training.standalone import Keeping, Watch, train_alone
    from partialnet.train import select_device
    from partialnet.train.processes import joined, local_device

    files.folder.mkdir(parents=True, exist_ok=True)
    request = _request(store, training, settings, files)

    def epoch(progress: EpochProgress) -> None:
        if first():
            files.store()
            store.record_training_epoch(training.id, epoch_record(progress))
            display.epoch(progress)

    def step() -> None:
        if first():
            files.store_sometimes()
            display.step()

    minutes = training.definition["checkpoint_minutes"]
    if settings.ray_address != LOCAL_RAY:
        watch = Watch(start=display.start, step=step, epoch=epoch, note=display.note)
        return _trained_on_cluster(request, training, settings, files, watch, minutes)
    where = select_device(local_device(training.definition["device"]))
    show = display if first() else Display(start=lambda _text: None, note=lambda _text: None)
    with joined(where), stop_requests() as stop:
        watch = Watch(start=show.start, step=step, epoch=epoch, note=show.note)
        keeping = Keeping(minutes=minutes, stop=stop.is_set)
        return train_alone(
            request, files.folder, settings.data_roots, device=where, resume=True, watch=watch, keeping=keeping
        )


def _trained_on_cluster(
    request: TrainRequest, training: Training, settings: Settings, files: WorkingFiles, watch: Watch, minutes: float
) -> TrainResult:
    from nas.ray_training.driver import Cluster, train_on_cluster
    from nas.sweep.stop_flag import StopFlag
    from nas.training.standalone import Keeping

    count = int(training.definition["processes"])
    cluster = Cluster(settings.ray_address, count, count, training.definition["device"])
    elsewhere = None
    if files.copied:
        elsewhere = Elsewhere(settings.storage, training.folder, training.source.weights)
    with StopFlag() as stop:
        keeping = Keeping(minutes=minutes, stop=stop.__bool__)
        return train_on_cluster(
            request, files.folder, settings.data_roots, cluster, watch=watch, keeping=keeping, started=stop.listen,
            elsewhere=elsewhere,
        )  # fmt: skip


def _request(store: Store, training: Training, settings: Settings, files: WorkingFiles) -> TrainRequest:
    wanted = training.definition
    architecture, weights = _network(store, training, settings, files)
    values: dict[str, Any] = request_values(wanted["settings"])
    recipe = values["recipe"]
    if recipe.teacher and not recipe.teacher.startswith("timm/"):
        values["recipe"] = replace(recipe, teacher=str(find_package(recipe.teacher, settings.data_roots)))
    return TrainRequest(
        architecture,
        DataSpec.model_validate(wanted["data"]),
        seed=wanted["seed"],
        weights=weights,
        split_seed=wanted["split_seed"],
        **values,
    )


def _network(
    store: Store, training: Training, settings: Settings, files: WorkingFiles
) -> tuple[Architecture, Path | None]:
    """Return the architecture, and the file of the first weights; None for random ones."""
    source = training.source
    if source.package is not None:
        from partialnet.package import ARCHITECTURE, WEIGHTS

        folder = find_package(source.package, settings.data_roots)
        architecture = Architecture.load(folder / ARCHITECTURE)
        if first() and source.architecture_id != architecture.id:
            store.describe_training(training.id, architecture.id, architecture.to_dict())
        return architecture, folder / WEIGHTS if training.definition["start"] == "weights" else None
    assert source.architecture is not None
    architecture = Architecture.from_dict(source.architecture)
    if source.weights is None:
        return architecture, None
    local = files.folder / "start.safetensors"
    if not local.is_file():
        files.artifacts.fetch(source.weights, local)
    return architecture, local


def epoch_record(progress: EpochProgress) -> EpochRecord:
    """Return the record of an epoch: the scores are those of the averaged weights, if there are any."""
    found = {
        "loss": progress.loss,
        "learning_rate": progress.learning_rate,
        "images_per_second": progress.images_per_second,
    }
    best = progress.best
    if best is not None:
        found |= {"top1": best.top1, "top5": best.top5, "validation_loss": best.loss}
    if progress.average is not None and progress.evaluation is not None:
        found["last_top1"] = progress.evaluation.top1
    finite = {key: value for key, value in found.items() if math.isfinite(value)}
    return EpochRecord(progress.epoch, PHASE, finite, {})


def _stored(artifacts: Artifacts, job: Job, training: Training, result: TrainResult) -> TrainingResult:
    """Store the packages of a finished training as zip files."""
    artifacts.discard_partials(training.folder, job.id)
    folder, candidate = result.average or (result.package, result.candidate)
    name = training.package_name
    package = _put(artifacts, folder, training, job, name)
    last = None if result.average is None else _put(artifacts, result.package, training, job, f"{name}-last")
    for made in (folder, result.package):  # which the zips hold
        shutil.rmtree(made, ignore_errors=True)
    evaluations = tuple(replace(entry, recipe=training.recipe) for entry in candidate.evaluations)
    return TrainingResult(package, last, evaluations, result.notes)


def _put(artifacts: Artifacts, folder: Path, training: Training, job: Job, name: str) -> Artifact:
    with scratch_folder("train") as scratch:
        shutil.copytree(folder, scratch / name)
        archive = zip_folder(scratch / name, scratch / "package.zip")
        # With the lease's epoch: a process with an expired lease cannot replace the archive.
        ending = "-last" if name.endswith("-last") else ""
        return artifacts.put(archive, f"{training.folder}/{job.id}-{job.epoch}{ending}.zip", "package")
