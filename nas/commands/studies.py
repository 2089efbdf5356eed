"""``nas studies``: lists the studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from nas.commands.options import AsJson, Database, Storage, console, note, plain_table, settings_from
from nas.commands.remote import Server, open_source, server_of, study_bodies
from nas.errors import InputError
from nas.formatting import format_bytes, format_moment, format_value
from nas.study import PAUSED_ON_REQUEST, StudyState
from nas.trial import TrialState


def studies(
    database: Database = None,
    as_json: AsJson = False,
    disk: Annotated[bool, typer.Option("--disk", help="Add the size of each study's files in the storage.")] = False,
    storage: Storage = None,
    server: Server = None,
) -> None:
    """List the studies, newest first, with their state and their numbers of complete trials.

    \b
    Examples:
      nas studies
      nas studies --disk
      nas studies --json
      nas studies --server https://nas.example.org
    """
    settings = settings_from(database, storage)
    if disk and server_of(server, database, settings) is not None:
        raise InputError("--disk looks into the storage, which a service does not show; leave out --server")
    with open_source(server, database) as source:
        rows = study_bodies(source)
    sizes = _sizes(settings.storage, [row.id for row in rows]) if disk else {}
    if as_json:
        bodies = [row.model_dump(mode="json") for row in rows]
        if disk:
            bodies = [{**body, "bytes": sizes[body["id"]]} for body in bodies]
        print(json.dumps({"studies": bodies, "count": len(bodies)}, indent=2))
        return
    if not rows:
        note("there are no studies yet; start one: nas run studies/digits_quickstart.yaml")
        return
    best = "best top-1 (%)"
    columns = ["study", "state", "complete", "failed", best, "data", "network", "created", "id"]
    table = plain_table(*columns, *(["files"] if disk else []), right=[best, "files"])
    for row in rows:
        counts = row.counts
        table.add_row(
            row.name,
            row.state.value,
            f"{counts.get(TrialState.COMPLETE, 0)} of {row.planned}",
            str(counts.get(TrialState.FAILED, 0) or "-"),
            "-" if row.best_top1 is None else format_value("top1", row.best_top1),
            row.data + ("" if row.content is None else f" {row.content[:8]}"),
            row.model,
            format_moment(row.created_at),
            row.id[:8],
            *((format_bytes(sizes[row.id]),) if disk else ()),
        )
    console().print(table)
    for row in rows:
        name = row.name
        if row.state is StudyState.PAUSED and row.reason not in (None, PAUSED_ON_REQUEST):
            note(f"{name} is paused: {row.reason}; when that is mended, nas resume {name} continues it")
        if row.state is StudyState.INTERRUPTED:
            note(f"{name}: the process of its search has died; any worker continues it, or nas run --resume {name}")


def _sizes(storage: str, studies: Sequence[str]) -> dict[str, int]:
    """Return the bytes of each study's files in the storage, by id."""
    from nas.artifacts import Artifacts
    from nas.housekeeping.garbage import files_of

    artifacts = Artifacts(storage)
    return {study: sum(file.size for file in files_of(artifacts, study)) for study in studies}
