"""``nas export``: writes a trial's network as a folder."""

from __future__ import annotations

import shutil
import zipfile
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
from nas.commands.remote import Server, open_client, server_of
from nas.errors import InputError
from nas.scratch import scratch_folder
from nas.settings import Settings


def export(
    study: StudyRef,
    number: Number,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist, or be empty.")],
    candidate: CandidateRef = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write the inference form as model.onnx.")] = False,
    database: Database = None,
    storage: Storage = None,
    server: Server = None,
) -> None:
    """Export a trial's network: architecture, weights, preprocessing and a model card.

    The folder needs nothing else: nas predict, nas train and partialnet.load_package read it without the study.

    \b
    Examples:
      nas export latest 3 --out digits-3
      nas export supernet 0 --candidate 5 --out chosen
      nas export latest 3 --out digits-3 --force --onnx
      nas predict digits-3 seven.png
      nas train --package digits-3 --data digits --out digits-3-trained
    """
    settings = settings_from(database, storage)
    url = server_of(server, database, settings)
    if url is not None:
        _export_there(url, settings, study, number, candidate, out, force=force, onnx=onnx)
        _list(out)
        return
    with open_store(settings) as store:
        from nas.artifacts import Artifacts
        from nas.networks.export import export_trial

        artifacts = Artifacts(settings.storage)
        export_trial(store, artifacts, study, number, out, candidate=candidate, force=force, onnx=onnx)
    _list(out)


def _export_there(
    url: str,
    settings: Settings,
    study: str,
    number: int,
    candidate: str | None,
    out: Path,
    *,
    force: bool,
    onnx: bool,
) -> None:
    """Let a worker of the service export, and unpack what it wrote."""
    from partialnet.package import check_target

    if onnx:
        raise InputError("--onnx writes the file here: leave out --server, or convert the exported folder")
    check_target(out, overwrite=force)
    with open_client(url, settings) as client, scratch_folder("export") as scratch:
        job = client.wait(client.export(study, number, candidate).id)
        with zipfile.ZipFile(client.download(job, scratch / "export.zip")) as archive:
            archive.extractall(scratch / "all")  # which keeps names from leaving the folder
        (folder,) = (scratch / "all").iterdir()
        if out.exists():
            shutil.rmtree(out)
        shutil.move(folder, out)


def _list(out: Path) -> None:
    printer = console()
    say(printer, f"exported to {out}")
    for path in sorted(out.iterdir()):
        say(printer, f"  {path.name:<20} {path.stat().st_size:>12,} bytes")
