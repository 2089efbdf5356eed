"""``nas study``: shows one study: its state, its trials, and its hypervolume over time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from nas.commands.options import (
    AsJson,
    Database,
    StudyRef,
    console,
    open_store,
    plain_table,
    say,
    settings_from,
    tell,
)
from nas.commands.pareto import format_volume
from nas.formatting import format_moment, format_value
from nas.trial import TrialState

if TYPE_CHECKING:
    from nas.findings.growth import Growth
    from nas.store import StudyRow

_GROWTHS = 12  # rows of the table: the first growths, the last ones, and some between


def study(study: StudyRef, database: Database = None, as_json: AsJson = False) -> None:
    """Show a study: its state, its trials, its findings, and how its hypervolume grew.

    \b
    Examples:
      nas study latest
      nas study digits-quickstart --json
    """
    with open_store(settings_from(database)) as store:
        row = store.study_row(study)
        growths = store.growths(row.study.id)
    if as_json:
        from nas.wire.builders import study_detail_from

        body = study_detail_from(row.study, row.counts, row.best_top1, growths)
        print(json.dumps(body.model_dump(mode="json"), indent=2))
    else:
        print_study(console(), row, growths)


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
