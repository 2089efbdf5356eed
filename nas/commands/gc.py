"""``nas gc`` and ``nas pin``: frees the storage from files that nothing needs, and says what is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import (
    AsJson,
    CandidateRef,
    Database,
    Number,
    Storage,
    StudyRef,
    console,
    note,
    open_store,
    plain_table,
    say,
    settings_from,
)
from nas.formatting import format_bytes, format_number

if TYPE_CHECKING:
    from nas.housekeeping.garbage import Item, Plan

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "checkpoint": "checkpoints of trials that have ended and of finished trainings",
        "weights": "weights of networks off every front",
        "unreferenced": "files that no record refers to",
        "partial": "half-written files of processes that died",
        "scratch": "temporary folders of processes that died",
        "foreign": "files of studies and trainings that this database does not know",
    }
)


def gc(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="Only this study. \\[all]")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the files that are otherwise only listed.")] = False,
    foreign: Annotated[
        bool,
        typer.Option(
            "--foreign",
            help="Delete the files of unknown studies and trainings too: only if no other database uses this storage.",
        ),
    ] = False,
    as_json: AsJson = False,
    database: Database = None,
    storage: Storage = None,
) -> None:
    """Show what fills the storage and is no longer needed; with --delete, free it.

    Weights are kept for networks on a front, for baselines, for the final comparison, and for networks that `nas pin`
    keeps. Studies and trainings that have not ended are left alone; trainings that have stopped or failed keep their
    checkpoints, from which they can resume.

    \b
    Examples:
      nas gc
      nas gc digits-quickstart
      nas gc --delete
    """
    from nas.artifacts import Artifacts
    from nas.housekeeping.garbage import Kind, collect, find_garbage

    settings = settings_from(database, storage)
    artifacts = Artifacts(settings.storage)
    with open_store(settings) as store:
        only = None if study is None else store.study(study)
        plan = find_garbage(store, artifacts, only)
        chosen = [item for item in plan.items if foreign or item.kind is not Kind.FOREIGN]
        gone = collect(store, artifacts, chosen) if delete else None
    if as_json:
        print(json.dumps(_as_json(plan, gone), indent=2))
        return
    _print_plan(plan, gone)


def _as_json(plan: Plan, gone: Sequence[Item] | None) -> dict[str, object]:
    items = [vars(item) for item in (plan.items if gone is None else gone)]
    return {
        "deleted": gone is not None,
        "items": items,
        "bytes": sum(item.size for item in (plan.items if gone is None else gone)),
        "kept": dict(plan.kept),
        "used": dict(plan.used),
        "active": list(plan.active),
    }


def _print_plan(plan: Plan, gone: Sequence[Item] | None) -> None:
    out, items = console(), plan.items if gone is None else gone
    table = plain_table("files", "size", "what", right=["files", "size"])
    for kind, words in _WORDS.items():
        found = [item for item in items if item.kind.value == kind]
        if found:
            table.add_row(str(len(found)), format_bytes(sum(item.size for item in found)), words)
    if items:
        out.print(table)
    if plan.kept:
        reasons = ", ".join(f"{count} ({reason})" for reason, count in sorted(plan.kept.items()))
        say(out, f"weights kept: {reasons}")
    say(out, f"storage of {format_number(len(plan.used), 'study', 'studies')}: {format_bytes(sum(plan.used.values()))}")
    if plan.active:
        say(out, f"left alone until they end: {', '.join(plan.active)}")
    size = format_bytes(sum(item.size for item in items))
    if gone is not None:
        note(f"freed {size}")
    elif items:
        note(f"{size} can be freed: nas gc --delete")
        if any(item.kind.value == "foreign" for item in items):
            note("files of unknown studies and trainings stay without --foreign: another database may use this storage")
    else:
        note("nothing to collect")


def pin(
    study: StudyRef,
    number: Number,
    candidate: CandidateRef = None,
    off: Annotated[bool, typer.Option("--off", help="Stop keeping it.")] = False,
    database: Database = None,
) -> None:
    """Keep the weights of a trial's network, whatever the front becomes.

    \b
    Examples:
      nas pin latest 3
      nas pin supernet 0 --candidate 5
      nas pin latest 3 --off
    """
    from nas.findings.candidates import choose_candidate

    with open_store(settings_from(database)) as store:
        found = store.study(study)
        position, chosen = choose_candidate(store.trial(found.id, number), found.name, candidate)
        store.pin(found.id, number, position, pinned=not off)
    which = f"trial {number} of {found.name}" + (f", network {position}" if candidate is not None else "")
    if off:
        note(f"{which} is no longer pinned")
    elif chosen.weights is None:
        note(f"{which} is pinned, but its weights have not been kept")
    else:
        note(f"{which} is pinned: nas gc keeps its weights")
