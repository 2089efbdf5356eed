"""Engines and transactions of SQLite and PostgreSQL, and their errors as messages."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    ColumnElement,
    Engine,
    Executable,
    bindparam,
    create_engine,
    event,
    func,
    literal,
    make_url,
    select,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError, StatementError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from nas.errors import InputError, StoreError, StoreLost
from nas.settings import SECRET_KEYS, is_torn, mask
from nas.store.file import OpenFile, is_writable, keep_open
from nas.store.tables import Base, UtcDateTime

BUSY_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
# A server that vanishes is noticed within seconds, not when the system gives up on the connection.
_NETWORK: Mapping[str, int] = MappingProxyType(
    {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,  # in milliseconds
    }
)
_NUL = "NUL (0x00)"  # PostgreSQL's word for the one character that it does not take
_EXAMPLES = "for example sqlite:///nas.db or postgresql://user@host/database"


def parse_url(url: str) -> URL:
    """Check a database URL.

    Raises:
        StoreError: If it is invalid, or names an unknown database or SQLite's memory, which processes cannot share.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"{mask(url)!r} is no database URL; {_EXAMPLES}") from None
    if parsed.drivername == "postgres":  # hosting providers print this name
        parsed = parsed.set(drivername="postgresql")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(f"{mask(url)}: the database must be SQLite or PostgreSQL, {_EXAMPLES}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreError(f"{mask(url)}: the store needs a file that processes can share, {_EXAMPLES}")
    if parsed.get_backend_name() == "postgresql" and is_torn(url):
        # If parsing continued, the rest of a torn password would be shown as a host or a database.
        raise StoreError(
            f"{mask(url)}: the user name or the password holds characters that must be escaped: write @ as %40, "
            "/ as %2F, : as %3A, ? as %3F and % as %25"
        )
    return parsed


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite URL; None for other databases."""
    if url.get_backend_name() != "sqlite":
        return None
    assert url.database is not None
    return Path(url.database)


class _NotJson(ValueError):
    pass


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _NotJson(f"{str(value)[:200]} is not JSON: {error}") from error


class Database:
    """An engine with the reading and writing transactions of the store; all threads may use it.

    A reading transaction sees one snapshot. A writing one is exclusive on SQLite from its first statement (``BEGIN
    IMMEDIATE``): SQLite refuses a transaction that reads first and writes later with "database is locked", however
    long it waits.

    An SQLite file is opened read-only if this user may not write to it or to its folder.

    Args:
        url: URL of the database, checked by :func:`parse_url`.

    Attributes:
        read_only: Whether each write is refused.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.shown = mask(url.render_as_string(hide_password=False))
        self.path = sqlite_path(url)
        self.read_only = self.path is not None and self.path.is_file() and not _writable(self.path)
        self.engine = self._create_engine()
        if self.path is not None:
            _prepare_sqlite(self.engine, wal=not self.read_only)
            self._readers: Engine = self.engine
            self._lookers: Engine = self.engine
            self._file = None if self.read_only else OpenFile(self.path, self.shown)
            self._writers: Engine = self.engine.execution_options(sqlite_begin="IMMEDIATE")
        else:
            self._file = None
            self._readers = self.engine.execution_options(isolation_level="REPEATABLE READ")
            self._lookers = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            self._writers = self.engine
        # Threads of one process queue here, because polling SQLite's file lock is slow and unfair.
        self._turn: Any = threading.Lock() if self.path is not None else nullcontext()

    def _create_engine(self) -> Engine:
        shared: dict[str, Any] = {"json_serializer": _json}
        pool: dict[str, Any] = {"pool_size": 4, "pool_timeout": BUSY_SECONDS}
        if self.path is not None and self.read_only:
            pool = {"poolclass": NullPool}  # each connection checks again whether another process writes
            shared |= {"creator": partial(_connect_read_only, self.path)}
        elif self.path is not None:
            shared |= {"connect_args": {"timeout": BUSY_SECONDS}, "max_overflow": 60}
        else:
            shared |= {"connect_args": dict(_NETWORK), "max_overflow": 16, "pool_pre_ping": True}
        try:
            return create_engine(self.url, **pool, **shared)
        except (NoSuchModuleError, ImportError, TypeError, SQLAlchemyError) as error:
            raise StoreError(f"{self.shown}: no such database driver ({self.scrub(str(error))})") from None

    def scrub(self, text: str) -> str:
        """Return the first line of a driver's ``text`` without the password."""
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        line = lines[0] if lines else "no reason given"
        for secret in self._secrets():
            line = line.replace(secret, "***")
        return line

    def _secrets(self) -> list[str]:
        """Return the password and the query text after it: an unescaped "&" may have split it."""
        query = list(self.url.query.items())
        first = next((place for place, (key, _) in enumerate(query) if key.lower() in SECRET_KEYS), len(query))
        pieces = [piece for key, value in query[first:] for piece in (value, key) if key.lower() not in SECRET_KEYS]
        values = [value for key, value in query if key.lower() in SECRET_KEYS]
        found = [self.url.password, *values, *pieces]
        return sorted({piece for piece in found if isinstance(piece, str) and piece}, key=len, reverse=True)

    @contextmanager
    def read(self, patience: float = 0.0) -> Iterator[Session]:
        """Yield a session whose queries see one snapshot; nothing is written.

        Args:
            patience: Time in seconds to wait for a database that does not answer.

        Raises:
            StoreError: If the database fails.
        """
        with self._begun(self._readers, patience) as (session, transaction), self._in_words():
            yield session
            # Not rolled back, because the driver of PostgreSQL would forget its prepared statements.
            transaction.commit()

    def look(self, query: Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Return the rows of one query, without a session: for looks that each request of the service takes.

        Args:
            query: Query whose changing values are parameters, so that it is built once.
            parameters: Values by name.

        Raises:
            StoreError: If the database fails.
        """
        self.check_file()
        with self._in_words(), self._lookers.connect() as connection:
            return connection.execute(query, dict(parameters)).all()

    @contextmanager
    def write(self, patience: float = 0.0) -> Iterator[Session]:
        """Yield a session that is committed at the end, or rolled back if an exception leaves it.

        Args:
            patience: Time in seconds to wait for a database that does not answer.

        Raises:
            StoreError: If the database fails or refuses the write.
        """
        if self.read_only:
            hint = "may this user write the file and its folder?"
            raise StoreError(f"{self.shown}: {self.path} can only be read; {hint}")
        with self._turn:
            with self._begun(self._writers, patience) as (session, transaction), self._in_words(), transaction:
                yield session
            self.check_file()  # what was just written must not be in a file that is gone

    @contextmanager
    def _begun(self, engine: Engine, patience: float) -> Iterator[tuple[Session, SessionTransaction]]:
        """Yield a session in a transaction; only its beginning may take several attempts."""
        deadline = time.monotonic() + patience
        while True:
            session = Session(engine, expire_on_commit=False)
            try:
                self.check_file()
                with self._in_words():
                    transaction = session.begin()
                    session.connection()
                break
            except StoreError as error:
                session.close()
                if isinstance(error, StoreLost) or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)
        with session:
            yield session, transaction

    def check_file(self) -> None:
        """Check the file of an SQLite database, which others may have deleted, replaced or closed to writing.

        Raises:
            StoreError: If it is not the file that was opened, or cannot be written any more.
        """
        if self._file is not None:
            self._file.check(self.engine)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except _NotJson as error:  # psycopg calls the serialiser itself
            raise StoreError(f"{self.shown}: the database refused a value: {error}") from error
        except StatementError as error:
            cause = error.orig or error
            if _NUL in str(cause):  # it comes from a name or id that somebody gave: all texts that are kept are clean
                raise InputError("a name, id or text holds a NUL character, which nothing in the store has") from error
            verb = "failed" if isinstance(error, DBAPIError) else "refused a value"
            raise StoreError(f"{self.shown}: the database {verb}: {self.scrub(str(cause))}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"{self.shown}: {self.scrub(str(error))}") from error

    def now(self, session: Session) -> datetime:
        """Return the time of the database's clock, in UTC: the one clock that all workers share."""
        if self.path is not None:
            return datetime.now(UTC)  # SQLite runs in this process and reads the same clock, but only to milliseconds
        return session.scalars(select(server_clock())).one()

    def clock(self, moment: str | None = None) -> ColumnElement[datetime]:
        """Return the same clock for use in a query.

        Args:
            moment: Name of a parameter that holds SQLite's time when the query is run; None for the present time.
        """
        if self.path is not None and moment is not None:
            return bindparam(moment, type_=UtcDateTime())
        if self.path is not None:
            return literal(datetime.now(UTC), UtcDateTime())
        return server_clock()

    def close(self) -> None:
        """Close all connections."""
        try:
            self.check_file()
        except StoreLost:
            pass
        except StoreError:
            keep_open(self.engine)
            return
        self.engine.dispose()


def insert_into(session: Session, table: type[Base]) -> Any:
    """Return an insert of the session's dialect, which knows what to do about a row with an existing key."""
    # The dialect that is not used stays unloaded: PostgreSQL's takes a fifteenth of the start of a small command.
    return import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}").insert(table)


def server_clock() -> ColumnElement[datetime]:
    """Return the clock of a PostgreSQL server for use in a query."""
    # Not now(), which stays at the start of the transaction while that waits for a lock.
    return func.clock_timestamp(type_=UtcDateTime())


def _writable(path: Path) -> bool:
    """Return whether SQLite can write to ``path``; it also creates files beside it."""
    return all(is_writable(place) for place in (path, path.absolute().parent))


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a read-only file.

    Without a write-ahead log, SQLite opens the file as unchanging; otherwise it would have to create files beside it.
    """
    log = path.with_name(f"{path.name}-wal")
    unchanging = "" if log.exists() and log.stat().st_size else "&immutable=1"
    uri = f"file:{quote(str(path.absolute()))}?mode=ro{unchanging}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


def _prepare_sqlite(engine: Engine, *, wal: bool) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        # The driver would otherwise begin transactions by itself, and none before DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys = ON")
            if wal:
                _use_wal(cursor)
                cursor.execute("PRAGMA synchronous = NORMAL")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


def _use_wal(cursor: Any) -> None:
    # A change of the journal's mode needs the file alone and ignores the busy timeout.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
