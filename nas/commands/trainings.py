"""``nas trainings``: lists, shows, stops, resumes and deletes the trainings of a database or a service."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from nas.commands.options import (
    AsJson,
    Database,
    DataRoots,
    Storage,
    console,
    note,
    open_store,
    plain_table,
    say,
    settings_from,
)
from nas.commands.remote import Server, open_client, server_of
from nas.errors import ConflictError
from nas.formatting import format_moment, format_value
from nas.scratch import scratch_folder
from nas.trainings import TrainingQuery, TrainingState

if TYPE_CHECKING:
    from nas.client import Client
    from nas.settings import Settings
    from nas.store import Store
    from nas.wire.trainings import DeletedTraining, PackageBody, TrainingDetail, TrainingHistoryBody, TrainingList

_LOOK_SECONDS = 0.2
_MOST = 500

Ref = Annotated[str, typer.Argument(metavar="TRAINING", help="Id of the training, or its first 6 or more characters.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist, or be empty.")]


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
        found, after = self._store.training_page(TrainingQuery(_MOST, study_id=wanted))
        while after is not None:
            more, after = self._store.training_page(TrainingQuery(_MOST, after, study_id=wanted))
            found += more
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


def listed(
    study: Annotated[
        str | None, typer.Option("--study", metavar="STUDY", help="Only those of this study's networks.")
    ] = None,
    database: Database = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """List the trainings, newest first.

    \b
    Examples:
      nas trainings list
      nas trainings list --study digits-quickstart --json
    """
    with open_trainings(server, database) as source:
        found = source.trainings(study=study)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    if not found.trainings:
        note("there are no trainings yet; start one: nas train --study latest --trial 3")
        return
    best = "best top-1 (%)"
    table = plain_table("network", "state", "epochs", best, "data", "recipe", "created", "id", right=[best])
    for row in found.trainings:
        table.add_row(
            row.source,
            "stopping" if row.stopping else row.state.value,
            f"{row.done} of {row.epochs}",
            "-" if row.best_top1 is None else format_value("top1", row.best_top1),
            row.data,
            row.recipe,
            format_moment(row.created_at),
            row.id[:8],
        )
    console().print(table)


def show(
    training: Ref, database: Database = None, as_json: AsJson = False, server: Server = None
) -> None:
    """Show a training: its state, its epochs, its scores, and where its package is.

    \b
    Examples:
      nas trainings show 1f2e3d
    """
    with open_trainings(server, database) as source:
        found, history = source.training(training), source.training_history(training)
    if as_json:
        epochs = history.model_dump(mode="json")["epochs"]
        print(json.dumps({**found.model_dump(mode="json"), "history": epochs}, indent=2))
        return
    out = console()
    state = "stopping" if found.stopping else found.state.value
    say(out, f"training {found.id}: {state}, {found.done} of {found.epochs} epochs")
    for name, value in (
        ("network", found.source), ("model", found.model), ("first weights", found.start), ("data", found.data),
        ("recipe", found.recipe), ("seed", found.seed), ("reason", found.reason),
    ):  # fmt: skip
        if value is not None:
            say(out, f"  {name:14}{value}")
    _print_epochs(history)
    for item in found.evaluations:
        say(out, f"{item.kind.value}, {item.data_split} data: {item.metric} {format_value(item.metric, item.value)}")
    for text in found.notes:
        note(text)
    if found.download is not None:
        say(out, f"its package: nas trainings package {found.id[:8]} --out DIR")


def _print_epochs(history: TrainingHistoryBody) -> None:
    if not history.epochs:
        return
    table = plain_table("epoch", "loss", "top-1 (%)", "images/s", right=["epoch", "loss", "top-1 (%)", "images/s"])
    for epoch in history.epochs:
        top1, speed = epoch.metrics.get("top1"), epoch.metrics.get("images_per_second")
        table.add_row(
            str(epoch.epoch),
            f"{epoch.metrics['loss']:.4f}" if "loss" in epoch.metrics else "-",
            "-" if top1 is None else format_value("top1", top1),
            "-" if speed is None else f"{speed:,.0f}",
        )
    console().print(table)


def stop(
    training: Ref,
    wait: Annotated[
        float, typer.Option("--wait", metavar="S", min=0, help="Longest time in seconds to wait until it obeys.")
    ] = 30.0,
    database: Database = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Stop a training: it writes a checkpoint, from which nas trainings resume continues.

    \b
    Examples:
      nas trainings stop 1f2e3d
    """
    with open_trainings(server, database) as source:
        found = source.stop_training(training)
        deadline = time.monotonic() + wait
        while found.state is TrainingState.RUNNING and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            found = source.training(training)
    if found.state is TrainingState.RUNNING:
        _say(found, as_json, "was requested to stop; it has not obeyed yet")
    else:
        _say(found, as_json, f"is {found.state.value}; nas trainings resume {found.id[:8]} continues it")


def resume(
    training: Ref,
    here: Annotated[
        bool, typer.Option("--here", help="Train in this process instead of leaving it to a worker.")
    ] = False,
    database: Database = None,
    storage: Storage = None,
    data_root: DataRoots = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Continue a stopped or failed training from its newest checkpoint: a worker takes it, or this process.

    \b
    Examples:
      nas trainings resume 1f2e3d
      nas trainings resume 1f2e3d --here
    """
    if here:
        from nas.commands.train_study import train_again

        train_again(training, settings_from(database, storage, data_root), server)
        return
    with open_trainings(server, database) as source:
        _say(source.resume_training(training), as_json, "waits for a worker (nas serve, nas worker)")


def delete(
    training: Ref, database: Database = None, storage: Storage = None, as_json: AsJson = False, server: Server = None
) -> None:
    """Delete a training that has ended, with its checkpoints and packages; its score stays with the network.

    \b
    Examples:
      nas trainings delete 1f2e3d
    """
    with open_trainings(server, database, storage) as source:
        found = source.delete_training(training)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    note(f"deleted training {found.id[:8]} with {found.files} files ({found.size:,} bytes)")


def package(
    training: Ref,
    out: Out,
    last: Annotated[
        bool, typer.Option("--last", help="The last weights, where the package has averaged ones.")
    ] = False,
    database: Database = None,
    storage: Storage = None,
    server: Server = None,
) -> None:
    """Write the network of a finished training as a folder, like nas export.

    \b
    Examples:
      nas trainings package 1f2e3d --out trained
      nas predict trained seven.png
    """
    with open_trainings(server, database, storage) as source:
        write_package(source, source.training(training), out, last=last)
    say(console(), f"wrote {out}; try: nas predict {out} IMAGE")


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


def _say(found: TrainingDetail, as_json: bool, text: str) -> None:
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        note(f"training {found.id[:8]} of {found.source} {text}")
