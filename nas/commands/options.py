"""What commands share: common options, opening the store, and the output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from nas.definition.words import in_words
from nas.errors import InputError, StoreError
from nas.settings import Settings

if TYPE_CHECKING:
    from nas.store import Store

COMMON = "Common options"


class OwnProcess:
    """The object of a command's context if the process runs nothing else, so that the command may fork."""


Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="Database of the studies: sqlite:///FILE or postgresql://... \\[NAS_DATABASE_URL; sqlite:///nas.db]",
        rich_help_panel=COMMON,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PLACE",
        help="Folder or fsspec URL of weights and exports \\[NAS_STORAGE; nas-storage]",
        rich_help_panel=COMMON,
    ),
]
DataRoots = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-root",
        metavar="FOLDER",
        help="Folder with data sets; may be given several times \\[NAS_DATA_ROOTS]",
        rich_help_panel=COMMON,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="Ray cluster of trials and trainings: HOST:PORT, 'auto', or 'local' for a private Ray "
        "\\[NAS_RAY_ADDRESS; local]",
        rich_help_panel=COMMON,
    ),
]
StudyRef = Annotated[str, typer.Argument(metavar="STUDY", help="Name, id (or its beginning), or 'latest'.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Number of the trial within its study.", min=0)]
CandidateRef = Annotated[
    str | None,
    typer.Option(
        "--candidate",
        metavar="PLACE|ID",
        help="Network, if the trial has several (of a supernet): its index from 0, or the beginning of its id.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API answers it.")]


def settings_from(
    database: str | None = None,
    storage: str | None = None,
    data_roots: Sequence[Path] | None = None,
    ray_address: str | None = None,
) -> Settings:
    """Return the settings of the environment, overridden by the given flags.

    Raises:
        InputError: If a value is invalid, or a data root does not exist.
    """
    roots = tuple(data_roots or ()) or None
    given: dict[str, Any] = {"database_url": database, "storage": storage, "data_roots": roots}
    given["ray_address"] = ray_address
    try:
        settings = Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = "NAS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InputError(f"{where}: {in_words(first)} (got {first['input']!r})") from None
    for root in data_roots or ():
        if not root.is_dir():
            raise InputError(f"--data-root {root}: there is no such folder")
    return settings


@contextmanager
def open_store(settings: Settings, *, create: bool = False) -> Iterator[Store]:
    """Open the store inside the block, and close it at its end.

    Args:
        settings: Settings with the URL of the database.
        create: Whether a missing SQLite file is created; commands that only read must not leave one behind.

    Raises:
        InputError: If there is no database, or it cannot be opened: the caller gave its URL.
    """
    from nas.store import Store

    try:
        store = Store.open(settings.database_url, create=create)
    except StoreError as error:
        raise InputError(str(error)) from error
    try:
        yield store
    finally:
        store.close()


class _Output(Console):
    """A console that goes quiet when its reader has gone (``nas run ... | head -1``): the search continues.

    Rich itself would exit the program in the middle of a search.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # the stream's buffer is flushed at exit at the latest
        os.close(nowhere)


def console(*, stderr: bool = False) -> Console:
    """Return the console for output: with the terminal's colours and width; in a pipe, plain and wide.

    It prints data, never markup: ``seven [edited].png`` is the name of a file.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 140
    return _Output(file=stream, highlight=False, markup=False, emoji=False, width=width)


def say(out: Console, text: str, style: str | None = None) -> None:
    """Print a sentence without line breaks of our own."""
    out.print(text, soft_wrap=True, style=style)


def tell(out: Console, text: str) -> None:
    """Print prose: a terminal gets line breaks between words, a pipe gets one line."""
    out.print(text, soft_wrap=not out.is_terminal)


def note(message: str) -> None:
    """Print a line for people to stderr, so that it stays out of pipes and redirections."""
    say(console(stderr=True), message)


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table in the common style.

    Args:
        columns: Heads of the columns.
        right: Columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        # In a narrow terminal, words in the last column wrap, and nothing is cut: no figure, and no long path.
        words = name == columns[-1] and name not in right
        justify: Literal["left", "right"] = "right" if name in right else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if words else "ellipsis"
        table.add_column(name, justify=justify, header_style="bold", no_wrap=not words, overflow=overflow)
    return table
