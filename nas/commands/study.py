"""``nas study``: shows one study (state, trials, hypervolume over time), and packs and unpacks whole ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nas.commands.options import (
    AsJson,
    Database,
    Storage,
    StudyRef,
    console,
    note,
    open_store,
    plain_table,
    say,
    settings_from,
    tell,
)
from nas.commands.pareto import format_volume
from nas.commands.remote import Server, open_source
from nas.errors import InputError
from nas.formatting import format_bytes, format_moment, format_number, format_value
from nas.transfer.words import Weights
from nas.trial import TrialState

if TYPE_CHECKING:
    from nas.findings.growth import Growth
    from nas.store import StudyRow

_GROWTHS = 12  # rows of the table: the first growths, the last ones, and some between


def study(study: StudyRef, database: Database = None, as_json: AsJson = False, server: Server = None) -> None:
    """Show a study: its state, its trials, its findings, and how its hypervolume grew.

    \b
    Examples:
      nas study latest
      nas study digits-quickstart --json
      nas study export digits-quickstart --out digits.zip
    """
    with open_source(server, database) as store:
        row = store.study_row(study)
        growths = store.growths(row.study.id)
    if as_json:
        from nas.wire.builders import study_detail_from

        body = study_detail_from(row.study, row.counts, row.best_top1, growths)
        print(json.dumps(body.model_dump(mode="json"), indent=2))
    else:
        print_study(console(), row, growths)


def export(
    study: StudyRef,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Zip file to write; it must not exist.")],
    weights: Annotated[
        Weights, typer.Option("--weights", help="kept: of the front, the baselines, the comparison and pinned ones.")
    ] = Weights.KEPT,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    database: Database = None,
    storage: Storage = None,
) -> None:
    """Write a whole study as one file: definition, trials, histories, splits, and the weights of its front.

    nas study import reads it into another database.

    \b
    Examples:
      nas study export digits-quickstart --out digits.zip
      nas study export latest --out latest.zip --weights none
    """
    from nas.artifacts import Artifacts
    from nas.transfer.pack import pack_study

    if out.exists() and not force:
        raise InputError(f"--out {out}: there is a file of that name; --force replaces it")
    settings = settings_from(database, storage)
    with open_store(settings) as store:
        packed = pack_study(store, Artifacts(settings.storage), study, out, weights=weights)
    for name in packed.missing:
        note(f"{name} is left out: the storage has no such file; is NAS_STORAGE right?")
    trials = format_number(packed.trials, "trial")
    say(console(), f"wrote {out}: {trials}, weights of {format_number(packed.weights, 'network')}, "
        f"{format_bytes(out.stat().st_size)}")  # fmt: skip


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Zip file of nas study export.")],
    new_id: Annotated[
        bool, typer.Option("--new-id", help="Give the study a new id, to have it twice in one database.")
    ] = False,
    max_gb: Annotated[
        float, typer.Option("--max-gb", metavar="N", min=0.001, help="Largest size of the unpacked file.")
    ] = 64.0,
    database: Database = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Read a whole study from a file of nas study export into the database.

    It keeps its id, so that it stays the same study everywhere; a taken name gets a number. An unfinished search
    becomes a paused one. The file may come from anybody: it holds no code, and is checked completely first.

    \b
    Examples:
      nas study import digits.zip
      nas study import digits.zip --new-id
    """
    from nas.artifacts import Artifacts
    from nas.transfer.unpack import unpack_study

    settings = settings_from(database, storage)
    with open_store(settings, create=True) as store:
        artifacts = Artifacts(settings.storage)
        found = unpack_study(store, artifacts, file, new_id=new_id, max_bytes=int(max_gb * 1e9))
        row = store.study_row(found.id)
    if as_json:
        from nas.wire.builders import study_from

        print(json.dumps(study_from(row.study, row.counts, row.best_top1).model_dump(mode="json"), indent=2))
        return
    count = format_number(sum(row.counts.values()), "trial")
    say(console(), f"study {found.name} ({found.id[:8]}) is {found.state.value}, with {count}: nas study {found.name}")


def print_study(out: Console, row: StudyRow, growths: Sequence[Growth]) -> None:
    """Print a study for people."""
    found, definition = row.study, row.study.definition
    say(out, f"{found.name} ({found.id[:8]}): {found.state.value}", style="bold")
    for sentence in (definition.question, found.reason):
        if sentence:
            tell(out, sentence)
    counts = ", ".join(f"{count} {state.value}" for state, count in row.counts.items() if count)
    say(out, f"trials: {counts or 'none yet'}; {definition.planned} planned")
    interrupted = row.counts.get(TrialState.INTERRUPTED, 0)
    if interrupted:
        say(out, "its process has died: any worker continues it")
    if row.best_top1 is not None:
        say(out, f"best top-1: {format_value('top1', row.best_top1)} % (validation data)")
    data = "" if found.data is None else f"; {found.data.sentence()}"
    say(out, f"data: {definition.data.name}{data}; network: {definition.model.model}")
    say(out, f"created {format_moment(found.created_at)}, last change {format_moment(found.updated_at)}")
    if found.report:
        out.print()
    for sentence in found.report:
        tell(out, sentence)
    if growths:
        _print_growths(out, growths, definition.objectives)


def _print_growths(out: Console, growths: Sequence[Growth], objectives: Sequence[str]) -> None:
    out.print()
    say(out, f"hypervolume of {', '.join(objectives)} as trials ended, {len(growths)} times larger:")
    columns = ("results", "hypervolume", "of the last", "by trial", "at")
    table = plain_table(*columns, right=columns[:4])
    last = growths[-1].value
    for place in _places(len(growths)):
        growth = growths[place]
        share = "-" if not last else f"{100 * growth.value / last:.1f} %"
        table.add_row(
            str(growth.trials), format_volume(growth.value), share, str(growth.number), format_moment(growth.at)
        )
    out.print(table)


def _places(count: int) -> list[int]:
    """Return at most a table's indices of ``count`` growths, evenly spread, with the first and the last."""
    if count <= _GROWTHS:
        return list(range(count))
    return sorted({round(step * (count - 1) / (_GROWTHS - 1)) for step in range(_GROWTHS)})
