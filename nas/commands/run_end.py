"""The end of a search that a command ran or followed: front, findings, next steps, or why there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from nas.commands.options import console, note, say, tell
from nas.commands.pareto import print_front
from nas.errors import JobError
from nas.study import PAUSED_ON_REQUEST, Study, StudyState
from nas.trial import LEARNED_KINDS, TrialKind

if TYPE_CHECKING:
    from nas.commands.remote import RemoteStore
    from nas.store import Front, Store


def conclude(store: Store | RemoteStore, ended: Study, quiet: bool, server: str | None = None) -> None:
    """Print the results of a search that has ended, and what can be done next.

    Args:
        store: Database or service with its results.
        ended: Study after its search.
        quiet: Whether the next steps are left out.
        server: Address of the service that ran it; None for this process.

    Raises:
        JobError: If it failed, or was paused by a fault.
        typer.Exit: If it was stopped or paused on request.
    """
    there = "" if server is None else f" --server {server}"
    resume = f"nas run --resume {ended.name}{there}"
    if ended.state is StudyState.PAUSED and ended.reason == PAUSED_ON_REQUEST:
        note(f"paused; continue with: {resume}")
        raise typer.Exit(130)
    if ended.state is StudyState.STOPPED:
        note(f"stopped for good; see the results with: nas pareto {ended.name}{there}")
        raise typer.Exit(130)
    if ended.state is StudyState.PAUSED:
        again = f"when that is mended, continue with: {resume}"
        raise JobError(f"study {ended.name} is paused: {ended.reason}; {again}")
    if ended.state is StudyState.FAILED:
        places = f"`nas studies{there}` and `nas trial {ended.name} 0{there}`"
        raise JobError(f"study {ended.name} failed: {ended.reason}; see {places}")
    _show(store, ended, quiet, there)
    if ended.reason is not None:
        again = f"to run them again: {resume} --retry-failed"
        raise JobError(f"study {ended.name}: {ended.reason}; {again}")


def _show(store: Store | RemoteStore, study: Study, quiet: bool, there: str) -> None:
    objectives = study.definition.objectives
    front = store.front(study.id, objectives, dominated=(TrialKind.BASELINE,))
    out = console()
    out.print()
    print_front(out, study, front, objectives)
    if study.report:
        out.print()
    for sentence in study.report:
        tell(out, sentence)
    if not quiet:
        out.print()
        for line in _next_steps(study, front, there):
            say(out, line)


def _next_steps(study: Study, found: Front, there: str) -> list[str]:
    """Return commands for the most accurate network of the front: a learned one if there is any."""
    several = found.several
    front = [point for point in found.points if point.on_front]
    if not front:
        return [f"no trial was scored; see `nas studies{there}` and `nas trial {study.name} 0{there}`"]
    learned = [point for point in front if point.kind in LEARNED_KINDS]
    best = max(learned or front, key=lambda point: point.values.get("top1", 0.0))
    which = str(best.number) + (f" --candidate {best.position}" if best.number in several else "")
    folder = f"{study.name}-{best.number}" + (f"-{best.position}" if best.number in several else "")
    export = f"nas export {study.name} {which} --out {folder}{there}"
    return [
        "next:",
        f"  nas pareto {study.name} --all --plot front.html{there}   every trial, and a figure",
        f"  nas trial {study.name} {which}{there}   the ratios of the most accurate network, layer by layer",
        f"  {export}   as a folder that predicts and trains without the study",
        *([] if there else ["  nas serve   the same in a browser"]),
    ]
