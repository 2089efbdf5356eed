"""``nas run``: runs a search, from its definition to its front."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.commands.options import (
    Database,
    DataRoots,
    OwnProcess,
    RayAddress,
    Storage,
    console,
    note,
    open_store,
    say,
    settings_from,
    tell,
)
from nas.commands.probe import table_progress
from nas.commands.remote import Server, server_of
from nas.commands.run_end import conclude
from nas.commands.run_remote import launch_there, resume_there
from nas.definition.study import StudyDefinition, load_study, parse_study
from nas.errors import InputError
from nas.formatting import format_number
from nas.lifecycle import Action, take
from nas.settings import LOCAL_RAY, Settings
from nas.study import DataFingerprint, Study, StudyState
from nas.sweep.cluster import socket_base
from nas.sweep.joined import check_address, check_cluster
from nas.worker.supervisor import Part, supervised

if TYPE_CHECKING:
    from nas.probes.table import DeviceTable
    from nas.store import Store

class EarlyStoppingMethod(StrEnum):
    """Methods of early stopping."""

    ASHA = "asha"
    MO_ASHA = "mo_asha"


_SIZE = "How much is searched (instead of what the definition says)"


def run(
    context: typer.Context,
    definition: Annotated[
        Path | None, typer.Argument(metavar="DEFINITION", help="Study definition (YAML).", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the study; by default that of the definition.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="STUDY", help="Resume a paused study: name, id or 'latest'."),
    ] = None,
    extend: Annotated[
        int | None,
        typer.Option("--extend", metavar="N", help="With --resume: add search trials, also to a finished study."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run the failed trials again, also of an ended study.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", help="Number of search trials.", rich_help_panel=_SIZE)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="S", help="No search trial starts after this time.", rich_help_panel=_SIZE),
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option(
            "--finalists",
            metavar="N",
            help="Number of learned networks to retrain and compare at the end; 0 for none.",
            rich_help_panel=_SIZE,
        ),
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", metavar="N", help="Number of trials at once.", rich_help_panel=_SIZE)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STUDY",
            help="Give the searcher the results of an earlier study: name, id or 'latest'.",
            rich_help_panel=_SIZE,
        ),
    ] = None,
    early_stopping: Annotated[
        EarlyStoppingMethod | None,
        typer.Option(
            "--early-stopping",
            help="Stop the worst trials early: asha ranks by one metric, mo_asha by all objectives.",
            rich_help_panel=_SIZE,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the front at the end.")] = False,
    database: Database = None,
    storage: Storage = None,
    data_root: DataRoots = None,
    ray_address: RayAddress = None,
    server: Server = None,
) -> None:
    """Run a search: train networks that learn their split ratios, score them, show the front.

    Everything is recorded at once. Ctrl-C pauses the search; --resume continues it. If its process or Ray dies, it
    continues by itself from the last epochs.

    With --server, the service's worker runs it, and this command follows: Ctrl-C then ends the following only.

    \b
    Examples:
      nas run studies/digits_quickstart.yaml
      nas run studies/cifar10_small.yaml --data-root /data --trials 4 --finalists 0
      nas run studies/digits_quickstart.yaml --from digits-quickstart --early-stopping mo_asha
      nas run --resume latest
      nas run --resume latest --retry-failed
      nas run studies/digits_quickstart.yaml --server https://nas.example.org
    """
    settings = settings_from(database, storage, data_root, ray_address)
    url = server_of(server, database, settings)
    if url is not None:
        _check_remote(storage, data_root, ray_address)
    check_address(settings.ray_address)
    part = _part(context, settings) if url is None else Part()
    if part.study_id is not None:  # an earlier process of this command has died
        _resume(settings, part.study_id, None, quiet, part, retry_failed=False)
        return
    if resume is not None:
        overrides = {"DEFINITION": definition, "--name": name, "--trials": trials, "--seconds": seconds}
        overrides |= {"--concurrent": concurrent, "--finalists": finalists, "--from": source}
        overrides |= {"--early-stopping": early_stopping}
        given = [flag for flag, value in overrides.items() if value is not None]
        if given:
            raise InputError(f"--resume takes everything from the study, so leave out {', '.join(given)}")
        if url is None:
            _resume(settings, resume, extend, quiet, part, retry_failed=retry_failed)
        else:
            _action(extend, retry_failed=retry_failed)
            resume_there(url, settings, resume, extend, retry_failed=retry_failed, quiet=quiet)
        return
    if retry_failed:
        raise InputError("--retry-failed works only with --resume STUDY")
    if extend is not None:
        raise InputError("--extend works only with --resume STUDY")
    if definition is None:
        raise InputError("give a definition (nas run studies/digits_quickstart.yaml) or --resume STUDY")
    loaded = load_study(definition)
    sweep: dict[str, Any] = {"trials": trials, "seconds": seconds, "concurrent": concurrent, "from": source}
    known = loaded.sweep.early_stopping
    if early_stopping is not None and (known is None or known.method != early_stopping):
        sweep["early_stopping"] = {"method": early_stopping.value}
    checked = _overridden(loaded, name, finalists, sweep)
    if url is not None:
        launch_there(url, settings, checked, quiet=quiet)
        return
    # All checks that need no database run first, so that a fault leaves no study behind.
    from nas.training.data import inspect_data
    from nas.training.feasibility import check_feasible, reference_point
    from nas.training.latency import table_notes

    splits, data = inspect_data(checked, settings.data_roots)
    classes = len(splits.info.class_names)
    if settings.ray_address != LOCAL_RAY:
        check_cluster(settings.ray_address)
    found = _latency_table(checked, classes, settings, quiet)
    table = None if found is None else found.table
    notes = [*splits.left_out, *check_feasible(checked, classes, table)]
    if found is not None:
        notes += table_notes(found, checked, classes)
    point = reference_point(checked, classes, table)
    with open_store(settings, create=True) as store:
        study = store.create_study(checked, reference_point=point)
        store.record_data(study.id, data)
        if found is not None:
            store.record_latency_table(study.id, found.to_dict())
        if not quiet:
            if prior := store.prior(study.id):
                results = format_number(len(prior), "result")
                notes.append(f"the searcher receives {results} of study {prior[0].study} first")
            _introduce(study, data, notes)
        _search(store, study, settings, quiet, part)


def _resume(
    settings: Settings, reference: str, extend: int | None, quiet: bool, part: Part, *, retry_failed: bool
) -> None:
    with open_store(settings) as store:
        study = store.study(reference)
        take(study.name, study.state, _action(extend, retry_failed=retry_failed))
        _check_data(store, study, settings)
        if retry_failed:
            note(f"{format_number(store.retry_failed(study.id), 'failed trial')} will run again")
        if extend is not None:
            store.extend(study.id, extend, queue=False)
        _search(store, store.study(study.id), settings, quiet, part)


def _part(context: typer.Context, settings: Settings) -> Part:
    return supervised(settings.database_url, (socket_base(),)) if isinstance(context.obj, OwnProcess) else Part()


def _check_remote(storage: str | None, data_roots: list[Path] | None, ray_address: str | None) -> None:
    """Refuse the options of a search in this process where a service runs it."""
    options = {"--storage": storage, "--data-root": data_roots, "--ray-address": ray_address}
    given = [flag for flag, value in options.items() if value is not None]
    if given:
        raise InputError(f"--server: the service has its own storage, data and Ray, so leave out {', '.join(given)}")


def _overridden(
    definition: StudyDefinition, name: str | None, finalists: int | None, sweep: Mapping[str, Any]
) -> StudyDefinition:
    """Return the definition with the values of the flags, checked like the file itself."""
    given = {key: value for key, value in sweep.items() if value is not None}
    final = {} if finalists is None else {"candidates": finalists}
    if not given and not final and name is None:
        return definition
    data = definition.to_dict()
    changed = {**data, "name": name or definition.name, "sweep": {**data["sweep"], **given}}
    return parse_study({**changed, "final": {**data["final"], **final}}, "command line")


def _latency_table(
    definition: StudyDefinition, classes: int, settings: Settings, quiet: bool
) -> DeviceTable | None:
    """Return the study's latency table, measured now if it is missing in the cache."""
    if definition.latency is None or definition.latency.table is None:
        return None
    from nas.training.latency import study_table

    with nullcontext(lambda _: None) if quiet else table_progress() as tell:
        return study_table(definition, classes, settings.data_roots, tell)


