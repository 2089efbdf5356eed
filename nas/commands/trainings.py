"""``nas trainings``: lists, shows, stops, resumes and deletes the trainings of a database or a service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import (
    AsJson,
    Database,
    DataRoots,
    Storage,
    console,
    note,
    plain_table,
    say,
    settings_from,
)
from nas.commands.remote import Server
from nas.commands.train_study import train_again
from nas.commands.training_source import open_trainings, write_package
from nas.errors import InputError
from nas.formatting import format_moment, format_value
from nas.trainings import TrainingAction, TrainingState, allows

if TYPE_CHECKING:
    from nas.wire.trainings import TrainingDetail, TrainingHistoryBody

_LOOK_SECONDS = 0.2

Ref = Annotated[str, typer.Argument(metavar="TRAINING", help="Id of the training, or its first 6 or more characters.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist, or be empty.")]


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
    elif allows(found.state, TrainingAction.RESUME):
        _say(found, as_json, f"is {found.state.value}; nas trainings resume {found.id[:8]} continues it")
    else:  # it ended before it saw the request, or its process died
        _say(found, as_json, f"is {found.state.value}")


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
        if as_json:
            raise InputError("--json does not work with --here, which prints the progress")
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


def _say(found: TrainingDetail, as_json: bool, text: str) -> None:
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        note(f"training {found.id[:8]} of {found.source} {text}")
