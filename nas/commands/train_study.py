"""``nas train --study``: trains the network of a trial as a training of the database, here or by a worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.commands.options import console, note, open_store, say
from nas.commands.remote import open_client, server_of
from nas.commands.train_run import print_scores, progress_display
from nas.commands.training_source import LocalTrainings, open_trainings, write_package
from nas.definition.requested_training import RequestedTraining, parse_training
from nas.errors import InputError
from nas.host.interrupts import INTERRUPTED
from nas.settings import Settings
from nas.trainings import TrainingState

if TYPE_CHECKING:
    from nas.jobs import Job
    from nas.store import Store
    from nas.trainings import Training


def requested(values: Mapping[str, Any]) -> RequestedTraining:
    """Return the request of a training from the flags of ``nas train``; keys that are None were not given.

    Raises:
        DefinitionError: If there are faults, with one line for each.
    """
    return parse_training({key: value for key, value in values.items() if value is not None}, "nas train")


def train_network(
    wanted: RequestedTraining,
    settings: Settings,
    out: Path | None,
    *,
    server: str | None,
    database: str | None,
    queue: bool,
    as_json: bool,
) -> None:
    """Train here, or leave the training to a worker if ``queue`` or a service says so.

    Raises:
        InputError: If ``out`` is given for a training that runs elsewhere.
    """
    if not queue and server_of(server, database, settings) is None:
        train_now(wanted, settings, out)
        return
    if out is not None:
        raise InputError("--out works only for a training in this process; later: nas trainings package ID --out DIR")
    queue_training(wanted, settings, server, database, as_json=as_json)


def queue_training(
    wanted: RequestedTraining, settings: Settings, server: str | None, database: str | None, *, as_json: bool
) -> None:
    """Leave a training to a worker of the database or of a service, and print its id."""
    url = server_of(server, database, settings)
    if url is None:
        with open_store(settings) as store:
            made = LocalTrainings(store, settings).training(store.submit_training(wanted).id)
    else:
        with open_client(url, settings) as client:
            made = client.train(wanted)
    if as_json:
        print(made.model_dump_json(indent=2))
        return
    print(made.id)
    note(f"training {made.id[:8]} of {made.source} waits for a worker (nas serve, nas worker)")
    note(f"follow it: nas trainings show {made.id[:8]}")


def train_now(wanted: RequestedTraining, settings: Settings, out: Path | None) -> None:
    """Train in this process as a training of the database, with progress.

    Args:
        wanted: Checked request.
        settings: Settings with database, storage and data roots.
        out: Folder for the resulting network; None to leave it in the storage.

    Raises:
        typer.Exit: If the training was interrupted.
    """
    from nas.worker.held_training import submit_held

    if out is not None:
        from partialnet.package import check_target

        check_target(out, overwrite=False)
    with open_store(settings) as store:
        _train(store, settings, *submit_held(store, wanted), out)


def train_again(ref: str, settings: Settings, server: str | None) -> None:
    """Continue a training of the database in this process.

    Raises:
        InputError: If a service is named, whose database is elsewhere.
        typer.Exit: If the training was interrupted.
    """
    from nas.worker.held_training import take_over

    if server is not None:
        raise InputError("--here trains in this process: leave out --server, or leave the training to its worker")
    with open_store(settings) as store:
        _train(store, settings, *take_over(store, ref), None)


def _train(store: Store, settings: Settings, training: Training, job: Job, out: Path | None) -> None:
    from nas.worker.held_training import held_training
    from nas.worker.kinds.train import train_leased

    printer = console()
    note(f"training {training.id[:8]}: nas trainings show {training.id[:8]} shows it, also elsewhere")
    try:
        with held_training(store, training, job) as fenced, progress_display(printer) as display:
            train_leased(fenced, job, training, settings, display)
    except KeyboardInterrupt:
        pass
    found = store.training(training.id)
    if found.state is not TrainingState.FINISHED:
        note(f"stopped; continue with: nas trainings resume {found.id[:8]} --here")
        raise typer.Exit(INTERRUPTED)
    assert found.result is not None
    for text in found.result.notes:
        note(text)
    print_scores(printer, "retrained", found.result.evaluations)
    if out is None:
        say(printer, f"write its network into a folder: nas trainings package {found.id[:8]} --out DIR")
        return
    with open_trainings(None, settings.database_url, settings.storage) as source:
        write_package(source, source.training(found.id), out)
    say(printer, f"wrote {out}; try: nas predict {out} IMAGE")
