"""``nas export``: writes a trial's network as a folder."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import (
    CandidateRef,
    Database,
    DataRoots,
    Storage,
    console,
    note,
    open_store,
    say,
    settings_from,
)
from nas.commands.remote import Server, open_client, server_of
from nas.commands.train_settings import data_spec
from nas.errors import InputError
from nas.networks.export import MAX_DROP, Int8Wish
from nas.scratch import scratch_folder
from nas.settings import Settings

if TYPE_CHECKING:
    from nas.definition.sections import DataSpec

_INT8 = "8-bit form"


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist, or be empty.")],
    study: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="Name, id (or its beginning), or 'latest'.")
    ] = None,
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="Number of the trial within its study.", min=0)
    ] = None,
    package: Annotated[
        Path | None,
        typer.Option("--package", metavar="DIR", help="Export this package anew, such as one of nas train."),
    ] = None,
    candidate: CandidateRef = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write the inference form as model.onnx.")] = False,
    program: Annotated[
        bool, typer.Option("--torch-export", help="Also write it as model.pt2, a program of torch.export.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Also write model-int8.onnx, calibrated on training images, and measure it beside the float form.",
            rich_help_panel=_INT8,
        ),
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--int8-max-drop",
            metavar="POINTS",
            min=0,
            max=100,
            help=f"Refuse it if validation top-1 falls by more \\[{MAX_DROP:g}]",
            rich_help_panel=_INT8,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", help="Data set of --package \\[its own]", rich_help_panel=_INT8),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder", metavar="NAME", help="Folder of --data, for images of your own.", rich_help_panel=_INT8
        ),
    ] = None,
    data_root: DataRoots = None,
    database: Database = None,
    storage: Storage = None,
    server: Server = None,
) -> None:
    """Export a trial's network: architecture, weights, preprocessing and a model card.

    The folder needs nothing else: nas predict, nas train and partialnet.load_package read it without the study.
    With --int8, it also holds the form with 8-bit integers for ONNX Runtime.

    \b
    Examples:
      nas export latest 3 --out digits-3
      nas export supernet 0 --candidate 5 --out chosen
      nas export latest 3 --out digits-3 --force --onnx --torch-export
      nas export latest 3 --out digits-3-int8 --int8 --int8-max-drop 0.5
      nas export --package runs/on/package --out small --onnx --int8
      nas predict digits-3 seven.png
      nas train --package digits-3 --data digits --out digits-3-trained
    """
    settings = settings_from(database, storage, data_root)
    wish = _wish(int8, max_drop, settings)
    if package is not None:
        if study is not None or candidate is not None or server is not None:
            raise InputError("--package exports a folder: leave out STUDY, NUMBER, --candidate and --server")
        _export_package(package, out, wish, data, folder, force=force, onnx=onnx, program=program)
        _list(out)
        return
    if study is None or number is None:
        raise InputError("give STUDY and NUMBER of a trial, or --package DIR")
    if data is not None or folder is not None:
        raise InputError("--data and --folder work only with --package: a study names its data")
    url = server_of(server, database, settings)
    if url is not None:
        points = None if wish is None else 100 * wish.max_drop
        _export_there(
            url, settings, study, number, candidate, out, force=force, onnx=onnx, program=program, int8_max_drop=points
        )
        _list(out)
        return
    with open_store(settings) as store:
        from nas.artifacts import Artifacts
        from nas.networks.export import export_trial

        artifacts = Artifacts(settings.storage)
        export_trial(
            store, artifacts, study, number, out, candidate=candidate, force=force, onnx=onnx, program=program,
            int8=wish,
        )  # fmt: skip
    _list(out)


def _wish(int8: bool, max_drop: float | None, settings: Settings) -> Int8Wish | None:
    if not int8:
        if max_drop is not None:
            raise InputError("--int8-max-drop works only with --int8")
        return None
    return Int8Wish((MAX_DROP if max_drop is None else max_drop) / 100, settings.data_roots, tell=note)


def _export_package(
    package: Path,
    out: Path,
    wish: Int8Wish | None,
    name: str | None,
    folder: str | None,
    *,
    force: bool,
    onnx: bool,
    program: bool,
) -> None:
    """Export a package anew."""
    from nas.networks.export import export_package

    spec = None
    if wish is not None:
        spec, wish = judged_by(package, wish, name, folder)
    elif name is not None or folder is not None:
        raise InputError("--data and --folder work only with --int8")
    export_package(package, out, spec, force=force, onnx=onnx, program=program, int8=wish)


def judged_by(package: Path, wish: Int8Wish, name: str | None, folder: str | None) -> tuple[DataSpec, Int8Wish]:
    """Return the data that judge a package's 8-bit form, and the wish with the seed of their validation split.

    The request of the package's training tells both, where ``nas train`` left it; so no training image judges.

    Args:
        package: Folder of the package.
        wish: Wish for the 8-bit form.
        name: Name of the data set, if the user names one.
        folder: Name of the folder of the user's own images, if given.

    Raises:
        InputError: If a name is wrong, or the request is damaged.
        PackageError: If the package is damaged.
    """
    from nas.definition.training import REQUEST, TrainRequest
    from partialnet.package import load_package

    request = TrainRequest.load(package.parent) if (package.parent / REQUEST).is_file() else None
    if request is not None:
        wish = replace(wish, seed=request.validation_seed)
        if name is None and folder is None:
            return request.data, wish
    seen = load_package(package).preprocessing
    return data_spec(name or seen.name, folder, seen.input_shape[1], None, skip_broken=False), wish


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
    program: bool,
    int8_max_drop: float | None,
) -> None:
    """Let a worker of the service export, and unpack what it wrote."""
    from partialnet.package import check_target

    check_target(out, overwrite=force)
    with open_client(url, settings) as client, scratch_folder("export") as scratch:
        queued = client.export(
            study, number, candidate, onnx=onnx, program=program, int8_max_drop=int8_max_drop
        )
        job = client.wait(queued.id)
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