def _check_data(store: Store, study: Study, settings: Settings) -> None:
    """Refuse to resume without the images: each remaining trial would fail, and ended trials are not repeated.

    It refuses other images as well: their scores could not be compared with the existing ones.
    """
    from nas.training.data import inspect_data

    store.record_data(study.id, inspect_data(study.definition, settings.data_roots, study.data)[1])


def _introduce(study: Study, data: DataFingerprint, notes: list[str]) -> None:
    out, definition = console(), study.definition
    say(out, f"study {study.name}", style="bold")
    if definition.question:
        tell(out, definition.question.strip())
    sweep, baselines = definition.sweep, format_number(len(definition.baselines), "baseline")
    say(
        out,
        f"{format_number(sweep.trials, 'search trial')} ({sweep.searcher}{_halving(definition)}), {baselines}"
        f"{_retrainings(definition)}; {definition.model.model} on {definition.data.name}",
    )
    tell(out, data.sentence())
    if definition.expected_time:
        tell(out, f"expected time: {definition.expected_time}")
    for text in notes:
        tell(out, text)


def _halving(definition: StudyDefinition) -> str:
    early = definition.sweep.early_stopping
    return "" if early is None else f", early stopping by {early.method}"


def _retrainings(definition: StudyDefinition) -> str:
    count = definition.planned_final
    return f", then {format_number(count, 'retraining')} to compare" if count else ""


def _action(extend: int | None, *, retry_failed: bool) -> Action:
    """Return the action that the options of ``--resume`` request.

    Raises:
        InputError: If both are given.
    """
    if retry_failed and extend is not None:
        raise InputError("give --retry-failed or --extend; the other one can follow when the search has ended")
    return Action.RETRY if retry_failed else Action.RUN if extend is None else Action.EXTEND


def _search(store: Store, study: Study, settings: Settings, quiet: bool, part: Part) -> None:
    from nas.commands.display import SweepDisplay
    from nas.sweep.search import run_search
    from nas.worker.lease import held_search

    try:
        with (
            held_search(store, study.id, hold=part.hold) as held,
            nullcontext() if quiet else SweepDisplay(console()) as display,
        ):
            ended = run_search(held, study.id, settings, progress=display)
    except KeyboardInterrupt:
        ended = store.study(study.id)  # the request may have come when the search had just ended
        if ended.state in (StudyState.QUEUED, StudyState.RUNNING, StudyState.INTERRUPTED):
            note(f"interrupted; continue with: nas run --resume {study.name}")
            raise typer.Exit(130) from None
    conclude(store, ended, quiet)
