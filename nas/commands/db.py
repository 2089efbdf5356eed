"""``nas db``: the database's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.commands.options import Database, console, say, settings_from
from nas.errors import InputError, StoreError


def status(database: Database = None) -> None:
    """Show which database is used and whether its schema is current. Changes nothing.

    \b
    Examples:
      nas db status
      nas db status --database postgresql://user@host/nas
    """
    from nas.store import Store
    from nas.store.upgrade import head

    try:
        store = Store.open(settings_from(database).database_url, upgrade=False, create=False)
    except StoreError as error:
        raise InputError(str(error)) from error
    with store:
        say(console(), f"{store.url}: schema {head()}, current; {len(store.studies())} studies")


def upgrade(
    database: Database = None,
    backup: Annotated[
        Path, typer.Option("--backup", metavar="FOLDER", help="Folder of the backup of a PostgreSQL database.")
    ] = Path(),
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Upgrade PostgreSQL without a backup: you have made one.")
    ] = False,
) -> None:
    """Bring the database to the newest schema, after a backup. Safe to repeat.

    An SQLite file is copied beside itself, and upgrades itself whenever it is opened. PostgreSQL waits for this
    command, which writes its backup with pg_dump; pg_restore reads it.

    \b
    Examples:
      nas db upgrade
      nas db upgrade --database postgresql://user@host/nas --backup /backups
    """
    from nas.store import Store
    from nas.store.database import parse_url, sqlite_path
    from nas.store.upgrade import dump_postgres, outdated

    if not backup.is_dir():
        raise InputError(f"--backup {backup}: there is no such folder")
    url = settings_from(database).database_url
    try:
        server = sqlite_path(parse_url(url)) is None
        dump = dump_postgres(url, backup) if server and not no_backup and outdated(url) is not None else None
        store = Store.open(url, upgrade=True)
    except StoreError as error:
        raise InputError(str(error)) from error
    with store:
        done, out = store.upgrade, console()
        if done.before == done.after:
            say(out, f"{store.url}: schema {done.after} is current, nothing to do")
            return
        say(out, f"{store.url}: schema {done.before or 'none'} -> {done.after}")
        made = dump or done.backup
        if made is not None:
            say(out, f"backup of the previous database: {made}")
