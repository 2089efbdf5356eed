"""``nas db``: the database's schema."""

from __future__ import annotations

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


def upgrade(database: Database = None) -> None:
    """Bring the database to the newest schema; an SQLite file is copied first. Safe to repeat.

    SQLite upgrades itself whenever it is opened; PostgreSQL waits for this command.

    \b
    Examples:
      nas db upgrade
      nas db upgrade --database postgresql://user@host/nas
    """
    from nas.store import Store

    try:
        store = Store.open(settings_from(database).database_url, upgrade=True)
    except StoreError as error:
        raise InputError(str(error)) from error
    with store:
        done, out = store.upgrade, console()
        if done.before == done.after:
            say(out, f"{store.url}: schema {done.after} is current, nothing to do")
            return
        say(out, f"{store.url}: schema {done.before or 'none'} -> {done.after}")
        if done.backup is not None:
            say(out, f"the database as it was: {done.backup}")
