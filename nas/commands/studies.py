"""``nas studies``: lists the studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from nas.commands.options import AsJson, Database, Storage, console, note, open_store, plain_table, settings_from
from nas.formatting import format_bytes, format_moment, format_value
from nas.study import PAUSED_ON_REQUEST, StudyState
from nas.trial import TrialState


def studies(
    database: Database = None,
    as_json: AsJson = False,
    disk: Annotated[bool, typer.Option("--disk", help="Add the size of each study's files in the storage.")] = False,
    storage: Storage = None,
) -> None:
    """List the studies, newest first, with their state and their numbers of complete trials.

    \b
    Examples:
      nas studies
      nas studies --disk
      nas studies --json
    """
    settings = settings_from(database, storage)
    with open_store(settings) as store:
        rows = store.studies()
    sizes = _sizes(settings.storage, [row.study.id for row in rows]) if disk else {}
    if as_json:
        from nas.wire.builders import study_from

        bodies = [study_from(row.study, row.counts, row.best_top1).model_dump(mode="json") for row in rows]
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
        study, counts = row.study, row.counts
        table.add_row(
            study.name,
            study.state.value,
            f"{counts.get(TrialState.COMPLETE, 0)} of {study.planned}",
            str(counts.get(TrialState.FAILED, 0) or "-"),
            "-" if row.best_top1 is None else format_value("top1", row.best_top1),
            study.definition.data.name + ("" if study.data is None else f" {study.data.content['train'][:8]}"),
            study.definition.model.model,
            format_moment(study.created_at),
            study.id[:8],
            *((format_bytes(sizes[study.id]),) if disk else ()),
        )
    console().print(table)
    for row in rows:
        name = row.study.name
        if row.study.state is StudyState.PAUSED and row.study.reason not in (None, PAUSED_ON_REQUEST):
            note(f"{name} is paused: {row.study.reason}; when that is mended, nas resume {name} continues it")
        if row.study.state is StudyState.INTERRUPTED:
            note(f"{name}: the process of its search has died; any worker continues it, or nas run --resume {name}")


def _sizes(storage: str, studies: Sequence[str]) -> dict[str, int]:
    """Return the bytes of each study's files in the storage, by id."""
    from nas.artifacts import Artifacts
    from nas.housekeeping.garbage import files_of

    artifacts = Artifacts(storage)
    return {study: sum(file.size for file in files_of(artifacts, study)) for study in studies}
