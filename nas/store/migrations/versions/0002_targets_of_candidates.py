"""The target that a candidate was selected for: a supernet's trial has several.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from the previous revision to this one."""
    op.add_column("candidates", sa.Column("target", sa.Float(), nullable=True))


def downgrade() -> None:
    """Bring the schema back to the previous revision."""
    # Not by a copy of the table: dropping the old one would drop each row that refers to it.
    op.drop_column("candidates", "target")
