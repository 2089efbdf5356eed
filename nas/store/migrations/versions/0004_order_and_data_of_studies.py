"""The order in which studies and jobs were made, and what the data of a study was.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ORDERED = ("studies", "jobs")


def upgrade() -> None:
    """Bring the schema from the revision before to this one."""
    for name in _ORDERED:
        op.add_column(name, sa.Column("sequence", sa.Integer(), nullable=False, server_default="0"))
        _number(name)
    op.add_column("studies", sa.Column("data", sa.JSON(), nullable=True))
    op.create_index("ix_studies_sequence", "studies", ["sequence"])


def _number(name: str) -> None:
    """Number what is there by its time: the best that is known of older rows."""
    table = sa.table(name, sa.column("id"), sa.column("created_at"), sa.column("sequence"))
    connection = op.get_bind()
    ids = connection.scalars(sa.select(table.c.id).order_by(table.c.created_at, table.c.id)).all()
    for place, row in enumerate(ids, start=1):
        connection.execute(table.update().where(table.c.id == row).values(sequence=place))


def downgrade() -> None:
    """Bring it back."""
    op.drop_index("ix_studies_sequence", "studies")
    op.drop_column("studies", "data")
    for name in _ORDERED:
        # Not by copying the table: dropping the old one would drop every row that refers to it.
        op.drop_column(name, "sequence")
