"""``nas report``: writes the findings of studies as a page with pictures that works alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.commands.options import Database, console, note, say
from nas.commands.remote import RemoteStore, Server, open_source
from nas.errors import InputError, NotFoundError
from nas.versions import own_version

if TYPE_CHECKING:
    from nas.plots.page import Page
    from nas.plots.report_page import Reported
    from nas.store import Store


class Format(StrEnum):
    """Formats of a report."""

    HTML = "html"
    PNG = "png"


def report(
    studies: Annotated[
        list[str], typer.Argument(metavar="STUDY", help="Names, ids (or their beginnings), or 'latest'.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder of the report; it is created if it is missing.")
    ] = Path("report"),
    formats: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="LIST", help="html, png or html,png; both if there is a browser, else html only."
        ),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option("--trial", metavar="N", min=0, help="Trial whose levels are drawn; by default the best one."),
    ] = None,
    database: Database = None,
    server: Server = None,
) -> None:
    """Write a report on one study or several: findings, tables and pictures in one HTML file.

    It holds these pictures: fronts by method, the ratio of each layer by target, the levels of one trial over its
    training, and scores during the search against scores after retraining. report.html works without a network and
    other files. With Chromium or Chrome, each picture is also written as a PNG. Several studies with the same data set
    are drawn together by their method. An unfinished study is reported with its results so far.

    \b
    Examples:
      nas report latest
      nas report digits --output digits-report --format html
      nas report digits-gates digits-supernet --output methods
      nas report digits --trial 4
    """
    wanted = _formats(formats)
    if trial is not None and len(set(studies)) > 1:
        raise InputError(f"--trial {trial} is a trial of one study, but {len(studies)} studies were given")
    with open_source(server, database) as store:
        reported = [_read(store, study, trial) for study in studies]
    once = list({entry.study.id: entry for entry in reported}.values())
    from nas.plots.report_page import make_page

    page = make_page(once, made_at=datetime.now(UTC), version=own_version())
    for path in _write(page, _writable(output), wanted):
        say(console(), str(path))
    if formats is None and Format.PNG not in wanted:
        note("no browser was found, so there are no PNG files; Chromium or Chrome draws them (BROWSER_PATH names it)")


def _formats(given: str | None) -> tuple[Format, ...]:
    from nas.plots.save import NO_BROWSER, find_browser

    if given is None:
        return tuple(Format) if find_browser() else (Format.HTML,)
    names = [name.strip().lower() for name in given.split(",")]
    if not set(names) <= set(Format):
        raise InputError(f"--format must be a list of html and png, such as html,png, but got {given!r}")
    if Format.PNG in names and find_browser() is None:
        raise InputError(f"--format png: drawing PNG {NO_BROWSER}, or give --format html")
    return tuple(dict.fromkeys(Format(name) for name in names))


def _read(store: Store | RemoteStore, reference: str, number: int | None) -> Reported:
    """Return a study with its trials, one of them with its history."""
    from nas.plots.report_page import Reported, best_learned

    study = store.study(reference)
    trials = store.trials(study.id)
    wanted = best_learned(study, trials) if number is None else number
    if number is not None and number not in {trial.number for trial in trials}:
        known = f"its trials are 0 to {len(trials) - 1}" if trials else "it has no trials yet"
        raise NotFoundError(f"study {study.name} has no trial {number}; {known}")
    return Reported(study, trials, None if wanted is None else store.trial(study.id, wanted))


def _writable(folder: Path) -> Path:
    """Create a folder if it is missing, and check that files can be written there before work is spent on them.

    Raises:
        InputError: If it is not a folder, or cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"--output {folder}: there is a file of that name; give a folder") from None
    except OSError as error:
        raise InputError(f"--output {folder}: the folder cannot be made ({error.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--output {folder}: the folder cannot be written to; give another one")
    return folder


def _write(page: Page, folder: Path, formats: Sequence[Format]) -> list[Path]:
    """Write the report, and return the written files; existing ones are replaced."""
    from nas.plots.page import render
    from nas.plots.save import save_images

    written = []
    try:
        if Format.HTML in formats:
            written.append(folder / "report.html")
            written[-1].write_text(render(page), encoding="utf-8")
        if Format.PNG in formats:
            images = [(picture.figure, folder / f"{picture.name}.png") for picture in page.all_pictures]
            save_images(images)
            written += [path for _, path in images]
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written to ({error.strerror})") from error
    return written
