"""``nas export``: a trial's network as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import (
    CandidateRef,
    Database,
    Number,
    Storage,
    StudyRef,
    console,
    open_store,
    say,
    settings_from,
)


def export(
    study: StudyRef,
    number: Number,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist, or be empty.")],
    candidate: CandidateRef = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write the inference form as model.onnx.")] = False,
    database: Database = None,
    storage: Storage = None,
) -> None:
    """Export a trial's network: architecture, weights, preprocessing and a model card.

    The folder stands on its own: nas predict, nas train and partialnet.load_package read it without the study.

    \b
    Examples:
      nas export latest 3 --out digits-3
      nas export supernet 0 --candidate 5 --out chosen
      nas export latest 3 --out digits-3 --force --onnx
      nas predict digits-3 seven.png
      nas train --package digits-3 --data digits --out digits-3-trained
    """
    settings = settings_from(database, storage)
    with open_store(settings) as store:
        from nas.artifacts import Artifacts
        from nas.networks.export import export_trial

        artifacts = Artifacts(settings.storage)
        export_trial(store, artifacts, study, number, out, candidate=candidate, force=force, onnx=onnx)
    printer = console()
    say(printer, f"exported to {out}")
    for path in sorted(out.iterdir()):
        say(printer, f"  {path.name:<20} {path.stat().st_size:>12,} bytes")
