"""Search trials beyond the definition; a stopped study is one that ended for good.

Revision: 0006, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

_STUDIES = sa.table("studies", sa.column("state"))


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("studies", sa.Column("extended", sa.Integer(), nullable=False, server_default="0"))
    # Every stopped study could be resumed so far, which is what `paused` says now.
    op.execute(_STUDIES.update().where(_STUDIES.c.state == "stopped").values(state="paused"))


def downgrade() -> None:
    """Bring the schema back to the previous revision; paused studies can be resumed there as well."""
    # Not by a copy of the table: dropping the old one would drop each row that refers to it.
    op.drop_column("studies", "extended")
