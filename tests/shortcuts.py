"""What one process of tests does once instead of thousands of times: nothing here changes what the product computes."""

from __future__ import annotations

import functools
import sys
from typing import Any, cast

from greenlet import greenlet
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

_STATEMENTS = 5_000


def take_shortcuts() -> None:
    """Share the work of all tests of this process; call it when the libraries are loaded."""
    share_statements()
    replay_migrations()
    trace_on_a_short_stack()


def share_statements() -> None:
    """Let all stores of a kind use one cache of compiled statements, as those of a service do that has one store.

    The keys of SQLAlchemy's caches hold the dialect, which each engine has of its own.
    """
    statements: LRUCache[Any, Any] = LRUCache(_STATEMENTS)
    made = Engine.__init__

    @functools.wraps(made)
    def make(engine: Engine, *args: Any, **options: Any) -> None:
        made(engine, *args, **options)
        engine._compiled_cache = statements

    def same(dialect: DefaultDialect, other: object) -> bool:
        return dialect is other or (isinstance(other, DefaultDialect) and _traits(dialect) == _traits(other))

    engines, dialects = cast(Any, Engine), cast(Any, DefaultDialect)
    engines.__init__ = make
    dialects.__eq__, dialects.__hash__ = same, lambda dialect: hash(type(dialect))


def _traits(dialect: DefaultDialect) -> tuple[object, ...]:
    """Return what statements depend on: the kind, the version of the server, the form of JSON."""
    names = ("server_version_info", "_json_serializer", "_json_deserializer", "paramstyle")
    return type(dialect), *(getattr(dialect, name, None) for name in names)


def replay_migrations() -> None:
    """Fill each further empty database by the statements that the migrations executed on the first one of its kind."""
    from alembic import command

    from nas.store.upgrade import MIGRATIONS, VERSION_TABLE

    executed: dict[str, list[tuple[str, Any]]] = {}
    migrate = command.upgrade

    @functools.wraps(migrate)
    def upgrade(config: Any, revision: str, *args: Any, **options: Any) -> None:
        connection: Connection = config.attributes["connection"]
        ours = config.get_main_option("script_location") == str(MIGRATIONS)
        if not ours or revision != "head" or connection.dialect.has_table(connection, VERSION_TABLE):
            migrate(config, revision, *args, **options)
            return
        kind = connection.dialect.name
        if kind in executed:
            for statement, values in executed[kind]:
                connection.exec_driver_sql(statement, values)
            return
        found = []

        def note(_c: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
            if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA")):
                found.append((statement, values or None))

        event.listen(connection, "before_cursor_execute", note)
        try:
            migrate(config, revision, *args, **options)
        finally:
            event.remove(connection, "before_cursor_execute", note)
        executed[kind] = found

    command.upgrade = upgrade


def trace_on_a_short_stack() -> None:
    """Let fvcore trace in a greenlet, which has a stack of its own.

    A trace keeps all Python frames of each operation. Those of pytest take a third of its time.
    """
    counting = sys.modules.get("fvcore.nn.jit_analysis")
    if counting is None:  # few tests are run, none of which counts, or the first one to do so loads it
        return
    trace = counting._get_trace_graph

    @functools.wraps(trace)
    def short(*args: Any, **options: Any) -> Any:
        return greenlet(trace).switch(*args, **options)

    counting._get_trace_graph = short  # type: ignore[attr-defined]
