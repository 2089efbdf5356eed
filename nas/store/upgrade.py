"""The version of the schema: reads it, and brings a database to the newest one by the migrations (Alembic).

Alembic is loaded only to migrate. Each process that opens a store reads the versions, and Alembic takes long to load.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from nas.errors import StoreError
from nas.store.database import Database, parse_url

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "nas_schema"  # not Alembic's own name: a shared PostgreSQL may hold another program's
_REVISION = re.compile(r'^(revision|down_revision)\s*=\s*(?:"([^"]*)"|None)', re.MULTILINE)
_UPGRADE_LOCK = 0x6E6173  # "nas": any number that all versions agree on


@dataclass(frozen=True)
class Upgrade:
    """The result of an upgrade.

    Args:
        before: Revision before the upgrade; None for an empty database.
        after: Revision after the upgrade.
        backup: Copy of the previous SQLite file, if it had any content.
    """

    before: str | None
    after: str
    backup: Path | None = None


def alembic_config(migrations: Path = MIGRATIONS, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for the migrations in this package, to run on ``connection``."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head(migrations: Path = MIGRATIONS) -> str:
    """Return the newest revision."""
    befores = _befores(migrations)
    [newest] = set(befores) - set(befores.values())
    return newest


def _befores(migrations: Path) -> dict[str, str]:
    """Return each revision with the one before it; "" for the first one's."""
    return _own_befores() if migrations == MIGRATIONS else _read_befores(migrations)


@cache
def _own_befores() -> dict[str, str]:
    # Once: a long-lived process knows the schema that it was started with, and reading takes half of an opening.
    return _read_befores(MIGRATIONS)


def _read_befores(migrations: Path) -> dict[str, str]:
    found = {}
    for file in (migrations / "versions").glob("[!_]*.py"):
        names = dict(_REVISION.findall(file.read_text(encoding="utf-8")))
        found[names["revision"]] = names["down_revision"]
    return found


def ensure_current(database: Database, *, upgrade: bool, migrations: Path = MIGRATIONS) -> Upgrade:
    """Bring ``database`` to the newest schema, or check that it has it.

    Args:
        database: Database to check.
        upgrade: Whether an older or empty schema is upgraded, after a backup copy of an SQLite file.
        migrations: Folder of the migrations.

    Raises:
        StoreError: If the database cannot be opened, belongs to another program, has a newer schema, or has an older
            and ``upgrade`` is False or the database cannot be written.
    """
    shown = database.shown
    newest = head(migrations)
    found = _found(database, migrations)
    if found == newest:
        return Upgrade(found, newest)
    if not upgrade or database.read_only:
        state = "is empty" if found is None else f"has schema {found}, but this version needs {newest}"
        copy = ", on a copy of the file that this user may write" if database.read_only else ""
        raise StoreError(f"{shown}: the database {state}; run `nas db upgrade`{copy}")
    try:
        return _upgrade(database, newest, migrations)
    except DBAPIError as error:
        cause = database.scrub(str(error.orig))
        raise StoreError(f"{shown}: the upgrade to {newest} failed and changed nothing: {cause}") from error


def outdated(url: str) -> str | None:
    """Return the revision of a database that an upgrade would change; None if it is empty, current or missing.

    Raises:
        StoreError: If the database cannot be opened, belongs to another program or has a newer schema.
    """
    database = Database(parse_url(url))
    try:
        if database.path is not None and not database.path.exists():
            return None
        found = _found(database, MIGRATIONS)
        return None if found == head() else found
    finally:
        database.close()


def dump_postgres(url: str, folder: Path) -> Path:
    """Write a backup of a PostgreSQL database with ``pg_dump``, in its custom format for ``pg_restore``.

    Args:
        url: URL of the database.
        folder: Folder of the backup.

    Raises:
        StoreError: If there is no ``pg_dump``, or it fails; the message says what to do.
    """
    parsed = parse_url(url)
    database = Database(parsed)
    database.close()
    program = shutil.which("pg_dump")
    advice = "make a backup by yourself, then run nas db upgrade --no-backup"
    if program is None:
        raise StoreError(f"{database.shown}: not upgraded, because there is no pg_dump for the backup here; {advice}")
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = folder / f"{parsed.database or 'nas'}.{moment}.dump"
    plain = parsed.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    # The password goes by the environment: all users of a machine can read the arguments of a process.
    secret = {} if parsed.password is None else {"PGPASSWORD": parsed.password}
    done = subprocess.run(
        [program, "--format=custom", f"--file={target}", f"--dbname={plain}"],
        env={**os.environ, **secret},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        target.unlink(missing_ok=True)
        cause = database.scrub(done.stderr)
        raise StoreError(f"{database.shown}: not upgraded, because the backup by pg_dump failed ({cause}); {advice}")
    return target


def _found(database: Database, migrations: Path) -> str | None:
    try:
        with database.engine.connect() as connection:
            revision = _revision(connection)
            tables = inspect(connection).get_table_names() if revision is None and database.path else []
    except (DBAPIError, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(_why_not_opened(database, str(cause))) from error
    if tables:
        listed = ", ".join(sorted(tables)[:5])
        raise StoreError(f"{database.shown}: another program's database (with tables {listed}); name another file")
    if revision is not None and revision not in _befores(migrations):
        raise StoreError(
            f"{database.shown}: the database has schema {revision}, which is newer than this version knows "
            f"({head(migrations)}); install a newer partialnet-nas"
        )
    return revision


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  our name
    return revision


def _why_not_opened(database: Database, cause: str) -> str:
    shown, cause = database.shown, database.scrub(cause)
    if database.path is None:
        return f"{shown}: cannot connect ({cause}); is the server running, and are host, user and database right?"
    path = database.path
    if path.is_dir():
        return f"{shown}: {path} is a folder, but must be a file"
    if not path.absolute().parent.is_dir():
        return f"{shown}: the folder {path.absolute().parent} does not exist; create it first"
    if "not a database" in cause:
        return f"{shown}: the file {path} is not an SQLite database; name another file"
    return f"{shown}: {path} cannot be opened ({cause}); may this user write the file and its folder?"


def _upgrade(database: Database, newest: str, migrations: Path) -> Upgrade:
    # One transaction covers the check and all changes, so that processes that start together upgrade once.
    writers = database.engine.execution_options(sqlite_begin="IMMEDIATE")
    with writers.connect() as connection, connection.begin():
        if database.path is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        before = _revision(connection)
        if before == newest:
            return Upgrade(before, newest)
        from alembic import command

        backup = _back_up(database.path, before) if database.path is not None and before is not None else None
        command.upgrade(alembic_config(migrations, connection), "head")
    return Upgrade(before, newest, backup)


def _back_up(path: Path, revision: str) -> Path:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = path.with_name(f"{path.name}.{revision}.{moment}.backup")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: not upgraded, because the backup copy {target} failed ({error})") from error
    return target
