"""The trainings of a database or of a service, as the commands read them: ``--server`` changes nothing else."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.commands.options import open_store, settings_from
from nas.commands.remote import open_client, server_of
from nas.errors import ConflictError
from nas.scratch import scratch_folder

if TYPE_CHECKING:
    from nas.client import Client
    from nas.settings import Settings
    from nas.store import Store
    from nas.wire.trainings import DeletedTraining, PackageBody, TrainingDetail, TrainingHistoryBody, TrainingList


class Source(Protocol):
    """What the commands ask about trainings; a service and a database answer alike."""

    def trainings(self, *, study: str | None = None) -> TrainingList:
        """Return the trainings, newest first."""

    def training(self, training: str) -> TrainingDetail:
        """Return a training."""

    def training_history(self, training: str) -> TrainingHistoryBody:
        """Return the epochs of a training."""

    def stop_training(self, training: str) -> TrainingDetail:
        """Request a training to end."""

    def resume_training(self, training: str) -> TrainingDetail:
        """Queue a training again."""

    def delete_training(self, training: str) -> DeletedTraining:
        """Delete a training."""

    def download_package(self, package: PackageBody, into: Path) -> Path:
        """Save a package as a zip file."""


class LocalTrainings:
    """The trainings of a database, in the bodies of the API.

    Args:
        store: Store of the trainings.
        settings: Settings with the storage of their files.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def trainings(self, *, study: str | None = None) -> TrainingList:
        """Return the trainings, newest first."""
        from nas.wire.trainings import TrainingList, training_from

        wanted = None if study is None else self._store.study(study).id
        found = list(self._store.all_trainings(wanted))
        return TrainingList(trainings=tuple(map(training_from, found)), count=len(found))

    def training(self, training: str) -> TrainingDetail:
        """Return a training."""
        from nas.wire.trainings import training_detail_from

        return training_detail_from(self._store.training(training))

    def training_history(self, training: str) -> TrainingHistoryBody:
        """Return the epochs of a training."""
        from nas.wire.builders import epoch_from
        from nas.wire.trainings import TrainingHistoryBody

        found = self._store.training(training)
        epochs = tuple(map(epoch_from, self._store.training_history(found.id)))
        return TrainingHistoryBody(id=found.id, epochs=epochs, count=len(epochs))

    def stop_training(self, training: str) -> TrainingDetail:
        """Request a training to end."""
        return self.training(self._store.stop_training(training).id)

    def resume_training(self, training: str) -> TrainingDetail:
        """Queue a training again."""
        return self.training(self._store.resume_training(training).id)

    def delete_training(self, training: str) -> DeletedTraining:
        """Delete a training."""
        from nas.artifacts import Artifacts
        from nas.housekeeping.trainings import delete_training
        from nas.wire.trainings import DeletedTraining

        found, files, size = delete_training(self._store, Artifacts(self._settings.storage), training)
        return DeletedTraining(id=found, files=files, size=size)

    def download_package(self, package: PackageBody, into: Path) -> Path:
        """Save a package as a zip file."""
        from nas.artifacts import Artifacts

        result = self._store.training(package.path.split("/")[2]).result
        assert result is not None
        stored = next(item for item in (result.package, result.last) if item and item.sha256 == package.sha256)
        return Artifacts(self._settings.storage).fetch(stored, into)


@contextmanager
def open_trainings(server: str | None, database: str | None, storage: str | None = None) -> Iterator[Source]:
    """Open the database, or the service if one is given, inside the block.

    Raises:
        InputError: If both are given, or one cannot be opened.
    """
    settings = settings_from(database, storage)
    url = server_of(server, database, settings)
    if url is None:
        with open_store(settings) as store:
            yield LocalTrainings(store, settings)
        return
    client: Client
    with open_client(url, settings) as client:
        yield client


def write_package(source: Source, training: TrainingDetail, out: Path, *, last: bool = False) -> None:
    """Unpack the package of a finished training into ``out``.

    Raises:
        ConflictError: If there is none.
        PackageError: If ``out`` is not free.
    """
    from partialnet.package import check_target

    chosen = training.download_last if last else training.download
    if chosen is None:
        why = "its recipe averages no weights" if training.download else f"it is {training.state.value}"
        raise ConflictError(f"training {training.id[:8]} has no such package: {why}")
    check_target(out, overwrite=False)
    with scratch_folder("export") as scratch:
        with zipfile.ZipFile(source.download_package(chosen, scratch / "package.zip")) as archive:
            archive.extractall(scratch / "all")  # which keeps names from leaving the folder
        (folder,) = (scratch / "all").iterdir()
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
