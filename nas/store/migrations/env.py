"""Runs the migrations on the connection that ``nas.store.upgrade`` hands over, inside its transaction."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.operations.ops import MigrationScript
from sqlalchemy import Connection

from nas.store.tables import Base, UtcDateTime
from nas.store.upgrade import VERSION_TABLE

connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("these migrations run through `nas db upgrade`, not through the alembic command")


def _render(_kind: str, item: Any, _context: object) -> str | Literal[False]:
    # A migration must not change its meaning when a class of ours does.
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


def _without_empty(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
    script = directives[0]
    if script.upgrade_ops is not None and script.upgrade_ops.is_empty():
        directives[:] = []


context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
    render_as_batch=True,  # SQLite alters a table by copying it
    render_item=_render,
    process_revision_directives=_without_empty,
)
with context.begin_transaction():
    context.run_migrations()
