"""``nas pause``, ``nas resume`` and ``nas stop``: requests that a search obeys, wherever its process runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import AsJson, Database, StudyRef, note, settings_from
from nas.commands.remote import RemoteStore, Server, open_source
from nas.errors import InputError
from nas.study import Study, StudyState

if TYPE_CHECKING:
    from nas.store import Store

_LOOK_SECONDS = 0.2

Wait = Annotated[
    float,
    typer.Option(
        "--wait", metavar="S", min=0, help="Longest time in seconds to wait for the search to obey; 0 for none."
    ),
]


def pause(
    study: StudyRef, wait: Wait = 30.0, database: Database = None, as_json: AsJson = False, server: Server = None
) -> None:
    """Pause a search: its trials wait with their checkpoints, and continue from them later.

    The search may run in another process or on another machine: it obeys within seconds.

    \b
    Examples:
      nas pause latest
      nas pause digits-quickstart --wait 0
    """
    with open_source(server, database) as store:
        found = store.study(study)
        store.pause(found.id)
        paused = _await(store, found.id, StudyState.PAUSED, wait)
        then = f"nas resume {paused.name} continues it"
        if paused.state is not StudyState.PAUSED:  # its search ended before it could obey
            then = f"nas pareto {paused.name} shows its results"
        _say(store, paused, as_json, then, "pause")


def stop(
    study: StudyRef, wait: Wait = 30.0, database: Database = None, as_json: AsJson = False, server: Server = None
) -> None:
    """End a search for good: it keeps its results, and its unfinished trials become cancelled.

    To continue later, pause it instead.

    \b
    Examples:
      nas stop latest
    """
    from nas.artifacts import Artifacts
    from nas.housekeeping.stopped import discard_if_stopped

    settings = settings_from(database)
    with open_source(server, database) as store:
        found = store.study(study)
        store.stop(found.id)
        stopped = _await(store, found.id, StudyState.STOPPED, wait)
        if not isinstance(store, RemoteStore):
            discard_if_stopped(store, Artifacts(settings.storage), found.id)
        _say(store, stopped, as_json, f"nas pareto {stopped.name} shows its results", "stop")


def resume(
    study: StudyRef,
    extend: Annotated[
        int | None,
        typer.Option("--extend", metavar="N", help="Add N search trials, also to a finished study."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run the failed trials again, also of a finished study.")
    ] = False,
    database: Database = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Continue a paused, failed or finished study: a worker takes its search (`nas serve`, `nas worker`).

    To search in this process instead, use nas run --resume.

    \b
    Examples:
      nas resume latest
      nas resume digits-quickstart --extend 20
    """
    if extend is not None and retry_failed:
        raise InputError("--extend and --retry-failed exclude each other; give one, and the other when it has ended")
    with open_source(server, database) as store:
        found = store.study(study)
        if extend is not None:
            store.extend(found.id, extend)
        elif retry_failed:
            store.resume_with_failed(found.id)
        else:
            store.resume(found.id)
        queued = store.study(found.id)
        then = f"a worker continues it (nas serve, nas worker), or this process: nas run --resume {queued.name}"
        _say(store, queued, as_json, then, "resume")


def _await(store: Store | RemoteStore, study_id: str, state: StudyState, seconds: float) -> Study:
    """Return the study when it is in ``state`` or has ended otherwise, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        study = store.study(study_id)
        under_way = study.state in (StudyState.QUEUED, StudyState.RUNNING, StudyState.INTERRUPTED)
        if study.state is state or not under_way or time.monotonic() >= deadline:
            return study
        time.sleep(_LOOK_SECONDS)


def _say(store: Store | RemoteStore, study: Study, as_json: bool, then: str, action: str) -> None:
    if as_json:
        from nas.wire.builders import study_from

        row = store.study_row(study.id)
        print(json.dumps(study_from(row.study, row.counts, row.best_top1).model_dump(mode="json"), indent=2))
    elif study.state is StudyState.RUNNING:
        note(f"study {study.name} was requested to {action}; its search has not obeyed yet")
    else:
        note(f"study {study.name} is {study.state.value}; {then}")
