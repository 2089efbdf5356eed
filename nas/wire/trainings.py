"""Bodies of trainings. Loads neither torch nor ray."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from nas.candidate import Artifact
from nas.trainings import Training, TrainingState
from nas.wire.bodies import Body, EpochBody, EvaluationBody
from nas.wire.builders import evaluation_from

if TYPE_CHECKING:
    from nas.training.files import StoredCheckpoint


class PackageBody(Body):
    """A zip file for download.

    Args:
        path: Path of the zip within the API.
        sha256: SHA-256 checksum of the zip.
        size: Size of the zip in bytes.
    """

    path: str
    sha256: str
    size: int


class TrainingBody(Body):
    """A training of one network.

    Args:
        source: Network that it starts from, in words.
        study_id: Id of the study whose trial found the network; None for a package.
        number: Number of the trial.
        position: Index of the network within the trial.
        architecture_id: Hash of the architecture; None for a package that no worker has read yet.
        package: Name of the package's folder under a data root.
        start: First weights: ``scratch`` or ``weights``.
        recipe: Name of the recipe with its changes; scores of different recipes cannot be compared.
        done: Number of completed epochs.
        stopping: Whether a stop was requested and the process has not obeyed yet.
        best_top1: Best validation top-1 so far, as a fraction.
        created_by: Name of the token that created it; None for a command.
    """

    id: str
    state: TrainingState
    source: str
    study_id: str | None
    study: str | None
    number: int | None
    position: int | None
    architecture_id: str | None
    package: str | None
    model: str | None
    start: str
    data: str
    recipe: str
    seed: int
    epochs: int
    done: int
    stopping: bool = False
    best_top1: float | None
    reason: str | None
    job_id: str | None
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class TrainingDetail(TrainingBody):
    """A training with its settings and its result.

    Args:
        returns: Whether the score goes back to the network of the trial.
        data_settings: Data set, image size and number of images.
        settings: All settings of the training.
        processes: Number of processes that share each batch.
        device: Device that was requested; None for a GPU if there is one.
        evaluations: Scores of a finished training.
        notes: Notes for people, such as missing test images.
        download: Package of a finished training; with averaged weights if the recipe averages them.
        download_last: Package with the last weights, if those of ``download`` are averaged.
        load: Line of Python that loads the unpacked package; None before the end.
    """

    returns: bool
    data_settings: dict[str, Any]
    settings: dict[str, Any]
    processes: int
    device: str | None
    evaluations: tuple[EvaluationBody, ...] = ()
    notes: tuple[str, ...] = ()
    download: PackageBody | None = None
    download_last: PackageBody | None = None
    load: str | None = None


class TrainingList(Body):
    """A page of trainings, newest first.

    Args:
        after: Mark of the page's end; None on the last page.
    """

    trainings: tuple[TrainingBody, ...]
    count: int
    after: str | None = None


class TrainingHistoryBody(Body):
    """The epochs of a training, in order."""

    id: str
    epochs: tuple[EpochBody, ...]
    count: int


class CheckpointBody(Body):
    """A checkpoint from which a training can continue.

    Args:
        epoch: Number of completed epochs; None for the checkpoint of the best epoch.
        step: Number of completed steps of the next epoch.
        best: Whether it is that of the best epoch.
        checksum: First 16 digits of its SHA-256 checksum.
    """

    name: str
    epoch: int | None
    step: int | None
    best: bool
    checksum: str
    size: int
    at: datetime | None


class CheckpointList(Body):
    """The checkpoints of a training, newest first; that of the best epoch comes last."""

    checkpoints: tuple[CheckpointBody, ...]
    count: int


class DeletedTraining(Body):
    """A training that was deleted, with the number of its files and their bytes."""

    id: str
    files: int
    size: int


def training_from(training: Training) -> TrainingBody:
    """Build the body of a training in a list."""
    return TrainingBody(**_fields(training))


def _fields(training: Training) -> dict[str, Any]:
    source = training.source
    return {
        "id": training.id,
        "state": training.state,
        "source": source.text,
        "study_id": source.study_id,
        "study": source.study,
        "number": source.number,
        "position": source.position,
        "architecture_id": source.architecture_id,
        "package": source.package,
        "model": training.model,
        "start": training.definition["start"],
        "data": training.data,
        "recipe": training.recipe,
        "seed": training.seed,
        "epochs": training.epochs,
        "done": training.done,
        "stopping": training.stopping,
        "best_top1": training.best_top1,
        "reason": training.reason,
        "job_id": training.job_id,
        "created_by": training.created_by,
        "created_at": training.created_at,
        "started_at": training.started_at,
        "ended_at": training.ended_at,
    }


def training_detail_from(training: Training) -> TrainingDetail:
    """Build the body of one training."""
    wanted, result = training.definition, training.result
    path = f"/trainings/{training.id}/package"
    last = None if result is None else result.last
    return TrainingDetail(
        **_fields(training),
        returns=training.source.returns,
        data_settings=dict(wanted["data"]),
        settings=dict(wanted["settings"]),
        processes=wanted["processes"],
        device=wanted["device"],
        evaluations=() if result is None else tuple(map(evaluation_from, result.evaluations)),
        notes=() if result is None else result.notes,
        download=None if result is None else _package(path, result.package),
        download_last=None if last is None else _package(f"{path}?last=true", last),
        load=None if result is None else f'model = partialnet.load_package("{training.package_name}").model',
    )


def _package(path: str, artifact: Artifact) -> PackageBody:
    return PackageBody(path=path, sha256=artifact.sha256, size=artifact.size)


def checkpoint_from(found: StoredCheckpoint) -> CheckpointBody:
    """Build the body of a checkpoint."""
    return CheckpointBody(**vars(found))
